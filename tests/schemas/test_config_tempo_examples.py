"""Configurations as Tempo's documentation shows them, block by block: each loads, and means what it says there."""

from pathlib import Path

import pytest

from schemas.config import (
    Config,
    FilterPolicySettings,
    HistogramSettings,
    HostInfoSettings,
    LimitSettings,
    MultiplierSettings,
    PolicyPartSettings,
    ServiceGraphsSettings,
    SpanMetricsSettings,
    TenantSettings,
    load_all,
    load_config,
    load_overrides_file,
    tenant_settings,
)

EXAMPLES = Path(__file__).parent / "config_testdata" / "tempo_examples"
ALL = sorted(EXAMPLES.glob("*.yaml"))


def settings_of(name: str) -> TenantSettings:
    return tenant_settings(load_config(EXAMPLES / f"{name}.yaml"), "t")


def span_metrics_of(name: str) -> SpanMetricsSettings:
    settings = settings_of(name).span_metrics
    assert settings is not None
    return settings


def service_graphs_of(name: str) -> ServiceGraphsSettings:
    settings = settings_of(name).service_graphs
    assert settings is not None
    return settings


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_each_loads_and_something_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    config = load_all(path)
    settings = tenant_settings(config, "t")
    assert any((settings.span_metrics, settings.service_graphs, settings.host_info))
    assert not any("ignoring" in note for note in config.notes)


def test_service_graphs() -> None:
    own = service_graphs_of("service_graphs")
    assert (own.request, own.latency, own.connection_info) == (True, True, True)
    assert (own.wait_ms, own.max_items) == (20_000, 50_000)
    assert own.histogram_buckets == (0.05, 0.1, 0.5, 1.0, 5.0)
    assert own.dimensions == ("k8s.cluster.name", "deployment.environment")
    assert own.peer_attributes == ("peer.service", "server.address")
    assert own.database_name_attributes == ("db.namespace",)
    assert own.enable_client_server_prefix
    assert own.enable_virtual_node_label
    assert own.enable_messaging_system_latency_histogram


def test_span_metrics() -> None:
    own = span_metrics_of("span_metrics")
    assert (own.count, own.latency, own.size) == (True, True, True)
    assert own.histogram_buckets == (0.01, 0.1, 1.0, 10.0)
    assert (own.intrinsic_dimensions.span_kind, own.intrinsic_dimensions.status_message) == (False, True)
    assert own.dimensions == ("http.request.method", "http.route", "service")
    assert [(each.name, each.source_labels, each.join) for each in own.dimension_mappings] == [
        ("workload", ("k8s.namespace.name", "k8s.deployment.name"), "/"),
        ("region", ("cloud.region",), ""),
    ]
    assert own.enable_target_info
    assert own.target_info_excluded_dimensions == ("process.pid", "telemetry.sdk.version")
    assert not own.enable_instance_label


def test_parts_of_processors() -> None:
    """INST-5, INST-6."""
    own = span_metrics_of("span_metrics_parts")
    assert (own.count, own.latency, own.size) == (True, True, False)
    edges = service_graphs_of("span_metrics_parts")
    assert (edges.request, edges.latency, edges.connection_info) == (False, True, False)


def test_filter_policies() -> None:
    environment = PolicyPartSettings(False, (("resource.deployment.environment", "production"),))
    assert span_metrics_of("filter_policies").filter_policies == (
        FilterPolicySettings(environment, None, None),
        FilterPolicySettings(None, PolicyPartSettings(True, (("kind", "SPAN_KIND_(SERVER|CONSUMER)"),)), None),
        FilterPolicySettings(
            None,
            None,
            PolicyPartSettings(True, (("name", "^GET /(healthz|readyz)$"), ("span.http.user_agent", "kube-probe/.*"))),
        ),
        FilterPolicySettings(
            None,
            None,
            PolicyPartSettings(False, (("status", "STATUS_CODE_UNSET"), ("span.sampled", False), ("span.retries", 0))),
        ),
    )
    assert service_graphs_of("filter_policies").filter_policies == (FilterPolicySettings(environment, None, None),)


def test_sampling() -> None:
    assert span_metrics_of("sampling").multiplier == MultiplierSettings("sampling.ratio", tracestate=False)
    assert service_graphs_of("sampling").multiplier == MultiplierSettings("", tracestate=True)


def test_native_histograms() -> None:
    own = settings_of("native_histograms")
    assert own.histograms == HistogramSettings(
        classic=True, native=True, native_schema=3, native_max_buckets=160, native_min_reset_ms=3_600_000
    )
    assert own.trace_id_label_name == "trace_id"


def test_bounds_on_cardinality() -> None:
    own = settings_of("cardinality")
    assert own.limits == LimitSettings(
        by_entity=True,
        max_active_series=100_000,
        max_active_entities=20_000,
        max_cardinality_per_label=500,
        span_name_sanitization="enabled",
    )
    assert (own.stale_duration_ms, own.max_label_name_length, own.max_label_value_length) == (600_000, 512, 1024)


def test_a_dry_run() -> None:
    own = settings_of("dry_run")
    assert (own.collects, own.limits.span_name_sanitization) == (False, "dry_run")


def test_host_info() -> None:
    own = settings_of("host_info")
    assert own.host_info == HostInfoSettings(("host.id", "k8s.node.name", "host.name"), "traces_hosts")
    assert own.span_metrics is own.service_graphs is None


def test_registry() -> None:
    own = settings_of("registry")
    assert (own.collection_interval_ms, own.slack_ns) == (30_000, 120_000_000_000)
    assert own.external_labels == (("cluster", "eu-west-1"), ("source", "spanmill"), ("tenant", "t"))


def with_tenants_of(name: str) -> Config:
    config = load_config(EXAMPLES / f"{name}.yaml")
    return config.with_runtime(load_overrides_file(EXAMPLES / "overrides_of_tenants", None, config))


def test_overrides_of_tenants() -> None:
    """OVR-1, OVR-2."""
    config = with_tenants_of("overrides")
    own, other = tenant_settings(config, "team-checkout"), tenant_settings(config, "team-search")
    assert own.span_metrics is not None
    assert own.span_metrics.dimensions == ("customer.tier",)
    assert own.span_metrics.histogram_buckets == (0.1, 0.2, 0.5)
    assert own.service_graphs is None
    assert (own.collection_interval_ms, own.slack_ns, own.limits.max_active_series) == (60_000, 60_000_000_000, 60_000)
    assert own.histograms.native_max_buckets == 200  # of the defaults
    assert other.span_metrics is None
    assert other.service_graphs is not None
    assert other.service_graphs.dimensions == ("region",)
    assert other.histograms.native
    assert other.limits.max_active_series == 0
    headers = config.tenant_overrides("team-checkout").metrics_generator.remote_write_headers
    assert headers["X-Scope-OrgID"].get_secret_value() == "checkout"


def test_legacy_names_mean_the_same() -> None:
    """OVR-4."""
    legacy, nested = load_config(EXAMPLES / "overrides_legacy.yaml"), load_config(EXAMPLES / "overrides.yaml")
    assert legacy.overrides.defaults == nested.overrides.defaults
    assert tenant_settings(legacy, "t") == tenant_settings(nested, "t")
