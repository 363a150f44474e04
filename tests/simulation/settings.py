"""The configurations of simulated processes; each is read once, since that costs more than a schedule's window."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from agents.live_config import LiveConfig
from agents.own_metrics import OwnMetrics
from schemas.config import Config, load_config
from schemas.config.overrides import TenantOverrides
from schemas.config.runtime import RuntimeOverrides, complete

INTERVAL_MS = 5_000
WAIT_MS = 6_000
SLACK_MS = 20_000
TENANTS = ("one", "two")
KEY = "0123456789abcdef0123456789abcdef"

CONFIG = """
metrics_generator:
  processor:
    service_graphs: {{wait: 6s, histogram_buckets: [0.5]{edges}}}
    span_metrics: {{histogram_buckets: {buckets}{spans}}}
  registry: {{collection_interval: 5s, stale_duration: 14s}}
  metrics_ingestion_time_range_slack: 20s
  limiter_type: {limiter}
overrides:
  defaults: {{metrics_generator: {{processors: [service-graphs, span-metrics]{defaults}}}}}
spanmill:
  generator: {{tick_after: 2s}}
  sink: {{hold_back: {hold_back}s, snapshot_every_windows: {snapshot_every}, endpoint_max_lag: {max_lag}s,
          stale_markers: {stale_markers}, data_dir: {data_dir}}}
"""


@dataclass(frozen=True)
class Kind:
    """What decides values. `one` and `two` are overrides of the tenants."""

    buckets: str = "[0.1]"
    spans: str = ""
    edges: str = ""
    defaults: str = ""
    limiter: str = "series"
    two: str = ""


KINDS = {
    "plain": Kind(),
    "buckets": Kind(buckets="[0.1, 1]"),
    "labels": Kind(spans=", intrinsic_dimensions: {span_kind: false}"),
    "limited": Kind(defaults=", max_active_series: 30"),
    "entities": Kind(limiter="entity", defaults=", max_active_entities: 7"),
    "patterns": Kind(defaults=", span_name_sanitization: enabled, max_cardinality_per_label: 4"),
    "native": Kind(defaults=", generate_native_histograms: both"),
    "slow tenant": Kind(two="collection_interval_ms: 10000"),
    "few edges": Kind(edges=", max_items: 3"),
    "idle tenant": Kind(two="processors: []"),
}
"""By name."""

FIRST = ("plain", "plain", "limited", "entities", "patterns", "native", "slow tenant", "few edges")
"""What a schedule begins with."""


@dataclass(frozen=True)
class Work:
    """How stages work, which decides no value."""

    hold_back_s: int = 600
    snapshot_every: int = 1
    max_lag_s: int = 3600
    stale_markers: bool = False


@cache
def config(kind: str, work: Work, data_dir: Path) -> Config:
    """A configuration."""
    chosen = KINDS[kind]
    text = CONFIG.format(
        **{name: getattr(chosen, name) for name in ("buckets", "spans", "edges", "defaults", "limiter")},
        hold_back=work.hold_back_s,
        snapshot_every=work.snapshot_every,
        max_lag=work.max_lag_s,
        stale_markers=str(work.stale_markers).lower(),
        data_dir=data_dir,
    )
    read = load_config(None, text)
    blocks: dict[str, TenantOverrides] = {}
    if chosen.two:
        name, value = chosen.two.split(": ")
        given: dict[str, Any] = {name: () if value == "[]" else int(value)}
        general = read.overrides.defaults
        block = general.replace(metrics_generator=general.metrics_generator.replace(**given))
        blocks["two"] = block if value == "[]" else complete(block, general)
    return read.with_runtime(RuntimeOverrides(blocks, name="simulated"))


@cache
def metrics() -> OwnMetrics:
    """One for all processes: they count work, and nothing depends on them."""
    return OwnMetrics()


@cache
def _live(kind: str, work: Work, data_dir: Path) -> LiveConfig:
    return LiveConfig(config(kind, work, data_dir), metrics().config)


def live(kind: str, work: Work, data_dir: Path) -> LiveConfig:
    """The configuration of a process that begins with it."""
    known = _live(kind, work, data_dir)
    own = object.__new__(LiveConfig)
    own.__dict__.update(known.__dict__)
    return own
