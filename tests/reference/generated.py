"""Random logs and settings that meet the rules' corners often: few names, few IDs, values of every type."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from schemas.config import (
    DimensionMappingSettings,
    FilterPolicySettings,
    HistogramSettings,
    HostInfoSettings,
    IntrinsicDimensionsSettings,
    MultiplierSettings,
    PolicyPartSettings,
    TenantSettings,
)
from schemas.control import Tick
from schemas.record import Record
from tests.otlp_oracle import TracesData
from tests.otlp_samples import Order, descending, length_delimited, reencode, shuffled
from tests.streams.log import INTERVAL_MS, T0_MS, settings

TENANTS = ("one", "two")
SERVICES = (b"a", b"b", b"c-\xc3\xbc", b"", b"\xff")
NAMES = (b"GET /", b"send", b"", b"bad \xfe", b"a name that is longer than others")
KEYS = (
    "db.system",
    "db.namespace",
    "peer.service",
    "server.address",
    "network.peer.address",
    "network.peer.port",
    "http.route",
    "http_route",
    "env",
    "service",
    "job",
    "virtual_node",
    "client",
    "k8s.node.name",
    "host.id",
    "service.namespace",
    "service.instance.id",
    "sampling.rate",
    "5bad",
    "",
)
DOUBLES = (0.0, -0.0, 0.5, 4.0, 3.0, -2.0, 1e21, 1e-9, 5e-324, 1.5e300, float("nan"), float("inf"), float("-inf"), 0.1)
TRACESTATES = (
    b"",
    b"ot=th:0",
    b"ot=th:8",
    b"ot=th:c",
    b"ot=th:4",
    b"ot=th:fd70a4",
    b"ot=rv:00112233445566;th:4",
    b"ot=rv:ffffffffffffff;th:4",
    b"not=th:8, ot=th:C",
    b"a=b,ot=p:1;th:fffffffffffffe",
    b"ot=th:ffffffffffffff",
    b"ot=th:",
    b"ot=th:8;",
    b"ot=th:xyz",
    b"ot=rv:12;th:8",
    b"ot=TH:8",
    b"ot=th:123456789012345",
)
LATENCIES_NS = (0, -5, 1, 40_000_000, 40_000_001, 100_000_000, 500_000_000, 2_000_000_000, 1 << 54)
PATTERNS = ("", "a", "^a$", "SERVER|CLIENT", "SPAN_KIND_.*", "/", r"\d", "b+", "(?:x|4)")
BUCKETS = ((0.04,), (0.1, 0.5, 2.0), (), (2.0, 0.04, 0.5))


def random_settings(rng: random.Random) -> TenantSettings:
    """A tenant's settings."""

    def one_in(n: int) -> bool:
        return rng.randrange(n) == 0

    made = settings(
        span_metrics={
            "count": not one_in(6),
            "latency": not one_in(6),
            "size": not one_in(6),
            "histogram_buckets": rng.choice(BUCKETS),
            "intrinsic_dimensions": IntrinsicDimensionsSettings(*(rng.random() < 0.8 for _ in range(5))),
            "dimensions": some(rng, KEYS),
            "dimension_mappings": tuple(
                DimensionMappingSettings(rng.choice(["first", "status_code", "env"]), some(rng, KEYS, 1), join)
                for join in some(rng, ("/", "", "->"))
            ),
            "enable_target_info": rng.random() < 0.5,
            "target_info_excluded_dimensions": some(rng, KEYS),
            "enable_instance_label": rng.random() < 0.7,
            "multiplier": random_multiplier(rng),
            "filter_policies": random_policies(rng),
        },
        service_graphs={
            "request": not one_in(6),
            "latency": not one_in(6),
            "connection_info": rng.random() < 0.5,
            "wait_ms": rng.choice([0, 1_000, 10_000, 20_000]),
            "max_items": rng.choice([0, 1, 2, 3, 10_000]),
            "histogram_buckets": rng.choice(BUCKETS),
            "dimensions": some(rng, KEYS),
            "peer_attributes": some(rng, KEYS, 1),
            "database_name_attributes": some(rng, KEYS[:3]),
            "enable_client_server_prefix": rng.random() < 0.4,
            "enable_virtual_node_label": rng.random() < 0.4,
            "enable_messaging_system_latency_histogram": rng.random() < 0.6,
            "multiplier": random_multiplier(rng),
            "filter_policies": random_policies(rng),
        },
        host_info=HostInfoSettings(("k8s.node.name", "host.id"), "traces_host_info") if one_in(2) else None,
        histograms=rng.choice(
            [
                HistogramSettings(),
                HistogramSettings(classic=False, native=True, native_schema=rng.randint(-4, 8)),
                HistogramSettings(classic=True, native=True, native_schema=rng.randint(-4, 8)),
            ]
        ),
        max_label_name_length=rng.choice([1024, 1024, 0, 5]),
        max_label_value_length=rng.choice([2048, 2048, 0, 6]),
        slack_ns=rng.choice([30_000_000_000, 1_000_000_000]),
    )
    if one_in(6):
        made = replace(made, span_metrics=None)
    return replace(made, service_graphs=None) if one_in(6) else made


