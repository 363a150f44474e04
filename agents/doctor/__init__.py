"""`spanmill doctor`: the configuration against the running world, a line for each check and what to do."""

from agents.doctor.examination import examine
from agents.doctor.finding import Finding, Level

__all__ = ["Finding", "Level", "examine"]
