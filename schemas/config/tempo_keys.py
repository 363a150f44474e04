"""Tempo's blocks and keys that a configuration may have and Spanmill has no use for: ignored, with a note."""

from collections.abc import Mapping
from typing import Any

from schemas.config.yaml_lines import Path

BLOCKS = frozenset(
    {
        "backend_scheduler",
        "backend_scheduler_client",
        "backend_worker",
        "block_builder",
        "cache",
        "compactor",
        "ingester",
        "ingester_client",
        "internal_server",
        "live_store",
        "live_store_client",
        "memberlist",
        "metrics_generator_client",
        "querier",
        "query_frontend",
        "storage",
        "usage_report",
        "autocomplete_filtering_enabled",
        "enable_go_runtime_metrics",
        "http_api_prefix",
        "partition_ring_live_store",
        "shutdown_delay",
        "stream_over_http_enabled",
        "target",
    }
)
"""Blocks at the root. (Tempo's `ingester` isn't ours, which is `spanmill.ingester`.)"""

KAFKA_OWNS = "partitions are assigned by Kafka's consumer groups"
LOG_IS_BUFFER = "the log is the buffer"
IN_ORDER = "windows are sent in order, each after the one before it"

WITHOUT_EFFECT: dict[str, str] = {
    "distributor.extend_writes": KAFKA_OWNS,
    "distributor.ring": KAFKA_OWNS,
    "distributor.override_ring_key": KAFKA_OWNS,
    "ingest.enabled": "Kafka is always between the stages",
    "ingest.kafka.auto_create_topic_default_partitions": "`spanmill topics create` makes the topics",
    "ingest.kafka.auto_create_topic_enabled": "`spanmill topics create` makes the topics",
    "ingest.kafka.consumer_group": "groups are named after spanmill.app_id",
    "ingest.kafka.consumer_group_lag_metric_update_interval": "lag is measured at every window",
    "ingest.kafka.consumer_group_offset_commit_interval": "offsets are committed with each checkpoint",
    "ingest.kafka.disable_kafka_telemetry": "our clients send none",
    "ingest.kafka.last_produced_offset_retry_timeout": "nothing waits for it",
    "ingest.kafka.max_consumer_lag_at_startup": "readiness doesn't wait for lag",
    "ingest.kafka.target_consumer_lag_at_startup": "readiness doesn't wait for lag",
    "metrics_generator.ingest_concurrency": "a partition is read in order; run more generators",
    "metrics_generator.instance_id": "series carry no instance label",
    "metrics_generator.leave_consumer_group_on_shutdown": "a stage leaves its group when it stops",
    "metrics_generator.override_ring_key": KAFKA_OWNS,
    "metrics_generator.processor.service_graphs.workers": "half-edges expire in stream time, at window ends",
    "metrics_generator.ring": KAFKA_OWNS,
    "metrics_generator.ring_mode": KAFKA_OWNS,
    "metrics_generator.skip_stale_backlog_on_startup": "a backlog is measured at the times of its records",
    "metrics_generator.storage.path": LOG_IS_BUFFER,
    "metrics_generator.storage.remote_write.*.enable_http2": "remote write is HTTP/1.1",
    "metrics_generator.storage.remote_write.*.queue_config.batch_send_deadline": "a window is sent when it is complete",
    "metrics_generator.storage.remote_write.*.queue_config.capacity": IN_ORDER,
    "metrics_generator.storage.remote_write.*.queue_config.max_shards": IN_ORDER,
    "metrics_generator.storage.remote_write.*.queue_config.min_shards": IN_ORDER,
    "metrics_generator.storage.remote_write.*.queue_config.retry_on_http_429": "what may pass is always tried again",
    "metrics_generator.storage.remote_write.*.round_robin_dns": "connections are kept",
    "metrics_generator.storage.remote_write.*.send_exemplars": "exemplars are always sent, as in Tempo (ST-4)",
    "metrics_generator.storage.remote_write.*.send_native_histograms": "the tenant's histogram mode decides (ST-4)",
    "metrics_generator.storage.remote_write_flush_deadline": LOG_IS_BUFFER,
    "metrics_generator.storage.wal": LOG_IS_BUFFER,
    "overrides.defaults.compaction": "Spanmill stores no traces",
    "overrides.defaults.global": "Spanmill stores no traces",
    "overrides.defaults.ingestion.max_global_traces_per_user": "Spanmill stores no traces",
    "overrides.defaults.ingestion.max_traces_per_user": "Spanmill stores no traces",
    "overrides.defaults.ingestion.tenant_shard_size": "a trace's partition depends on its ID alone",
    "overrides.defaults.metrics_generator.forwarder": "nothing is forwarded within a process",
    "overrides.defaults.metrics_generator.ring_size": KAFKA_OWNS,
    "overrides.defaults.read": "Spanmill answers no queries",
    "overrides.defaults.storage": "Spanmill stores no traces",
    "server.graceful_shutdown_timeout": "stages stop as soon as their work is safe",
    "server.grpc_listen_address": "only the receivers speak gRPC",
    "server.grpc_listen_port": "only the receivers speak gRPC",
    "server.grpc_server_max_recv_msg_size": "see distributor.receivers.otlp.protocols.grpc.max_recv_msg_size_mib",
    "server.grpc_server_max_send_msg_size": "only the receivers speak gRPC",
    "server.http_server_idle_timeout": "the server answers short requests only",
    "server.http_server_read_timeout": "the server answers short requests only",
    "server.http_server_write_timeout": "the server answers short requests only",
    "server.log_format": "logs are key=value lines",
    "server.log_level": "see --log-level",
}
"""Dotted keys, `*` for any item of a list, and why they have no effect here."""

