"""Cost attribution (Tempo DIST-19): whose bytes a request's are, and how many are told apart."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, TracesData
from prometheus_client import CollectorRegistry

from agents.distributor.usage import MISSING, OVERFLOW, UsageTracker, attributed, dimensions_of
from schemas.config import ConfigError, load_config
from schemas.config.distributor import CostAttribution
from schemas.config.ingestion import IngestionSettings, ingestion_settings

TEAMS = st.lists(st.sampled_from(["", "red", "blue", "a team with a longer name than any other"]), max_size=8)


def resource_spans(service: str, teams: list[str]) -> ResourceSpans:
    message = ResourceSpans(schema_url="https://schema")
    message.resource.attributes.add(key="service").value.string_value = service
    for i, team in enumerate(teams):
        if i % 3 == 0:
            message.scope_spans.add().scope.name = "library"
        span = message.scope_spans[-1].spans.add(name=f"n{i}" * i)
        if team:
            span.attributes.add(key="team").value.string_value = team
    return message


@given(st.lists(TEAMS, max_size=4))
def test_all_bytes_of_resources_with_spans_are_attributed(requests: list[list[str]]) -> None:
    """DIST-19: the sum is that of the ResourceSpans, exactly."""
    message = TracesData(resource_spans=[resource_spans(f"s{i}", teams) for i, teams in enumerate(requests)])
    sizes = attributed(message.SerializeToString(), dimensions_of((("service", ""), ("team", ""))))
    for i, teams in enumerate(requests):
        own = {values[1]: size for values, size in sizes.items() if values[0] == f"s{i}"}
        assert set(own) == {team or MISSING for team in teams}
        assert sum(own.values()) == (message.resource_spans[i].ByteSize() if teams else 0)


def test_what_spans_share_is_shared_out_equally() -> None:
    """DIST-19: and the first has what remains."""
    message = resource_spans("shop", ["red", "blue", "blue"])
    spans = [3 + len(span.SerializeToString()) - 1 for span in message.scope_spans[0].spans]
    shared = message.ByteSize() - sum(spans)
    each = round(shared / 3)
    body = TracesData(resource_spans=[message]).SerializeToString()
    assert attributed(body, dimensions_of((("team", ""),))) == {
        ("red",): spans[0] + shared - 2 * each,
        ("blue",): spans[1] + spans[2] + 2 * each,
    }


def values(configured: dict[str, str], of_resource: dict[str, str], of_span: dict[str, str]) -> dict[str, str]:
    message = TracesData()
    resource = message.resource_spans.add()
    for key, value in of_resource.items():
        resource.resource.attributes.add(key=key).value.string_value = value
    span = Span(name="n")
    span.attributes.add(key="number").value.int_value = 7
    for key, value in of_span.items():
        span.attributes.add(key=key).value.string_value = value
    resource.scope_spans.add().spans.append(span)
    dimensions = dimensions_of(tuple(configured.items()))
    ((found, _),) = attributed(message.SerializeToString(), dimensions).items()
    return dict(zip(dimensions.labels, found, strict=True))


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        ({"service.name": ""}, {"service_name": "span's"}),
        ({"resource.service.name": ""}, {"service_name": "resource's"}),
        ({"span.service.name": "s"}, {"s": "span's"}),
        ({"only-there": ""}, {"only_there": "resource's"}),
        ({"span.only-there": ""}, {"only_there": MISSING}),
        ({"number": "9lives"}, {"_lives": MISSING}),
        ({"nowhere": "", "empty": ""}, {"nowhere": MISSING, "empty": MISSING}),
        ({"a": "x", "b": "x"}, {"x": "of b"}),
    ],
)
def test_a_dimension_is_an_attribute_of_the_span_or_else_of_the_resource(
    configured: dict[str, str], expected: dict[str, str]
) -> None:
    """DIST-19: only strings that aren't empty are values; a scope may stand before the attribute."""
    of_resource = {"service.name": "resource's", "only-there": "resource's", "a": "of a", "b": "of b"}
    assert values(configured, of_resource, {"service.name": "span's", "empty": ""}) == expected


class World:
    """A tracker with a clock, and one tenant's settings."""

    def __init__(self, most: int = 2, own_most: int = 0) -> None:
        self.now_s, self.registry = 0.0, CollectorRegistry()
        settings = ingestion_settings(load_config(None, ""), "a")
        self.settings: IngestionSettings = replace(
            settings, cost_dimensions=(("team", ""),), cost_max_cardinality=own_most
        )
        config = CostAttribution(enabled=True, max_cardinality=most, stale_duration_s=900.0)
        self.tracker = UsageTracker(config, lambda _: self.settings, lambda: self.now_s)
        self.registry.register(self.tracker)

    async def push(self, *teams: str) -> None:
        body = TracesData(resource_spans=[resource_spans("shop", [team]) for team in teams]).SerializeToString()
        await self.tracker.look("a", body, discarded=False)

    def teams(self) -> set[str]:
        (family,) = self.registry.collect()
        return {sample.labels["team"] for sample in family.samples}


@pytest.mark.parametrize(("own", "told_apart"), [(0, {"t1", "t2"}), (3, {"t1", "t2", "t3"})])
async def test_beyond_the_limit_bytes_are_added_up_in_one_series(own: int, told_apart: set[str]) -> None:
    """DIST-19: the tenant's own limit counts before the static one."""
    world = World(own_most=own)
    await world.push("t1", "t2", "t3", "t4")
    await world.push("t1", "t5")
    assert world.teams() == told_apart | {OVERFLOW}


async def test_a_series_that_has_not_come_for_long_makes_room() -> None:
    """DIST-19: `stale_duration`."""
    world = World()
    await world.push("t1", "t2")
    world.now_s = 899.0
    await world.push("t2")
    world.now_s = 900.0
    assert world.teams() == {"t2"}
    await world.push("t3")
    assert world.teams() == {"t2", "t3"}
    world.now_s = 3000.0
    assert world.teams() == set()


async def test_a_tenant_without_dimensions_has_no_series() -> None:
    """DIST-19."""
    world = World()
    world.settings = replace(world.settings, cost_dimensions=())
    await world.push("t1")
    assert world.teams() == set()


@pytest.mark.parametrize("dimensions", ["{team: tenant}", "{resource.tenant: ''}", "{span.tracker: ''}"])
def test_labels_that_all_series_have_can_not_be_taken(dimensions: str) -> None:
    with pytest.raises(ConfigError, match="which all series have"):
        load_config(None, f"overrides: {{defaults: {{cost_attribution: {{dimensions: {dimensions}}}}}}}")
