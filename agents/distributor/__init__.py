"""The distributor: accepts OTLP spans and writes them to the spans topic."""

from agents.distributor.service import Distributor, run

__all__ = ["Distributor", "run"]
