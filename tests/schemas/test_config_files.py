"""Whole configuration files: what each gives, and what each broken one is told."""

from pathlib import Path

import pytest

from schemas.config import (
    Config,
    ConfigError,
    IntrinsicDimensionsSettings,
    ServiceGraphsSettings,
    SpanMetricsSettings,
    load_config,
    load_overrides_file,
    tenant_settings,
)

TESTDATA = Path(__file__).parent / "config_testdata"
EXAMPLE = Path(__file__).parents[2] / "examples" / "spanmill.yaml"
EXAMPLE_OF_TENANTS = EXAMPLE.with_name("overrides.yaml")
BROKEN = sorted(TESTDATA.glob("*.bad.yaml"))


def expected_message(path: Path) -> str:
    """A broken file begins with what it is told, a line `# expect: LINE: key: what` for each problem."""
    marks = (line.removeprefix("# expect: ") for line in path.read_text().splitlines() if line.startswith("# expect: "))
    return "\n".join(f"{path}:{mark}" for mark in marks)


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.name.removesuffix(".bad.yaml"))
def test_a_broken_file_is_told_exactly_what_is_wrong(path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert str(error.value) == expected_message(path)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("generator", "what"),
    [
        ("codec: json", "invalid codec: json, valid choices are [push-bytes otlp]"),
        ("limiter_type: both", "invalid limiter type: both, valid values are series and entity"),
        (
            "processor: {host_info: {host_identifiers: []}}",
            "at least one value must be provided in host_identifiers",
        ),
        ("processor: {host_info: {metric_name: ''}}", "metric_name is invalid"),
    ],
)
def test_what_tempo_refuses_is_refused_in_its_words(generator: str, what: str) -> None:
    """CFG-4. INST-10: it is refused before a tenant could need it."""
    with pytest.raises(ConfigError) as error:
        load_config(None, f"metrics_generator: {{{generator}}}")
    assert str(error.value).endswith(f": {what}")


def test_static_buckets_may_stand_in_any_order() -> None:
    """CFG-3: they are sorted, unlike those of overrides, which have to be in order (OVR-5)."""
    text = """
metrics_generator: {processor: {service_graphs: {histogram_buckets: [3, 1, 2]}}}
overrides: {defaults: {metrics_generator: {processors: [service-graphs]}}}
"""
    settings = tenant_settings(load_config(None, text), "t").service_graphs
    assert settings is not None
    assert settings.histogram_buckets == (1.0, 2.0, 3.0)


def test_there_are_enough_broken_files() -> None:
    assert len(BROKEN) >= 80


def test_every_default_is_tempos() -> None:
    """CFG-1, OVR-3."""
    config = load_config(TESTDATA / "tempo_defaults.yaml")
    ours = Config.model_validate({"ingest": {"kafka": {"topic": "spanmill-spans"}}})
    changes = {"generate_native_histograms": "classic"}  # Tempo's word for the default that "" means
    generator = ours.overrides.defaults.metrics_generator.replace(**changes)
    overrides = ours.overrides.replace(defaults=ours.overrides.defaults.replace(metrics_generator=generator))
    assert config.with_notes(()) == ours.replace(overrides=overrides)


def test_what_differs_from_tempos_defaults_is_named_here() -> None:
    config = load_config(None)
    assert config.metrics_generator.codec == "otlp"
    assert config.ingest.kafka.producer_max_record_size_bytes == 1_000_000
    assert config.server.http_listen_address == "127.0.0.1"
    assert config.distributor.receivers.otlp.protocols.http is not None


def test_keys_without_effect_are_listed() -> None:
    notes = load_config(TESTDATA / "tempo_defaults.yaml").notes
    assert [note.split(": ")[1] for note in notes] == [
        "metrics_generator.ring",
        "metrics_generator.processor.service_graphs.workers",
        "metrics_generator.storage.path",
        "metrics_generator.storage.wal",
        "metrics_generator.storage.remote_write_flush_deadline",
        "metrics_generator.override_ring_key",
        "metrics_generator.ring_mode",
        "metrics_generator.ingest_concurrency",
        "metrics_generator.instance_id",
        "metrics_generator.leave_consumer_group_on_shutdown",
        "metrics_generator.skip_stale_backlog_on_startup",
        "ingest.kafka.sasl_msk_iam_access_key",
        "ingest.kafka.consumer_group",
        "ingest.kafka.consumer_group_offset_commit_interval",
        "ingest.kafka.last_produced_offset_retry_timeout",
        "ingest.kafka.auto_create_topic_enabled",
        "ingest.kafka.auto_create_topic_default_partitions",
        "ingest.kafka.target_consumer_lag_at_startup",
        "ingest.kafka.max_consumer_lag_at_startup",
        "ingest.kafka.disable_kafka_telemetry",
        "ingest.kafka.consumer_group_lag_metric_update_interval",
        "overrides.defaults.ingestion.max_traces_per_user",
        "overrides.defaults.ingestion.max_global_traces_per_user",
        "overrides.defaults.ingestion.tenant_shard_size",
        "overrides.defaults.read",
        "overrides.defaults.compaction",
        "overrides.defaults.global",
        "overrides.defaults.storage",
        "overrides.defaults.metrics_generator.ring_size",
        "overrides.defaults.metrics_generator.forwarder",
        "overrides.defaults.metrics_generator.processors",
    ]


