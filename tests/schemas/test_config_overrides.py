"""Overrides of tenants: the file, its precedence, legacy names, and how they apply to static settings."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.config import (
    Config,
    ConfigError,
    RuntimeOverrides,
    load_all,
    load_config,
    load_overrides_file,
    tenant_settings,
    with_tenants,
)
from schemas.config.effective import with_overrides
from schemas.config.generator import ProcessorConfig
from schemas.config.limits import limits_defaults, limits_overrides
from schemas.config.overrides import ProcessorOverrides, TenantOverrides
from schemas.config.spellings import LEGACY
from tests.schemas.test_config_files import TESTDATA, expected_message

BROKEN = sorted((TESTDATA / "overrides_file").glob("*.bad.yaml"))
NAME = Path("overrides.yaml")

STATIC = """
metrics_generator:
  processor:
    span_metrics: {dimensions: [deployment.environment]}
overrides:
  enable_legacy_overrides: LEGACY
  defaults:
    metrics_generator:
      processors: [span-metrics]
      max_active_series: 100
      generate_native_histograms: classic
      native_histogram_bucket_factor: 1.5
      native_histogram_max_bucket_number: 50
      native_histogram_min_reset_duration: 1h
"""


def configured(overrides: str, static: str = STATIC, *, legacy: bool = False) -> Config:
    config = load_config(None, static.replace("LEGACY", str(legacy).lower()))
    return config.with_runtime(load_overrides_file(NAME, overrides, config))


def message(overrides: str, *, legacy: bool = False) -> str:
    with pytest.raises(ConfigError) as error:
        configured(overrides, legacy=legacy)
    return str(error.value)


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.name.removesuffix(".bad.yaml"))
def test_a_broken_file_of_tenants_is_told_exactly_what_is_wrong(path: Path) -> None:
    """OVR-2, OVR-4, OVR-5, CFG-6, SM-13."""
    with pytest.raises(ConfigError) as error:
        load_overrides_file(path, None, load_config(None, STATIC.replace("LEGACY", "false")))
    assert str(error.value) == expected_message(path)
    assert "hunter2" not in str(error.value)


def test_a_tenants_own_block_wins_over_the_star_which_wins_over_the_defaults() -> None:
    """OVR-1."""
    file = "overrides: {shop: {metrics_generator: {max_active_series: 1}}, '*': {metrics_generator: {processors: []}}}"
    config = configured(file)
    assert config.tenant_overrides("shop").metrics_generator.max_active_series == 1
    assert config.tenant_overrides("bank") == config.runtime.blocks["*"]
    assert configured("overrides: {shop: {}}").tenant_overrides("bank") == config.overrides.defaults


def test_a_block_replaces_the_defaults_as_a_whole_but_for_what_falls_back() -> None:
    """OVR-1: nothing else is merged, not even the list of processors."""
    own = configured("overrides: {shop: {metrics_generator: {max_active_entities: 0}}}").tenant_overrides("shop")
    assert own.metrics_generator.processors == ()
    assert own.metrics_generator.max_active_series == 0
    histograms = own.metrics_generator
    assert (histograms.native_histogram_bucket_factor, histograms.native_histogram_max_bucket_number) == (1.5, 50)
    assert histograms.native_histogram_min_reset_duration_ms == 3_600_000


def test_zeros_fall_back_too_and_other_values_hold() -> None:
    """OVR-1."""
    file = """
overrides:
  zero:
    metrics_generator:
      native_histogram_bucket_factor: 0
      native_histogram_max_bucket_number: 0
      native_histogram_min_reset_duration: 0s
  own:
    metrics_generator:
      native_histogram_bucket_factor: 2
      native_histogram_max_bucket_number: 7
      native_histogram_min_reset_duration: 1m
"""
    config = configured(file)
    assert config.tenant_overrides("zero").metrics_generator == config.tenant_overrides(
        "none"
    ).metrics_generator.replace(processors=(), max_active_series=0, generate_native_histograms="")
    own = config.tenant_overrides("own").metrics_generator
    assert (own.native_histogram_bucket_factor, own.native_histogram_max_bucket_number) == (2.0, 7)
    assert own.native_histogram_min_reset_duration_ms == 60_000


def test_a_tenant_without_a_block_in_the_file_has_none() -> None:
    """`shop:` is Go's nil, so the tenant's are the star's or the defaults."""
    config = configured("overrides: {shop: , '*': {}}")
    assert set(config.runtime.blocks) == {"*"}
    assert configured("overrides:").runtime.blocks == configured("").runtime.blocks == {}


