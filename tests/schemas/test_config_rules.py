"""Rules: what of a configuration decides values, as a text for the log."""

import json
import random
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.config import (
    Config,
    RuntimeOverrides,
    TenantOverrides,
    load_config,
    load_overrides_file,
    tenant_settings,
)
from schemas.config.overrides import GeneratorOverrides
from schemas.config.rules import MAX_PACKED_BYTES, Rules, RulesTooLargeError
from schemas.errors import Malformed
from schemas.rules_in_force import Decided, RulesInForce, decode_rules, encode_rules

FILE = """
metrics_generator:
  processor:
    span_metrics:
      dimensions: [region]
      filter_policies:
        - include:
            match_type: strict
            attributes: [{key: span.n, value: 1}, {key: span.f, value: 1.0}, {key: span.b, value: true}]
  registry: {external_labels: {cluster: a, az: b}, stale_duration: 5m}
  storage: {remote_write: [{url: "http://host/write", headers: {X-Token: hush}}]}
overrides:
  defaults: {metrics_generator: {processors: [span-metrics, service-graphs]}}
"""
TENANTS = """
overrides:
  one: {metrics_generator: {processors: [span-metrics], processor: {span_metrics: {histogram_buckets: [1, 2.5]}}}}
  "*": {metrics_generator: {max_active_series: 7}}
"""


def config(file: str = FILE, tenants: str | None = None) -> Config:
    own = load_config(None, file)
    return own if tenants is None else own.with_runtime(load_overrides_file(Path("tenants.yaml"), tenants, own))


def test_rules_are_all_that_decides_a_tenants_settings() -> None:
    own = config(tenants=TENANTS)
    rules = Rules.of(own)
    for read in (rules, Rules.parse(rules.text), Rules.unpack(rules.packed)):
        for tenant in ("one", "two"):
            assert read.settings_of(tenant) == tenant_settings(own, tenant)
        assert (read.text, read.digest, read.interval_ms) == (rules.text, rules.digest, 15_000)


def test_endpoints_and_secrets_are_no_part_of_them() -> None:
    rules = Rules.of(config(tenants=TENANTS))
    for absent in ("hush", "http:", "remote_write", "rate_limit", "X-Token"):
        assert absent not in rules.text


@pytest.mark.parametrize(
    ("file", "tenants"),
    [
        (FILE.replace("{cluster: a, az: b}", "{az: b, cluster: a}"), TENANTS),
        (FILE.replace("http://host", "http://other") + "spanmill: {revision: 7}", TENANTS),
        (FILE, "overrides:\n" + "\n".join(reversed(TENANTS.splitlines()[2:]))),
    ],
    ids=["order of labels", "other endpoint", "order of tenants"],
)
def test_equal_content_has_one_text(file: str, tenants: str) -> None:
    assert Rules.of(config(file, tenants)) == Rules.of(config(tenants=TENANTS))


@pytest.mark.parametrize(
    ("file", "tenants"),
    [
        (FILE.replace("region", "zone"), TENANTS),
        (FILE.replace("span.n, value: 1}", "span.n, value: 1.0}"), TENANTS),
        (FILE.replace("5m", "6m"), TENANTS),
        (FILE, TENANTS.replace("2.5", "2.6")),
        (FILE, TENANTS.replace("one:", "uno:")),
    ],
    ids=["dimension", "type of a filter's value", "stale duration", "bucket", "tenant"],
)
def test_other_content_has_another(file: str, tenants: str) -> None:
    assert Rules.of(config(file, tenants)) != Rules.of(config(tenants=TENANTS))


def test_a_bound_of_state_is_part_of_them() -> None:
    small = Rules.of(config(), max_half_edge_bytes=1000)
    assert small != Rules.of(config())
    assert Rules.parse(small.text).max_half_edge_bytes == 1000


def test_whether_anything_is_measured_is_known() -> None:
    assert not Rules.of(Config()).measures
    assert Rules.of(config()).measures
    assert Rules.of(config("", TENANTS)).measures


def with_tenants(block: dict[str, object], count: int) -> Config:
    """A configuration with so many tenants of one block each."""
    own = TenantOverrides(metrics_generator=GeneratorOverrides.model_validate(block))
    return Config().with_runtime(RuntimeOverrides({f"tenant-{i}": own for i in range(count)}))


def test_what_does_not_fit_into_a_record_says_what_to_do() -> None:
    digits = random.Random(1).randbytes(1_000_000).hex()
    block = {
        "processor": {"span_metrics": {"dimensions": tuple(digits[i : i + 16] for i in range(0, len(digits), 16))}}
    }
    with pytest.raises(RulesTooLargeError, match=r"600000 fit into a record of the log; shorten the 2 blocks"):
        Rules.of(with_tenants(block, 2))


def test_ten_thousand_tenants_fit() -> None:
    tenants = with_tenants({"processors": ("span-metrics",), "max_active_series": 5}, 10_000)
    assert len(Rules.of(tenants).packed) < MAX_PACKED_BYTES / 5


def test_a_newer_programs_key_is_malformed_by_its_name() -> None:
    content = json.loads(Rules.of(config()).text)
    content["metrics_generator"]["processor"]["profiles"] = {}
    with pytest.raises(Malformed, match=r"metrics_generator\.processor\.profiles: Extra inputs"):
        Rules.parse(json.dumps(content))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"metrics_generator": 1}', "[" * 100_000])
def test_other_texts_are_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        Rules.parse(text)


PACKED = Rules.of(Config()).packed


@given(st.data())
def test_damaged_rules_are_rules_or_malformed(data: st.DataObject) -> None:
    value = bytearray(PACKED)
    for at in data.draw(st.lists(st.integers(0, len(value) - 1), min_size=1, max_size=20)):
        value[at] = data.draw(st.integers(0, 255))
    with suppress(Malformed):
        Rules.unpack(bytes(value[: data.draw(st.integers(0, len(value)))]))


def test_rules_in_force_come_back_as_they_were() -> None:
    one, two = Rules.of(Config()), Rules.of(config())
    state = RulesInForce(
        Decided(3, 15_000, one), (Decided(4, 30_000, two, "0.1", 12), Decided(5, 45_000, one)), ((3, one.digest),)
    )
    for each in (state, RulesInForce.initial(two)):
        assert decode_rules(encode_rules(each)) == each
    for broken in (b"", b"\xff", encode_rules(state)[:-3]):
        with pytest.raises(Malformed):
            decode_rules(broken)
