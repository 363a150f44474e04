"""`python -m tests.simulation`: see tests/simulation/run.py."""

from tests.simulation.run import main

main()