def test_tenants_have_settings_of_their_own() -> None:
    file = """
overrides:
  shop:
    metrics_generator:
      processors: [service-graphs, span-metrics]
      ingestion_time_range_slack: 2m
      processor:
        service_graphs: {dimensions: [region]}
        span_metrics: {dimensions: []}
"""
    config = configured(file)
    shop, bank = tenant_settings(config, "shop"), tenant_settings(config, "bank")
    assert shop.service_graphs is not None
    assert shop.service_graphs.dimensions == ("region",)
    assert shop.span_metrics is not None
    assert shop.span_metrics.dimensions == ()
    assert shop.slack_ns == 120_000_000_000
    assert bank.service_graphs is None
    assert bank.span_metrics is not None
    assert bank.span_metrics.dimensions == ("deployment.environment",)
    assert (bank.slack_ns, bank.limits.max_active_series) == (30_000_000_000, 100)


def test_other_blocks_replace_those_of_before_and_nothing_else() -> None:
    """OVR-2: what a process does when the file has changed. A broken one changes nothing, since it raises."""
    config = configured("overrides: {shop: {}, bank: {}}")
    again = config.with_runtime(load_overrides_file(NAME, "overrides: {shop: {}}", config))
    assert set(again.runtime.blocks) == {"shop"}
    assert again == configured("overrides: {shop: {}}")
    assert again != config
    assert config.with_runtime(RuntimeOverrides()).tenant_overrides("shop") == config.overrides.defaults


def test_notes_are_those_of_the_file_in_force() -> None:
    """INST-4; a tenant's interval is rounded up to whole windows (decisions.md)."""
    file = """
overrides:
  shop:
    compaction: {block_retention: 24h}
    metrics_generator:
      ring_size: 3
      processors: [span-metrics, local-blocks]
"""
    config = configured(file)
    assert [note.removeprefix("overrides.yaml:") for note in config.notes if "yaml" in note] == [
        "4: overrides.shop.compaction: ignored: Spanmill stores no traces",
        "6: overrides.shop.metrics_generator.ring_size: ignored: partitions are assigned by Kafka's consumer groups",
        "7: overrides.shop.metrics_generator.processors: ignoring unknown metrics-generator processor 'local-blocks'",
    ]
    assert config.with_runtime(RuntimeOverrides()).notes == ()


OF_THE_DISTRIBUTOR = """
  X:
    ingestion:
      rate_strategy: global
      rate_limit_bytes: 15000000
      burst_size_bytes: 20000000
      max_attribute_bytes: 4096
      artificial_delay: 1s
      retry_info_enabled: false
    forwarders: [otel]
    cost_attribution: {dimensions: {team: team}}
    metrics_generator: {processors: [span-metrics], max_active_series: 5}
"""
NOTED = """
11: overrides.X.forwarders: ignoring unknown forwarder 'otel'
"""


def test_a_forwarder_that_is_not_there_is_noted_and_the_rest_holds() -> None:
    static = load_config(None, f"\noverrides:{OF_THE_DISTRIBUTOR.replace('X', 'defaults')}")
    assert static.notes == tuple(f"<text>:{line}" for line in NOTED.replace("X", "defaults").strip().splitlines())
    config = configured(f"\noverrides:{OF_THE_DISTRIBUTOR.replace('X', 'shop')}")
    noted = tuple(f"overrides.yaml:{line}" for line in NOTED.replace("X", "shop").strip().splitlines())
    assert config.notes == config.runtime.notes == noted
    for settings in (tenant_settings(static, "shop"), tenant_settings(config, "shop")):
        assert settings.span_metrics is not None
        assert settings.limits.max_active_series == 5


def test_ovr_4_a_forwarder_that_is_not_there_is_noted_under_its_flat_name() -> None:
    file = "overrides:\n  shop:\n    ingestion_rate_limit_bytes: 1000\n    forwarders: [otel]\n"
    assert configured(file, legacy=True).runtime.notes == (
        "overrides.yaml:4: overrides.shop.forwarders: ignoring unknown forwarder 'otel'",
    )


def test_limits_of_the_distributor_that_are_tempos_defaults_are_not_noted() -> None:
    file = "overrides: {shop: {ingestion: {rate_limit_bytes: 30000000, rate_strategy: local}, forwarders: []}}"
    assert configured(file).notes == ()


