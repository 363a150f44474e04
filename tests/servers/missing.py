"""What happens to a test whose server isn't installed."""

import os
from typing import NoReturn

import pytest


def missing(component: str, install: str) -> NoReturn:
    """Skip the test, naming the component and how to get it; in CI that is a failure."""
    message = f"{component} is missing: {install}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
