"""What may happen to an installation. Each scenario ends with the same verdict (tests/faults/trial.py)."""

import signal

from tests.faults.trial import Scenario, Trial


def random_kills(trial: Trial) -> None:
    """kill -9 of any process at any moment, also of one that has just been started again."""
    for _ in range(trial.options.kills):
        trial.signal(trial.rng.choice(trial.deployment.names), signal.SIGKILL)
        trial.wait(trial.rng.uniform(0.2, 6.0))


SCENARIOS = {scenario.name: scenario for scenario in (Scenario(random_kills),)}

CI = ("random_kills",)
"""What every change has to pass: under three minutes together."""
