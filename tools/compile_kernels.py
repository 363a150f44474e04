"""Compile the kernels into numba's cache (NUMBA_CACHE_DIR), on two processors: it takes about a minute.

Done while an image is built, or every new container would do so before it is ready; and before the tests, or several
processes would at once.
"""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from agents.warm_up import EVERY_KERNEL, warm_up
from schemas import json_elements, otlp_json
from schemas.config import load_config
from schemas.otlp import regroup
from spanmill import drop_stale_kernels


def stages() -> None:
    """Go through the generator's, the sink's and the replay's kernels once, without Kafka."""
    for text in EVERY_KERNEL:
        warm_up(load_config(None, text=text))


def intake() -> None:
    """The distributor's."""
    for module in (regroup, otlp_json, json_elements):
        module.rehearse()


def main() -> None:
    """Compile what isn't compiled yet."""
    drop_stale_kernels(Path(__file__).resolve().parents[1])
    with ProcessPoolExecutor(2, get_context("spawn")) as processes:
        for compiled in [processes.submit(stages), processes.submit(intake)]:
            compiled.result()


if __name__ == "__main__":
    main()