def some(rng: random.Random, of: Sequence[str], at_least: int = 0) -> tuple[str, ...]:
    """Up to three of them."""
    return tuple(rng.sample(list(of), rng.randint(at_least, min(3, len(of)))))


def random_multiplier(rng: random.Random) -> MultiplierSettings:
    """Off, by an attribute, by the trace state, by both."""
    return MultiplierSettings(rng.choice(["", "sampling.rate"]), rng.random() < 0.5)


def random_policies(rng: random.Random) -> tuple[FilterPolicySettings, ...]:
    """Often none, else one or two."""
    if rng.random() < 0.5:
        return ()
    policies = [
        FilterPolicySettings(*(random_part(rng) if rng.random() < 0.5 else None for _ in range(3)))
        for _ in range(rng.randint(1, 2))
    ]
    return tuple(each for each in policies if each.include or each.include_any or each.exclude)


def random_part(rng: random.Random) -> PolicyPartSettings:
    """Strict values of every type, or patterns."""
    regex = rng.random() < 0.4
    return PolicyPartSettings(regex, tuple(random_match(rng, regex) for _ in range(rng.randint(0, 2))))


def random_match(rng: random.Random, regex: bool) -> tuple[str, Any]:
    """An attribute's key and what it must be."""
    key = rng.choice(["kind", "status", "name", "span:kind", *("span." + key for key in KEYS if key)])
    if rng.random() < 0.4:
        key = "resource." + rng.choice(["service.name", *filter(None, KEYS)])
    if regex:
        return key, rng.choice(PATTERNS)
    if key.endswith("kind"):
        return key, rng.choice(["SPAN_KIND_SERVER", "SPAN_KIND_CLIENT", "SPAN_KIND_INTERNAL"])
    if key == "status":
        return key, rng.choice(["STATUS_CODE_UNSET", "STATUS_CODE_ERROR"])
    if key == "name":
        return key, rng.choice(["GET /", ""])
    return key, rng.choice(["a", "", "4", 4, 0, True, False, 4.0, 0.0])


def random_log(rng: random.Random) -> list[Record]:
    """Records of one partition."""
    at_ms, log = T0_MS, list[Record]()
    for offset in range(rng.randint(1, 8)):
        at_ms += rng.choice([-2_000, 0, 1, 3_000, 9_000, INTERVAL_MS, 5 * INTERVAL_MS])
        if rng.random() < 0.1:
            log.append(Record(offset, at_ms, b"", control=Tick(T0_MS)))
            continue
        value = encoded(rng, random_message(rng, at_ms))
        log.append(Record(offset, at_ms, value, rng.choice(TENANTS), rng.random() < 0.05))
    return log


def ascending(fields: list[list[bytes]]) -> list[bytes]:
    """As most writers do."""
    return [piece for pieces in fields for piece in pieces]


