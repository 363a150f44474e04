"""Compile the kernels into numba's cache (NUMBA_CACHE_DIR) while an image is built: it takes most of a minute.

Without it every new container would do so before it is ready.
"""

from typing import cast

from prometheus_client import CollectorRegistry

from agents.distributor.intake import Intake
from agents.distributor.metrics import DistributorMetrics
from agents.distributor.producer import RecordProducer
from agents.warm_up import EVERY_KERNEL, warm_up
from schemas.config import load_config


def main() -> None:
    """Go through every stage's kernels once, without Kafka."""
    for text in EVERY_KERNEL:
        warm_up(load_config(None, text=text))
    no_producer = cast("RecordProducer", None)  # a rehearsal writes nothing
    metrics = DistributorMetrics(CollectorRegistry())
    Intake(no_producer, metrics, partitions=1, max_record=1_000_000, multitenancy=False).rehearse()


if __name__ == "__main__":
    main()
