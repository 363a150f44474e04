"""The effective configuration of a tenant as YAML: it means the same, and says where each value comes from."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.config import load_config, load_overrides_file, tenant_settings
from schemas.config.durations import UNIT_NS, Unit, parse_duration
from schemas.config.load import load_file
from schemas.config.printed import printed
from schemas.config.sizing import series_of_edge, series_of_label_set, sizes
from schemas.config.yaml_lines import read_yaml
from schemas.config.yaml_text import value_text

STATIC = """\
multitenancy_enabled: yes
ingest: {kafka: {topic: spans, sasl_username: u, sasl_password: hunter2}}
metrics_generator:
  processor:
    service_graphs:
      dimensions: [region]
      enable_client_server_prefix: true
    span_metrics:
      dimensions:
      dimension_mappings:
        - name: env
          source_labels: [stage, "true"]
          join: "#"
        - {name: zone, source_labels: [cloud.zone]}
  registry: {collection_interval: 5s}
  metrics_ingestion_time_range_slack: 20s
  storage:
    remote_write:
      - url: http://one/
        headers: {X-Key: hunter2}
        http_headers: {X-Other: {values: [a], secrets: [hunter2]}}
overrides:
  enable_legacy_overrides: true
  defaults:
    metrics_generator:
      native_histogram_bucket_factor: 1.2
      native_histogram_max_bucket_number: 160
      processor: {span_metrics: {enable_target_info: false}}
"""
TENANTS = """\
overrides:
  shop:
    metrics_generator:
      processors: [span-metrics, service-graphs]
      max_active_series:
      ingestion_time_range_slack: 0s
      native_histogram_bucket_factor: 0
      native_histogram_max_bucket_number: 40
      processor:
        service_graphs:
          dimensions: []
          enable_client_server_prefix: false
        span_metrics:
          intrinsic_dimensions: {span_kind: false}
        host_info: {host_identifies: [host.name]}
  "*":
    metrics_generator_trace_id_label_name: id
"""


def shown(tenant: str, tenants: str = TENANTS, static: str = STATIC) -> str:
    file = load_file(None, static)
    return printed(file, file.config.with_runtime(load_overrides_file(Path("o.yaml"), tenants, file.config)), tenant)


def origins(tenant: str, **arguments: str) -> dict[str, str]:
    """By the line without its indent and comment."""
    lines = shown(tenant, **arguments).splitlines()[1:]
    parts = [line.strip().split("  # ") for line in lines if "  # " in line]
    return {value: origin for value, origin in parts}  # noqa: C416


@pytest.mark.parametrize(
    ("value", "origin"),
    [
        ("multitenancy_enabled: true", "<text>:1"),
        ("http_listen_port: 3200", "default"),
        ("enable_client_server_prefix: true", "<text>:7"),  # the block can't switch it off
        ("- name: env", "<text>:11"),
        ('source_labels: [stage, "true"]', "<text>:12"),
        ('join: "#"', "<text>:13"),
        ("- name: zone", "<text>:14"),
        ("span_kind: false", "o.yaml:14 (tenant)"),
        ("span_name: true", "default"),
        ("enable_target_info: false", "default"),  # the defaults' block isn't merged
        ("host_identifiers: [host.name]", "o.yaml:15 (tenant)"),  # though it is misspelt
        ("processors: [span-metrics, service-graphs]", "o.yaml:4 (tenant)"),
        ("max_active_series: 0", "default"),  # a key without a value
        ("collection_interval: 5s", "<text>:15"),
        ("ingestion_time_range_slack: 20s", "<text>:16"),  # 0 keeps the static one
        ("native_histogram_bucket_factor: 1.2", "<text>:26 (defaults)"),  # falls back
        ("native_histogram_max_bucket_number: 40", "o.yaml:8 (tenant)"),
        ("native_histogram_min_reset_duration: 15m", "default"),
        ("trace_id_label_name: traceID", "default"),
        ("spans: spans", "<text>:2"),
        ("headers: {X-Key: <secret>}", "<text>:20"),
        ("values: [a]", "<text>:21"),
        ("secrets: [<secret>]", "<text>:21"),
        ("sasl_password: <secret>", "<text>:2"),
    ],
)
def test_each_value_says_where_it_comes_from(value: str, origin: str) -> None:
    assert origins("shop")[value] == origin


def test_a_tenant_without_its_own_block_has_the_stars() -> None:
    """OVR-1; OVR-4: what is written in legacy names stands where it is written."""
    other = origins("bank")
    assert other["trace_id_label_name: id"] == 'o.yaml:17 ("*")'
    assert other["dimensions: [region]"] == "<text>:6"
    assert shown("bank").startswith("# Tenant bank; its overrides are those of o.yaml for tenants without their own\n")


def test_without_the_star_it_has_the_defaults() -> None:
    assert origins("bank", tenants="")["enable_target_info: false"] == "<text>:28 (defaults)"
    assert shown("bank", tenants="").startswith("# Tenant bank; its overrides are the defaults\n")


def test_no_secret_is_shown() -> None:
    assert "hunter2" not in shown("shop")


PROCESSORS = st.lists(st.sampled_from(["span-metrics", "service-graphs", "span-metrics-size", "host-info", "x"]))
NUMBERS = st.lists(st.floats(1e-9, 1e9), max_size=3, unique=True).map(sorted)
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=3)


@settings(max_examples=25)  # each reads two whole configurations
@given(PROCESSORS, NUMBERS, TEXTS, st.booleans(), st.integers(0, 10**7))
def test_what_is_printed_means_the_same(
    processors: list[str], buckets: list[float], dimensions: list[str], switch: bool, slack_ms: int
) -> None:
    """In a file of its own every tenant would be as this one is."""
    block = f"""
      processors: {value_text(tuple(processors))}
      ingestion_time_range_slack: {slack_ms}ms
      processor:
        span_metrics:
          histogram_buckets: {value_text(tuple(buckets))}
          dimensions: {value_text(tuple(dimensions))}
          enable_target_info: {value_text(switch)}
          intrinsic_dimensions: {{span_name: {value_text(switch)}}}
        service_graphs: {{enable_client_server_prefix: {value_text(switch)}}}