def encoded(rng: random.Random, message: Any) -> bytes:
    """A message's bytes in one of the orders that writers have, its resources now and then in two pieces."""
    order: Order = rng.choice([ascending, descending, shuffled(rng)])
    pieces = []
    for resource_spans in message.resource_spans:
        rest = b""
        if len(resource_spans.resource.attributes) > 1 and rng.random() < 0.3:
            last = resource_spans.resource.attributes.pop()
            rest = length_delimited(1, length_delimited(1, reencode(last, order)))
        pieces.append(length_delimited(1, reencode(resource_spans, order) + rest))
    return b"".join(pieces)


def random_message(rng: random.Random, at_ms: int) -> Any:
    """A TracesData."""
    message = TracesData()
    for _ in range(rng.randint(0, 3)):
        resource_spans = message.resource_spans.add()
        if rng.random() < 0.9:
            add_attribute(rng, resource_spans.resource, "service.name", rng.choice(SERVICES))
        add_attributes(rng, resource_spans.resource)
        for _ in range(rng.randint(0, 2)):
            scope = resource_spans.scope_spans.add()
            for _ in range(rng.randint(0, 4)):
                add_span(rng, scope.spans.add(), at_ms)
    return message


def add_span(rng: random.Random, span: Any, at_ms: int) -> None:
    """Fill a span."""
    end_ns = at_ms * 1_000_000 + rng.choice([0, 0, 0, 7, -20_000_000, -1_000_000_000, 1_000_000_001, -40_000_000_000])
    span.trace_id = rng.choice([b"\1" * 16, bytes(15) + b"\2", b"\3", b"", b"\4" * 40])
    span.span_id = rng.choice([b"\1" * 8, b"\2" * 8, b"\3", b""])
    span.parent_span_id = rng.choice([b"\1" * 8, b"\2" * 8, b"\3", b""])
    span.kind = rng.choice([0, 1, 2, 2, 3, 3, 4, 5, 6, -1])
    span.status.code = rng.choice([0, 0, 1, 2, 3])
    span.status.message = rng.choice(NAMES)
    span.name = rng.choice(NAMES)
    span.trace_state = rng.choice(TRACESTATES)
    span.end_time_unix_nano = rng.choice([end_ns] * 9 + [0])
    span.start_time_unix_nano = max(span.end_time_unix_nano - rng.choice(LATENCIES_NS), 0)
    span.flags = rng.choice([0, 257])
    add_attributes(rng, span)


def add_attributes(rng: random.Random, owner: Any) -> None:
    """Some attributes; a key may come twice."""
    for _ in range(rng.randint(0, 4)):
        add_attribute(rng, owner, rng.choice(KEYS), None)


def add_attribute(rng: random.Random, owner: Any, key: str, text: bytes | None) -> None:
    """One attribute, of that text or of any type."""
    pair = owner.attributes.add()
    pair.key = key.encode()
    if text is not None and rng.random() < 0.95:
        pair.value.string_value = text
    else:
        fill_value(rng, pair.value, 0)


def fill_value(rng: random.Random, value: Any, depth: int) -> None:
    """An AnyValue of any type."""
    case = rng.randrange(8 if depth < 2 else 5)
    if case in {0, 1}:
        value.string_value = rng.choice([b"a", b"b", b"", b"4", b"\xff\xfe", b"x" * 20])
    elif case == 2:
        value.int_value = rng.choice([0, 4, -7, (1 << 63) - 1])
    elif case == 3:
        value.double_value = rng.choice(DOUBLES)
    elif case == 4:
        value.bool_value = rng.random() < 0.5
    elif case == 5:
        value.array_value.SetInParent()
        for _ in range(rng.randint(0, 2)):
            fill_value(rng, value.array_value.values.add(), depth + 1)
    elif case == 6:
        value.kvlist_value.SetInParent()
        for _ in range(rng.randint(0, 2)):
            pair = value.kvlist_value.values.add()
            pair.key = rng.choice([b"k", b""])
            fill_value(rng, pair.value, depth + 1)
    elif rng.random() < 0.5:
        value.bytes_value = b"raw"
