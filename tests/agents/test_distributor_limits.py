"""Rates and other settings of tenants, by a clock of our own."""

import json

import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from agents.distributor.limits import REREAD_S, Bucket, TenantLimits
from agents.distributor.status import Code, RefusedError, status_json, status_protobuf
from schemas.config import Config, load_config
from schemas.config.ingestion import ingestion_settings
from schemas.config.load import load_overrides_file

DEFAULTS = """
distributor: {max_attribute_bytes: 100, artificial_delay: 2s}
overrides:
  per_tenant_override_config: tenants.yaml
  defaults: {ingestion: {rate_strategy: STRATEGY, rate_limit_bytes: 1000, burst_size_bytes: 1500}}
"""
TENANTS = """
overrides:
  quiet:
    ingestion:
      rate_limit_bytes: 10
      burst_size_bytes: 10
      retry_info_enabled: false
      max_attribute_bytes: 7
      artificial_delay: 1s
"""


def configured(strategy: str = "local", tenants: str = TENANTS) -> Config:
    config = load_config(None, DEFAULTS.replace("STRATEGY", strategy))
    return config.with_runtime(load_overrides_file("tenants.yaml", tenants, config))


class World:
    """A clock, a configuration and a number of distributors, which a test changes."""

    def __init__(self, strategy: str = "local") -> None:
        self.now_s, self.config, self.distributors = 0.0, configured(strategy), 1
        self.limits = TenantLimits(lambda: self.config, lambda: self.distributors, lambda: self.now_s)

    def refusal(self, size: int, tenant: str = "shop") -> RefusedError | None:
        try:
            self.limits.check(tenant, size)
        except RefusedError as error:
            return error
        return None


def test_a_request_is_let_in_if_all_of_it_can_be_taken_now() -> None:
    """DIST-7: a bucket of `burst` bytes, filled at `rate`."""
    world = World()
    assert world.refusal(1500) is None
    assert world.refusal(1) is not None
    world.now_s = 0.5
    assert world.refusal(501) is not None
    assert world.refusal(500) is None
    world.now_s = 100
    assert world.refusal(1501) is not None, "more than the burst is never let in"
    assert world.refusal(1500) is None


def test_tenants_have_buckets_of_their_own() -> None:
    world = World()
    assert world.refusal(1500, "shop") is None
    assert world.refusal(1500, "bank") is None


def test_refusals_say_which_limit_in_tempos_words() -> None:
    """DIST-8, DIST-9."""
    world = World()
    too_large, too_much = world.refusal(2000), (world.refusal(900), world.refusal(900))[1]
    assert too_large is not None
    assert too_much is not None
    assert too_large.message == (
        "RATE_LIMITED: batch size (2000 bytes) exceeds ingestion limit (local: 1000 bytes/s, global: 0 bytes/s, burst: "
        "1500 bytes) while adding 2000 bytes for user shop. consider reducing batch size or increasing rate limit."
    )
    assert too_much.message == (
        "RATE_LIMITED: ingestion rate limit (local: 1000 bytes/s, global: 0 bytes/s, burst: 1500 bytes) exceeded while "
        "adding 900 bytes for user shop. consider increasing the limit or reducing ingestion rate."
    )
    assert (too_much.code, too_much.retry_after_s) == (Code.RESOURCE_EXHAUSTED, 5.0)
    quiet = world.refusal(10_000, "quiet")
    assert quiet is not None
    assert quiet.retry_after_s == 0.0


def test_a_global_rate_is_divided_by_the_distributors_and_its_burst_is_not() -> None:
    """DIST-7."""
    world = World("global")
    world.distributors = 4
    assert world.refusal(1500) is None
    world.now_s = 1.0
    refused = world.refusal(251)
    assert refused is not None
    assert "(local: 250 bytes/s, global: 1000 bytes/s, burst: 1500 bytes)" in refused.message
    assert world.refusal(250) is None


def test_changed_limits_hold_ten_seconds_later_at_the_latest() -> None:
    """DIST-7."""
    world = World()
    assert world.refusal(1500) is None
    world.config = configured(tenants="overrides: {shop: {ingestion: {burst_size_bytes: 9000, rate_limit_bytes: 900}}}")
    world.now_s = REREAD_S
    assert world.refusal(9000) is None


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 200)), max_size=40), st.integers(1, 50), st.integers(1, 150))
def test_no_more_is_let_in_than_burst_and_rate_allow(requests: list[tuple[float, int]], rate: int, burst: int) -> None:
    bucket, now_s, taken = Bucket(burst, 0.0), 0.0, 0
    for wait_s, size in requests:
        now_s += wait_s
        if bucket.take(size, rate, burst, now_s):
            taken += size
            assert size <= burst
        assert taken <= burst + rate * now_s + 1e-6