"""
    static = load_file(None, "metrics_generator: {processor: {span_metrics: {dimensions: [static]}}}")
    file = f"overrides:\n  shop:\n    metrics_generator:{block}"
    config = static.config.with_runtime(load_overrides_file(Path("o.yaml"), file, static.config))
    for tenant in ("shop", "bank"):
        assert tenant_settings(load_config(None, printed(static, config, tenant)), "any") == tenant_settings(
            config, tenant
        )


VALUES = st.recursive(
    st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.text(), VALUES, max_size=3))
def test_any_value_reads_back_as_itself(values: dict[str, object]) -> None:
    assert read_yaml(f"x: {value_text(values)}").values["x"] == values


@given(st.integers(0, 10**12))
def test_durations_read_back_as_themselves(ms: int) -> None:
    assert parse_duration(Unit(UNIT_NS["ms"]).text(ms)) == ms * UNIT_NS["ms"]


# Sizes (LIM-5a).

BOTH = "overrides: {defaults: {metrics_generator: {processors: [span-metrics, service-graphs]}}}"
EDGES = """
metrics_generator:
  processor: {service_graphs: {enable_messaging_system_latency_histogram: true}}
overrides:
  defaults:
    metrics_generator: {processors: [service-graphs, service-graphs-connection-info, span-metrics-count]}
"""


@pytest.mark.parametrize(("text", "label_set", "edge"), [(BOTH, 19, 24), (EDGES, 1, 24 + 11 + 1), ("", 0, 0)])
def test_lim_5a_what_a_label_set_and_an_edge_count_for(text: str, label_set: int, edge: int) -> None:
    own = tenant_settings(load_file(None, text).config, "t")
    assert (series_of_label_set(own), series_of_edge(own)) == (label_set, edge)


def test_info_metrics_are_one_series_each() -> None:
    """LIM-5a."""
    text = """
metrics_generator: {processor: {span_metrics: {enable_target_info: true}}}
overrides: {defaults: {metrics_generator: {processors: [span-metrics-count, host-info], max_active_series: 5}}}
"""
    assert list(sizes(load_file(None, text).config, 2)) == [
        "every tenant: at most 10 series (5 in each of 2 shards); 1 for each label set of span metrics; "
        "1 for each resource with target_info; 1 for each host"
    ]


def test_tenants_of_one_size_share_a_line() -> None:
    config = load_file(None, "").config
    blocks = "".join(f"  t{i}: {{metrics_generator: {{max_active_series: 10}}}}\n" for i in range(7))
    sized = config.with_runtime(load_overrides_file(Path("o.yaml"), f"overrides:\n{blocks}", config))
    assert list(sizes(sized, 2)) == [
        "t0, t1, t2, t3, t4 and 2 more: at most 20 series (10 in each of 2 shards)",
        "every other tenant: any number of series",
    ]
    assert list(sizes(config, 2)) == ["every tenant: any number of series"]