def test_a_file_of_tempos_loads_as_it_is() -> None:
    path = TESTDATA / "tempo_microservices.yaml"
    config = load_config(path)
    assert config.notes == (
        f"{path}:2: target: ignored: a block of Tempo's that Spanmill has no use for",
        f"{path}:3: http_api_prefix: ignored: a block of Tempo's that Spanmill has no use for",
        f"{path}:7: server.log_level: ignored: see --log-level",
        f"{path}:8: memberlist: ignored: a block of Tempo's that Spanmill has no use for",
        f"{path}:15: distributor.ring: ignored: partitions are assigned by Kafka's consumer groups",
        f"{path}:23: metrics_generator.ring_mode: ignored: partitions are assigned by Kafka's consumer groups",
        f"{path}:27: metrics_generator.processor.service_graphs.workers: ignored: "
        "half-edges expire in stream time, at window ends",
        f"{path}:31: metrics_generator.storage.path: ignored: the log is the buffer",
        f"{path}:34: metrics_generator.storage.remote_write[0].send_exemplars: ignored: "
        "exemplars are always sent, as in Tempo (ST-4)",
        f"{path}:37: querier: ignored: a block of Tempo's that Spanmill has no use for",
        f"{path}:38: query_frontend: ignored: a block of Tempo's that Spanmill has no use for",
        f"{path}:39: compactor: ignored: a block of Tempo's that Spanmill has no use for",
        f"{path}:40: storage: ignored: a block of Tempo's that Spanmill has no use for",
        f"{path}:44: overrides.defaults.metrics_generator.processors: "
        "ignoring unknown metrics-generator processor 'span-metric'",
    )
    assert config.spanmill.topics.spans == config.ingest.kafka.topic == "tempo-ingest"
    assert config.metrics_generator.codec == "push-bytes"
    protocols = config.distributor.receivers.otlp.protocols
    assert protocols.grpc is not None
    assert protocols.grpc.endpoint == "localhost:4317"
    assert protocols.http is None  # only what is named is on
    (endpoint,) = config.metrics_generator.storage.remote_write
    assert endpoint.headers["X-Scope-OrgID"].get_secret_value() == "12345"  # a number where a text belongs
    assert endpoint.basic_auth is not None
    assert endpoint.basic_auth.username == "007"  # as it is written
    assert config.metrics_generator.processor.span_metrics.dimensions == ()  # a key without a value
    settings = tenant_settings(config, "t")
    assert settings.service_graphs is not None
    assert settings.service_graphs.histogram_buckets == (0.000001, 0.5, 2.0)  # CFG-2a
    assert settings.service_graphs.dimensions == ("deployment.environment",)
    assert settings.span_metrics is not None
    assert (settings.span_metrics.count, settings.span_metrics.latency) == (False, True)


def test_overrides_apply_to_the_tenants_settings() -> None:
    settings = tenant_settings(load_config(TESTDATA / "overrides.yaml"), "shop")
    assert settings.service_graphs == ServiceGraphsSettings(
        request=True,
        latency=True,
        connection_info=True,
        wait_ms=90_000,
        max_items=100_000,
        histogram_buckets=(1.0, 2.0),
        dimensions=(),
        peer_attributes=("peer.service",),
        database_name_attributes=("db.name",),
        enable_client_server_prefix=True,  # an override can't switch it off
        enable_virtual_node_label=False,
        enable_messaging_system_latency_histogram=True,
    )
    assert settings.span_metrics == SpanMetricsSettings(
        count=True,
        latency=True,
        size=True,
        histogram_buckets=(0.5, 1.0),
        intrinsic_dimensions=IntrinsicDimensionsSettings(
            service=True, span_name=True, span_kind=False, status_code=False, status_message=True
        ),
        dimensions=("static",),
    )
    assert settings.slack_ns == 1_500_000_000
    assert settings.collection_interval_ms == 5_000
    assert settings.stale_duration_ms == 3_600_000
    assert settings.trace_id_label_name == "trace_id"
    assert settings.external_labels == (("answer", "42"), ("cluster", "eu-1"), ("tenant", "shop"))
    assert (settings.max_label_name_length, settings.max_label_value_length) == (0, 100)


def test_aliases_and_merge_keys_are_resolved() -> None:
    config = load_config(TESTDATA / "anchors.yaml")
    assert [(e.url, e.remote_timeout_s) for e in config.metrics_generator.storage.remote_write] == [
        ("http://one:9090/api/v1/write", 5.0),
        ("http://two:9090/api/v1/write", 5.0),
    ]
    assert config.metrics_generator.processor.service_graphs.dimensions == ("cluster",)


def test_the_example_runs_both_processors_and_has_no_useless_key() -> None:
    config = load_config(EXAMPLE)
    assert config.notes == ()
    settings = tenant_settings(config, "single-tenant")
    assert settings.span_metrics is not None
    assert settings.service_graphs is not None
    assert [endpoint.url for endpoint in config.metrics_generator.storage.remote_write] == [
        "http://prometheus:9090/api/v1/write"
    ]
    assert config.ingest.kafka.address == "kafka:9092"


def test_the_example_of_tenants_goes_with_it_and_does_what_it_says() -> None:
    config = load_config(EXAMPLE)
    config = config.with_runtime(load_overrides_file(EXAMPLE_OF_TENANTS, None, config))
    assert config.notes == ()
    shop, tests, other = (tenant_settings(config, tenant) for tenant in ("shop", "load-tests", "bank"))
    assert shop.span_metrics is not None
    assert shop.span_metrics.dimensions == ("http.route", "http.response.status_code")
    assert shop.span_metrics.intrinsic_dimensions.status_message
    assert shop.span_metrics.intrinsic_dimensions.span_name  # as it is for everyone
    assert (shop.histograms.classic, shop.histograms.native) == (True, True)
    assert shop.slack_ns == 60_000_000_000
    assert (tests.span_metrics, tests.service_graphs, tests.host_info) == (None, None, None)
    assert other.service_graphs is not None
    assert [each.limits.max_active_series for each in (shop, tests, other)] == [50_000, 0, 10_000]