def test_an_interval_that_is_rounded_up_to_whole_windows_is_noted() -> None:
    """REG-1."""
    file = "overrides: {NAME: {metrics_generator: {collection_interval: LENGTH}}}"
    assert configured(file.replace("NAME", "bank").replace("LENGTH", "30s")).runtime.notes == ()
    config = configured(file.replace("NAME", "shop").replace("LENGTH", "40s"))
    assert config.runtime.notes == (
        "overrides.yaml:1: overrides.shop.metrics_generator.collection_interval: "
        "no multiple of metrics_generator.registry.collection_interval, the log's windows: 45s is taken",
    )


def test_the_hash_is_the_texts() -> None:
    """§15.7: tempo_runtime_config_hash."""
    text = "overrides: {shop: {}}"
    config = load_config(None, "")
    assert load_overrides_file(NAME, text, config).sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert load_overrides_file(NAME, text + " # same", config).sha256 != load_overrides_file(NAME, text, config).sha256


def test_the_file_is_read_where_the_configuration_says(tmp_path: Path) -> None:
    """OVR-2, OVR-3."""
    config, overrides = tmp_path / "config.yaml", tmp_path / "overrides.yaml"
    config.write_text(f"overrides: {{per_tenant_override_config: {overrides}, per_tenant_override_period: 3s}}")
    overrides.write_text("overrides: {shop: {metrics_generator: {processors: [span-metrics]}}}")
    loaded = load_all(config)
    assert loaded.overrides.per_tenant_override_period_s == 3.0
    assert tenant_settings(loaded, "shop").span_metrics is not None
    assert with_tenants(loaded) is loaded  # nothing is parsed unless the text has changed
    overrides.write_text("overrides: {bank: {}}")
    assert set(with_tenants(loaded).runtime.blocks) == {"bank"}
    overrides.unlink()
    with pytest.raises(ConfigError, match=r"can't be read: .*; check overrides.per_tenant_override_config"):
        with_tenants(loaded)


def test_the_file_is_looked_at_every_ten_seconds_by_default() -> None:
    """OVR-2."""
    assert load_config(None, "").overrides.per_tenant_override_period_s == 10.0


# Legacy names (OVR-4).


def test_ovr_4_every_name_of_today_has_its_flat_one() -> None:
    """§12.2."""
    assert LEGACY["metrics_generator_processor_service_graphs_histogram_buckets"] == (
        *("metrics_generator", "processor", "service_graphs", "histogram_buckets"),
    )
    assert LEGACY["metrics_generator_max_active_series"] == ("metrics_generator", "max_active_series")
    assert LEGACY["ingestion_rate_limit_bytes"] == ("ingestion", "rate_limit_bytes")
    flat = {path for path in TenantOverrides.yaml_leaves() if path[0] != "cost_attribution"}
    assert flat <= set(LEGACY.values())


def test_ovr_4_flat_names_mean_the_same_in_both_files() -> None:
    flat = """
overrides:
  enable_legacy_overrides: true
  metrics_generator_processors: [service-graphs]
  metrics_generator_max_active_series: 5
  metrics_generator_processor_service_graphs_dimensions: [region]
  metrics_generator_processor_span_metrics_intrinsic_dimensions: {span_kind: false}
  max_traces_per_user: 10
  block_retention: 24h
"""
    nested = """
overrides:
  enable_legacy_overrides: true
  defaults:
    metrics_generator:
      processors: [service-graphs]
      max_active_series: 5
      processor:
        service_graphs: {dimensions: [region]}
        span_metrics: {intrinsic_dimensions: {span_kind: false}}
"""
    config = load_config(None, flat)
    assert config.with_notes(()) == load_config(None, nested).with_notes(())
    assert config.notes == (
        "<text>:8: overrides.max_traces_per_user: ignored: Spanmill stores no traces",
        "<text>:9: overrides.block_retention: ignored: Spanmill stores no traces",
    )
    tenants = configured(
        "overrides: {shop: {metrics_generator_processors: [service-graphs], metrics_generator_max_active_series: 5}}",
        legacy=True,
    )
    own = tenants.tenant_overrides("shop").metrics_generator
    assert (own.processors, own.max_active_series) == (("service-graphs",), 5)


def test_ovr_4_flat_names_are_refused_without_their_switch() -> None:
    file = "overrides: {shop: {metrics_generator_max_active_series: 5}}"
    assert message(file) == (
        "overrides.yaml:1: overrides.shop.metrics_generator_max_active_series: legacy (flat) overrides are refused; "
        "set overrides.enable_legacy_overrides: true, or write overrides.shop.metrics_generator.max_active_series"
    )
    assert configured(file, legacy=True).tenant_overrides("shop").metrics_generator.max_active_series == 5