def test_a_tenants_settings_stand_before_the_static_ones() -> None:
    """DIST-9, DIST-10, DIST-17."""
    config = configured()
    shop, quiet = ingestion_settings(config, "shop"), ingestion_settings(config, "quiet")
    assert (shop.max_attribute_bytes, quiet.max_attribute_bytes) == (100, 7)
    assert (shop.retry_after_s, quiet.retry_after_s) == (5.0, 0.0)
    assert (shop.artificial_delay_s, quiet.artificial_delay_s) == (2.0, 1.0)
    assert (shop.rate_limit_bytes, quiet.rate_limit_bytes) == (1000, 10)


@pytest.mark.parametrize("retry_after_s", [5.0, 0.25])
def test_a_status_says_when_to_come_again(retry_after_s: float) -> None:
    """DIST-9: a RetryInfo among the details."""
    status = Status.FromString(status_protobuf(Code.RESOURCE_EXHAUSTED, "slow down", retry_after_s))
    info = RetryInfo()
    assert (status.code, status.message) == (8, "slow down")
    assert status.details[0].Unpack(info)
    assert info.retry_delay.ToTimedelta().total_seconds() == retry_after_s
    in_json = json.loads(status_json(Code.RESOURCE_EXHAUSTED, "slow down", retry_after_s))
    assert in_json["details"] == [
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{retry_after_s:g}s"}
    ]


def test_a_status_without_a_time_has_no_details() -> None:
    assert not Status.FromString(status_protobuf(Code.INVALID_ARGUMENT, "bad")).details
    assert json.loads(status_json(Code.INVALID_ARGUMENT, "bad")) == {"code": 3, "message": "bad"}


def limited(strategy: str, rate: int, burst: int, distributors: int = 1) -> TenantLimits:
    ingestion = f"rate_strategy: {strategy}, rate_limit_bytes: {rate}, burst_size_bytes: {burst}"
    config = load_config(None, f"overrides: {{defaults: {{ingestion: {{{ingestion}}}}}}}")
    return TenantLimits(lambda: config, lambda: distributors, lambda: 0.0)


def refusal_of(limits: TenantLimits, size: int, user: str = "test-user") -> RefusedError:
    with pytest.raises(RefusedError) as refused:
        limits.check(user, size)
    return refused.value


def test_g221_the_text_of_a_batch_above_all_limits() -> None:
    """DIST-8."""
    refused = refusal_of(limited("local", 500, 500), 1100)
    assert refused.code is Code.RESOURCE_EXHAUSTED
    assert refused.message == (
        "RATE_LIMITED: batch size (1100 bytes) exceeds ingestion limit (local: 500 bytes/s, global: 0 bytes/s, burst: "
        "500 bytes) while adding 1100 bytes for user test-user. consider reducing batch size or increasing rate limit."
    )


@pytest.mark.parametrize(
    ("strategy", "rate", "burst", "distributors", "share"),
    [
        ("local", 5, 2, 1, 5),
        ("global", 5, 2, 2, 2),
        ("global", 10, 8, 5, 2),
        ("global", 100, 50, 4, 25),
        ("global", 1000, 10_000, 10, 100),
        ("global", 200, 0, 2, 100),
    ],
)
def test_g223_shares_of_the_rate_and_whole_bursts(
    strategy: str, rate: int, burst: int, distributors: int, share: int
) -> None:
    """DIST-7: the text has the share in whole bytes."""
    limits = limited(strategy, rate, burst, distributors)
    if burst:
        limits.check("test-user", burst)
    overall = rate if strategy == "global" else 0
    text = f"(local: {share} bytes/s, global: {overall} bytes/s, burst: {burst} bytes)"
    assert text in refusal_of(limits, burst + 1).message


@pytest.mark.parametrize(
    ("cluster", "own", "told"),
    [("0s", True, False), ("0s", False, False), ("10s", False, False), ("10s", True, True)],
)
def test_g227_whether_a_client_is_told_when_to_come_again(cluster: str, own: bool, told: bool) -> None:
    """DIST-9."""
    text = f"""
distributor: {{retry_after_on_resource_exhausted: {cluster}}}
overrides: {{defaults: {{ingestion: {{retry_info_enabled: {str(own).lower()}, burst_size_bytes: 1}}}}}}
"""
    config = load_config(None, text)
    assert (refusal_of(TenantLimits(lambda: config), 2).retry_after_s > 0) is told
