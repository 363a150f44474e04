"""Compile the kernels into numba's cache (NUMBA_CACHE_DIR) while an image is built: it takes most of a minute.

Without it every new container would do so before it is ready.
"""

from agents.warm_up import EVERY_KERNEL, warm_up
from schemas.config import load_config
from schemas.otlp.regroup import rehearse


def main() -> None:
    """Go through every stage's kernels once, without Kafka."""
    for text in EVERY_KERNEL:
        warm_up(load_config(None, text=text))
    rehearse()


if __name__ == "__main__":
    main()