CREDENTIALS = ("file_path", "http_socket_path", "http_socket_timeout")
WITHOUT_EFFECT |= {
    # The mechanisms themselves are refused (schemas/config/pending.py).
    "ingest.kafka.sasl_oauthbearer_http_socket_timeout": "tokens don't come from sockets",
    **{
        f"ingest.kafka.sasl_msk_iam_{key}": "for AWS_MSK_IAM"
        for key in ("access_key", "secret_key", "session_token", "user_agent", *CREDENTIALS)
    },
}


DEFAULTS = "overrides.defaults."
WITHOUT_EFFECT_FOR_A_TENANT = {
    f"overrides.*.{dotted.removeprefix(DEFAULTS)}": why
    for dotted, why in WITHOUT_EFFECT.items()
    if dotted.startswith(DEFAULTS)
}
"""The same in the file of tenants."""


def take_out_blocks(values: dict[str, Any]) -> tuple[dict[str, Any], list[tuple[Path, str]]]:
    """The values without those blocks, and what was taken: (path, why)."""
    why = "a block of Tempo's that Spanmill has no use for"
    return (
        {key: value for key, value in values.items() if key not in BLOCKS},
        [((key,), why) for key in values if key in BLOCKS],
    )


def take_out(values: dict[str, Any], keys: Mapping[str, str]) -> tuple[dict[str, Any], list[tuple[Path, str]]]:
    """The values without those keys, and what was taken: (path, why)."""
    taken: list[tuple[Path, str]] = []
    rest: Any = values
    for dotted, why in keys.items():
        rest, paths = without(rest, tuple(dotted.split(".")))
        taken += [(path, why) for path in paths]
    return rest, taken


def without(values: Any, pattern: tuple[str, ...], at: Path = ()) -> tuple[Any, list[Path]]:
    """A copy of `values` that lacks what a pattern of keys and `*` matches, and the paths of that."""
    key, deeper = pattern[0], pattern[1:]
    if key == "*" and isinstance(values, tuple):
        parts = [without(item, deeper, (*at, i)) for i, item in enumerate(values)]
        return tuple(rest for rest, _ in parts), [path for _, paths in parts for path in paths]
    if not isinstance(values, dict) or (key != "*" and key not in values):
        return values, []
    if not deeper:
        return {name: item for name, item in values.items() if name != key}, [(*at, key)]
    found = {name: without(values[name], deeper, (*at, name)) for name in (values if key == "*" else (key,))}
    paths = [path for _, each in found.values() for path in each]
    return ({**values, **{name: rest for name, (rest, _) in found.items()}} if paths else values), paths


def known_beside(path: Path) -> list[str]:
    """The keys without effect that may stand in the mapping at `path`."""
    parent = [str(key) if isinstance(key, str) else "*" for key in path]
    if len(parent) > 1 and parent[0] == "overrides" and parent[1] != "defaults":
        parent[1] = "*"  # a tenant's block
    keys = (*WITHOUT_EFFECT, *WITHOUT_EFFECT_FOR_A_TENANT)
    return [dotted.split(".")[-1] for dotted in keys if dotted.split(".")[:-1] == parent]