def test_errors_name_what_is_written() -> None:
    assert message("overrides:\n  shop:\n    metrics_generator_max_active_series: -1", legacy=True) == (
        "overrides.yaml:3: overrides.shop.metrics_generator_max_active_series: -1 must be at least 0"
    )


def test_tempos_own_misspellings_are_taken_with_a_note() -> None:
    """§12.2: two of its JSON tags."""
    file = """
overrides:
  shop:
    metrics_generator:
      processor:
        span_metrics: {dimension_mapings: [{name: env, source_labels: [a]}]}
        host_info: {host_identifies: [host.name]}
"""
    config = configured(file)
    processor = config.tenant_overrides("shop").metrics_generator.processor
    assert processor.host_info.host_identifiers == ("host.name",)
    assert [mapping.name for mapping in processor.span_metrics.dimension_mappings or ()] == ["env"]
    assert [note.split(": ", 2)[2] for note in config.notes] == [
        "taken for dimension_mappings, as in Tempo's own JSON; write dimension_mappings",
        "taken for host_identifiers, as in Tempo's own JSON; write host_identifiers",
    ]


# How they apply (INST-12).

STATIC_PROCESSORS = {
    "service_graphs": {
        "dimensions": ("zone",),
        "enable_client_server_prefix": True,
        "enable_virtual_node_label": True,
        "span_multiplier_key": "ratio",
    },
    "span_metrics": {
        "dimensions": ("region",),
        "dimension_mappings": ({"name": "env", "source_labels": ("a", "b"), "join": "-"},),
        "filter_policies": (
            {"include": {"match_type": "strict", "attributes": ({"key": "kind", "value": "SPAN_KIND_SERVER"},)}},
        ),
    },
}


def applied(**own: dict[str, object]) -> ProcessorConfig:
    return with_overrides(ProcessorConfig.model_validate(STATIC_PROCESSORS), ProcessorOverrides.model_validate(own))


def test_g207_no_overrides_leave_everything_as_it_was() -> None:
    """G207, INST-12."""
    assert applied() == ProcessorConfig.model_validate(STATIC_PROCESSORS)


def test_g207_empty_lists_replace() -> None:
    """G207, INST-12."""
    own = applied(span_metrics={"filter_policies": (), "dimensions": ()}).span_metrics
    assert (own.filter_policies, own.dimensions) == ((), ())
    assert len(applied().span_metrics.filter_policies) == 1


def test_g207_intrinsic_dimensions_merge_key_by_key() -> None:
    """G207, INST-12."""
    own = applied(span_metrics={"intrinsic_dimensions": {"status_message": True, "service": False}}).span_metrics
    assert own.intrinsic_dimensions.model_dump() == {
        "service": False,
        "span_name": True,
        "span_kind": True,
        "status_code": True,
        "status_message": True,
    }


def test_g207_an_unknown_intrinsic_dimension_is_an_error() -> None:
    """G207, INST-12."""
    with pytest.raises(ValueError, match="invalid is not a valid intrinsic dimension"):
        applied(span_metrics={"intrinsic_dimensions": {"invalid": True}})


def test_g207_mappings_stay_or_are_replaced() -> None:
    """G207, INST-12."""
    assert [mapping.name for mapping in applied().span_metrics.dimension_mappings] == ["env"]
    other = applied(span_metrics={"dimension_mappings": ({"name": "other", "source_labels": ("c",)},)}).span_metrics
    assert [mapping.name for mapping in other.dimension_mappings] == ["other"]


@pytest.mark.parametrize(
    "switch",
    [
        ("span_metrics", "enable_target_info"),
        ("span_metrics", "enable_instance_label"),
        ("span_metrics", "enable_tracestate_span_multiplier"),
        ("service_graphs", "enable_messaging_system_latency_histogram"),
        ("service_graphs", "enable_virtual_node_label"),
        ("service_graphs", "enable_tracestate_span_multiplier"),
    ],
    ids=".".join,
)
def test_switches_have_three_states(switch: tuple[str, str]) -> None:
    """INST-12: absent keeps the static value, true and false replace it."""
    section, key = switch

    def with_static(static: bool, own: dict[str, object]) -> bool:
        config = ProcessorConfig.model_validate({section: {key: static}})
        return getattr(getattr(with_overrides(config, ProcessorOverrides.model_validate({section: own})), section), key)

    for static in (False, True):
        assert with_static(static, {}) is static
        assert with_static(static, {key: True}) is True
        assert with_static(static, {key: False}) is False


