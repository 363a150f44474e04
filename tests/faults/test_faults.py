"""Every scenario ends without a difference. A few of them are in CI; the others run with `-m faults`."""

import sys
from pathlib import Path

import pytest

from tests.faults.scenarios import CI, SCENARIOS
from tests.faults.trial import ImpossibleError, Options

pytestmark = [pytest.mark.kafka, pytest.mark.prometheus]


@pytest.mark.parametrize("name", CI)
def test_nothing_differs_after(name: str, tmp_path: Path) -> None:
    try:
        report = SCENARIOS[name].run(tmp_path, Options())
    except ImpossibleError as error:
        pytest.skip(str(error))
    sys.stdout.write(f"{report}\n")
    assert report.faults
    assert report.differences == []


@pytest.mark.faults
@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - set(CI)))
def test_nothing_differs_after_long(name: str, tmp_path: Path) -> None:
    test_nothing_differs_after(name, tmp_path)
