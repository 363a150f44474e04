"""A tenant's settings: sub-processors, defaults, and the digest that names them."""

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.config import ConfigError, TenantSettings, load_config, tenant_settings
from schemas.config.tenant import PROCESSORS

Parts = tuple[bool, bool, bool] | None


def settings_of(text: str, tenant: str = "t") -> TenantSettings:
    return tenant_settings(load_config(None, text), tenant)


def with_processors(*names: str, more: str = "") -> TenantSettings:
    return settings_of(f"overrides: {{defaults: {{metrics_generator: {{processors: {list(names)}}}}}}}\n{more}")


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        ((), None),
        (("service-graphs",), None),
        (("span-metrics",), (True, True, True)),
        (("span-metrics", "span-metrics-size"), (True, True, True)),
        (("span-metrics-count",), (True, False, False)),
        (("span-metrics-latency", "span-metrics-size"), (False, True, True)),
        (("span-metrics-counts",), None),
    ],
)
def test_inst_5_span_metrics_named_parts_are_on(names: tuple[str, ...], parts: Parts) -> None:
    """INST-5."""
    found = with_processors(*names).span_metrics
    assert (found and (found.count, found.latency, found.size)) == parts


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        ((), None),
        (("span-metrics",), None),
        (("service-graphs",), (True, True, False)),
        (("service-graphs", "service-graphs-connection-info"), (True, True, True)),
        (("service-graphs-connection-info",), (False, False, True)),
        (("service-graphs-request",), (True, False, False)),
        (("service-graphs-latency", "service-graphs-request"), (True, True, False)),
    ],
)
def test_inst_6_service_graphs_named_parts_are_on(names: tuple[str, ...], parts: Parts) -> None:
    """INST-6; G205: connection info alone, the bare name, and both."""
    found = with_processors(*names).service_graphs
    assert (found and (found.request, found.latency, found.connection_info)) == parts


@pytest.mark.parametrize(
    ("names", "running"),
    [
        (["service-graphs"], 1),
        (["service-graph"], 0),
        (["local-blocks", "service-graphs"], 1),
        ([], 0),
        (["span-metrics", "service-graphs-latency", "host-infos"], 2),
        (["host-info", "span-metrics"], 2),
    ],
)
def test_g201_unknown_processors_are_ignored(names: list[str], running: int) -> None:
    """G201, INST-4: they are no error."""
    settings = with_processors(*names)
    assert (
        sum(each is not None for each in (settings.span_metrics, settings.service_graphs, settings.host_info))
        == running
    )


def test_inst_4_the_processors_are_these() -> None:
    """INST-4."""
    assert sorted(PROCESSORS) == [
        "host-info",
        "service-graphs",
        "service-graphs-connection-info",
        "service-graphs-latency",
        "service-graphs-request",
        "span-metrics",
        "span-metrics-count",
        "span-metrics-latency",
        "span-metrics-size",
    ]


def test_g203_without_latency_there_are_no_buckets() -> None:
    """G203, INST-5."""
    settings = with_processors("service-graphs", "span-metrics-count")
    assert settings.span_metrics is not None
    assert settings.span_metrics.count
    assert not settings.span_metrics.latency
    assert not settings.span_metrics.size
    assert settings.span_metrics.histogram_buckets == ()


def test_q2_configured_buckets_hold_for_the_sub_processor_too() -> None:
    """Better than INST-5, which has the default ones here (Q2); ascending, as CFG-3 says."""
    more = "metrics_generator: {processor: {span_metrics: {histogram_buckets: [1, 0.5]}}}"
    settings = with_processors("span-metrics-latency", more=more)
    assert settings.span_metrics is not None
    assert settings.span_metrics.histogram_buckets == (0.5, 1.0)


def test_cfg_2_buckets_double() -> None:
    """CFG-2."""
    settings = with_processors("service-graphs", "span-metrics")
    assert settings.service_graphs is not None
    assert settings.service_graphs.histogram_buckets == (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)
    assert settings.span_metrics is not None
    assert settings.span_metrics.histogram_buckets == (
        *(0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384),
    )


def test_the_tenants_own_label_wins_over_an_external_one() -> None:
    text = "metrics_generator: {registry: {external_labels: {tenant: x, a: b}, inject_tenant_id_as: tenant}}"
    assert settings_of(text, "shop").external_labels == (("a", "b"), ("tenant", "shop"))


def test_settings_are_hashable_and_frozen() -> None:
    settings = with_processors("span-metrics", "service-graphs")
    assert len({settings, with_processors("service-graphs", "span-metrics")}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.slack_ns = 0  # type: ignore[misc]


def plain(value: object) -> bool:
    if dataclasses.is_dataclass(value):
        return all(plain(getattr(value, field.name)) for field in dataclasses.fields(value))
    return all(map(plain, value)) if isinstance(value, tuple) else isinstance(value, int | float | str | None)


def test_settings_hold_plain_values_only() -> None:
    assert plain(with_processors("span-metrics", "service-graphs"))


def test_the_digest_is_the_same_everywhere() -> None:
    """A change of this text is a change of every installation's configuration revision: say so in the changelog."""
    assert with_processors("span-metrics", "service-graphs").digest() == "f227f72a4e979cd2c7464c4ebddd9ee9"


def test_what_does_not_decide_samples_is_not_in_the_digest() -> None:
    plain_settings = with_processors("span-metrics")
    more = """
metrics_generator: {storage: {remote_write: [{url: http://prometheus/, headers: {X-Api-Key: hunter2}}]}}
ingest: {kafka: {address: "other:9092", sasl_username: u, sasl_password: p}}
spanmill: {sink: {hold_back: 1s}}
"""
    assert with_processors("span-metrics", more=more).digest() == plain_settings.digest()


@pytest.mark.parametrize(
    "more",
    [
        "metrics_generator: {metrics_ingestion_time_range_slack: 31s}",
        "metrics_generator: {registry: {collection_interval: 5s}}",
        "metrics_generator: {registry: {external_labels: {a: b}}}",
        "metrics_generator: {processor: {span_metrics: {dimensions: [a]}}}",
        "metrics_generator: {processor: {span_metrics: {intrinsic_dimensions: {service: false}}}}",
        "metrics_generator: {processor: {span_metrics: {histogram_buckets: [0.25]}}}",
    ],
)
def test_what_decides_samples_is_in_the_digest(more: str) -> None:
    assert with_processors("span-metrics", more=more).digest() != with_processors("span-metrics").digest()


def test_a_processor_that_is_off_has_no_part_in_the_digest() -> None:
    more = "metrics_generator: {processor: {service_graphs: {wait: 1s}}}"
    assert with_processors("span-metrics", more=more).digest() == with_processors("span-metrics").digest()


@given(st.lists(st.sampled_from(sorted(PROCESSORS)), max_size=8), st.randoms())
def test_the_order_of_processors_does_not_matter(names: list[str], random) -> None:
    shuffled = names.copy()
    random.shuffle(shuffled)
    assert with_processors(*names).digest() == with_processors(*shuffled).digest()


def test_g31_a_mapping_whose_label_a_dimension_has_is_refused() -> None:
    """G31, SM-13."""
    more = (
        "metrics_generator: {processor: {span_metrics: {dimensions: [foo_bar], "
        "dimension_mappings: [{name: foo_bar, source_labels: [foo.bar]}]}}}"
    )
    expected = 'dimension_mapping "foo_bar" produces label "foo_bar" which collides with dimension "foo_bar"'
    with pytest.raises(ConfigError, match=re.escape(expected)):
        with_processors("span-metrics", more=more)
