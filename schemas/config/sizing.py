"""How many series tenants may make (Tempo LIM-5a), for `spanmill config check`."""

from collections import defaultdict
from collections.abc import Iterator

from schemas.config.config import Config
from schemas.config.runtime import EVERY_OTHER
from schemas.config.settings import HistogramSettings, LimitSettings, ServiceGraphsSettings, TenantSettings
from schemas.config.tenant import tenant_settings

SHOWN = 5
"""So many tenants of the same size are named."""


def histogram_series(histograms: HistogramSettings, buckets: int) -> int:
    """Of one label set: its buckets with +Inf, the sum and the count (REG-13), or one that is native (REG-21)."""
    return histograms.classic * (buckets + 3) + histograms.native


def series_of_label_set(settings: TenantSettings) -> int:
    """What a label set of span metrics counts for."""
    own = settings.span_metrics
    if own is None:
        return 0
    return own.count + own.size + own.latency * histogram_series(settings.histograms, len(own.histogram_buckets))


def series_of_edge(settings: TenantSettings) -> int:
    """What an edge of service graphs counts for."""
    own = settings.service_graphs
    if own is None:
        return 0
    histograms = histograms_of_edge(own) * histogram_series(settings.histograms, len(own.histogram_buckets))
    return 2 * own.request + histograms + own.connection_info


def histograms_of_edge(own: ServiceGraphsSettings) -> int:
    """Of the client, of the server, and of the messaging system if that is on."""
    return own.latency * (2 + own.enable_messaging_system_latency_histogram)


def bound(limits: LimitSettings, shards: int) -> str:
    """How many series a tenant may have; limits are per shard, undivided."""
    limit, what = (
        (limits.max_active_entities, "label sets") if limits.by_entity else (limits.max_active_series, "series")
    )
    return f"at most {limit * shards} {what} ({limit} in each of {shards} shards)" if limit else f"any number of {what}"


def sizes(config: Config, shards: int) -> Iterator[str]:
    """A line for each size that tenants have: the tenants, their bound, and what a label set or an edge counts for."""
    named: dict[str, list[str]] = defaultdict(list)
    everyone = "every tenant" if not config.runtime.blocks else "every other tenant"
    names = {name: name for name in sorted(config.runtime.blocks) if name != EVERY_OTHER}
    for name, tenant in {**names, everyone: EVERY_OTHER}.items():
        named[size(tenant_settings(config, tenant), shards)].append(name)
    for text, tenants in named.items():
        more = f" and {len(tenants) - SHOWN} more" if len(tenants) > SHOWN else ""
        yield f"{', '.join(tenants[:SHOWN])}{more}: {text}"


def size(settings: TenantSettings, shards: int) -> str:
    """A tenant's bound, and what counts for it."""
    counts = {
        "label set of span metrics": series_of_label_set(settings),
        "resource with target_info": int(
            settings.span_metrics is not None and settings.span_metrics.enable_target_info
        ),
        "edge": series_of_edge(settings),
        "host": int(settings.host_info is not None),
    }
    return "; ".join(
        [bound(settings.limits, shards), *(f"{count} for each {what}" for what, count in counts.items() if count)]
    )