def test_what_can_only_be_switched_on_or_set() -> None:
    """INST-12, Q5: a prefix can't be switched off, nor a key or a name cleared."""
    own = applied(service_graphs={"enable_client_server_prefix": False, "span_multiplier_key": ""}).service_graphs
    assert (own.enable_client_server_prefix, own.span_multiplier_key) == (True, "ratio")
    off = ProcessorConfig()
    on = with_overrides(
        off,
        ProcessorOverrides.model_validate(
            {
                "service_graphs": {"enable_client_server_prefix": True, "span_multiplier_key": "x"},
                "host_info": {"metric_name": "hosts", "host_identifiers": ("host.name",)},
            }
        ),
    )
    assert (on.service_graphs.enable_client_server_prefix, on.service_graphs.span_multiplier_key) == (True, "x")
    assert (on.host_info.metric_name, on.host_info.host_identifiers) == ("hosts", ("host.name",))
    assert with_overrides(on, ProcessorOverrides.model_validate({"host_info": {"metric_name": ""}})) == on


def test_a_histogram_mode_and_a_slack_of_their_own() -> None:
    """INST-12: the mode is for all processors; 0 keeps the static slack."""
    static = "metrics_generator: {metrics_ingestion_time_range_slack: 45s}"
    config = load_config(None, static)
    block = TenantOverrides.model_validate(
        {"metrics_generator": {"generate_native_histograms": "both", "slack_ns": 0, "processors": ("span-metrics",)}}
    )
    own = tenant_settings(config.with_runtime(RuntimeOverrides({"shop": block})), "shop")
    assert (own.histograms.classic, own.histograms.native, own.slack_ns) == (True, True, 45_000_000_000)
    other = tenant_settings(config, "bank")
    assert (other.histograms.classic, other.histograms.native) == (True, False)


# Own metrics (§15.7).


def test_limits_are_those_of_the_defaults_and_of_each_block() -> None:
    config = configured(
        "overrides: {shop: {metrics_generator: {max_active_series: 7}}, '*': {metrics_generator: {processors: []}}}"
    )
    assert limits_defaults(config) == {
        "ingestion_burst_size_bytes": 30_000_000,
        "ingestion_rate_limit_bytes": 30_000_000,
        "metrics_generator_dry_run_enabled": 0,
        "metrics_generator_max_active_series": 100,
    }
    assert sorted(limits_overrides(config))[-2:] == [
        ("metrics_generator_max_active_series", "*", 0),
        ("metrics_generator_max_active_series", "shop", 7),
    ]
    block = TenantOverrides.model_validate({"metrics_generator": {"disable_collection": True}})
    dry = config.with_runtime(RuntimeOverrides({"shop": block}))
    assert ("metrics_generator_dry_run_enabled", "shop", 1.0) in list(limits_overrides(dry))


# Any values.

KEYS = st.sampled_from(
    [
        *("overrides", "shop", "*", "metrics_generator", "processor", "processors", "span_metrics", "service_graphs"),
        *("metrics_generator_processors", "forwarders", "dimension_mapings", "host_info", "ingestion", "read", ""),
        *("metrics_generator_processor_span_metrics_dimensions", "max_active_series", "filter_policies", "defaults"),
    ]
)
VALUES = st.recursive(
    st.sampled_from(["null", "1", "-1", "1e9", "x", '"15s"', "true", "[]", "{}", "[span-metrics]"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(KEYS, inner, max_size=4).map(
            lambda items: "{" + ", ".join(f'"{key}": {item}' for key, item in items.items()) + "}"
        )
    ),
    max_leaves=20,
)


def problems(text: str, *, legacy: bool) -> list[str]:
    """The lines of a file's errors, none if it loads; then every tenant has settings."""
    try:
        config = configured(text, legacy=legacy)
    except ConfigError as error:
        return str(error).split("\n")
    for tenant in (*config.runtime.blocks, "other"):
        tenant_settings(config, tenant)
    return []


@given(VALUES, st.booleans())
def test_any_file_gives_overrides_or_errors_with_a_line(text: str, legacy: bool) -> None:
    assert all(line.startswith("overrides.yaml:1: ") for line in problems(text, legacy=legacy))
    assert all(line.startswith("overrides.yaml:1: ") for line in problems(f"overrides: {text}", legacy=legacy))


def static_problems(text: str) -> list[str]:
    """The lines of a configuration's errors."""
    try:
        load_config(None, text)
    except ConfigError as error:
        return str(error).split("\n")
    return []


@given(VALUES)
def test_any_static_overrides_give_a_configuration_or_errors_with_a_line(text: str) -> None:
    assert all(line.startswith("<text>:1: ") for line in static_problems(f"overrides: {text}"))
