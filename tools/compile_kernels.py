"""Compile the kernels into numba's cache (NUMBA_CACHE_DIR): it takes most of a minute.

Done while an image is built, or every new container would do so before it is ready; and before the tests, or several
processes would at once.
"""

from pathlib import Path

from agents.warm_up import EVERY_KERNEL, warm_up
from schemas import json_elements, otlp_json
from schemas.config import load_config
from schemas.otlp import regroup
from spanmill import drop_stale_kernels


def main() -> None:
    """Go through every stage's kernels once, without Kafka."""
    drop_stale_kernels(Path(__file__).resolve().parents[1])
    for text in EVERY_KERNEL:
        warm_up(load_config(None, text=text))
    for module in (regroup, otlp_json, json_elements):
        module.rehearse()


if __name__ == "__main__":
    main()
