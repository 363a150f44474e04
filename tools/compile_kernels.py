"""Compile the kernels into numba's cache (NUMBA_CACHE_DIR) while an image is built: it takes most of a minute.

Without it every new container would do so before it is ready.
"""

from typing import cast

from prometheus_client import CollectorRegistry

from agents.distributor.intake import Intake
from agents.distributor.metrics import DistributorMetrics
from agents.distributor.producer import RecordProducer
from agents.warm_up import warm_up
from schemas.config import load_config

EVERYTHING = """
metrics_generator:
  processor:
    span_metrics:
      enable_target_info: true
      span_multiplier_key: sampling.ratio
      enable_tracestate_span_multiplier: true
      filter_policies: [{exclude: {match_type: strict, attributes: [{key: span.number, value: 1}]}}]
overrides:
  defaults:
    metrics_generator:
      processors: [service-graphs, span-metrics, host-info]
      generate_native_histograms: both
      max_cardinality_per_label: 1000
"""
"""What any tenant may switch on."""

REJECTING = """
metrics_generator:
  codec: push-bytes
  processor:
    service_graphs:
      filter_policies: [{exclude: {match_type: strict, attributes: [{key: kind, value: SPAN_KIND_SERVER}]}}]
overrides:
  defaults:
    metrics_generator:
      processors: [service-graphs]
"""
"""Sides of edges that are remembered because a filter dropped them, in Tempo's own records."""


def main() -> None:
    """Go through every stage's kernels once, without Kafka."""
    for text in (EVERYTHING, REJECTING):
        warm_up(load_config(None, text=text))
    no_producer = cast("RecordProducer", None)  # a rehearsal writes nothing
    metrics = DistributorMetrics(CollectorRegistry())
    Intake(no_producer, metrics, partitions=1, max_record=1_000_000, multitenancy=False).rehearse()


if __name__ == "__main__":
    main()
