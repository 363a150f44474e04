"""The demo shop has what a service graph can show."""

import random
import time
from concurrent import futures

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.trace import SpanKind

from agents.demo_shop import VISITS, DemoShop, plan, services


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.spans: list[tuple[str, Span]] = []

    def Export(self, request, context):  # noqa: N802
        for resource_spans in request.resource_spans:
            attributes = {a.key: a.value.string_value for a in resource_spans.resource.attributes}
            for scope_spans in resource_spans.scope_spans:
                self.spans += [(attributes["service.name"], span) for span in scope_spans.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


def received_spans(visits: int, now_ns: int) -> list[tuple[str, Span]]:
    receiver = Receiver()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    shop = DemoShop(f"127.0.0.1:{port}")
    sent = sum(shop.visit(now_ns) for _ in range(visits))
    shop.close()
    server.stop(None).wait()
    assert len(receiver.spans) == sent
    return receiver.spans


def test_the_shop_has_at_least_six_services() -> None:
    assert {"frontend", "checkout", "cart", "payment", "shipping", "email"} <= services(*VISITS)


def test_visits_arrive_over_otlp_with_every_kind_of_edge() -> None:
    now_ns = time.time_ns()
    spans = received_spans(200, now_ns)
    by_id = {(span.trace_id, span.span_id): (service, span) for service, span in spans}
    edges = {
        (by_id[span.trace_id, span.parent_span_id][0], service)
        for service, span in spans
        if span.parent_span_id and by_id[span.trace_id, span.parent_span_id][0] != service
    }
    assert {("frontend", "checkout"), ("checkout", "payment"), ("checkout", "shipping"), ("checkout", "email")} <= edges
    roots = {(service, span.kind) for service, span in spans if not span.parent_span_id}
    assert roots == {("frontend", Span.SPAN_KIND_SERVER)}
    keys = {attribute.key for _, span in spans for attribute in span.attributes}
    assert {"db.system", "db.name", "messaging.system", "peer.service"} <= keys
    assert {span.kind for _, span in spans} == {2, 3, 4, 5}
    assert any(span.status.code == Status.STATUS_CODE_ERROR for _, span in spans)
    assert max(span.end_time_unix_nano for _, span in spans) == now_ns
    assert now_ns - min(span.start_time_unix_nano for _, span in spans) < 5 * 10**9


def test_an_error_reaches_the_callers_but_not_across_the_queue() -> None:
    chance = random.Random(1)
    plans = [plan(VISITS[0], chance) for _ in range(300)]
    failed = [each for planned in plans for each in planned if each.failed]
    assert failed
    for planned in plans:
        for each in planned:
            if each.parent is not None and each.failed:
                assert planned[each.parent].failed
            if each.parent is not None and each.step.kind is not SpanKind.CONSUMER:
                assert planned[each.parent].start_ns <= each.start_ns
                assert each.end_ns <= planned[each.parent].end_ns


def test_the_same_seed_plans_the_same_visits() -> None:
    assert plan(VISITS[0], random.Random(5)) == plan(VISITS[0], random.Random(5))
