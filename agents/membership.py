"""Leaving a consumer group for good.

A process with an instance id (`SPANMILL_INSTANCE_ID`) is a static member: it stays in its groups when it stops, so that
it gets its partitions back without moving anyone else's when it returns, and if it doesn't return within the session
time-out (10 s), the others get them. That is right for a restart, and a wait for nothing when the process is gone for
good: then the member is removed by its name. A StatefulSet's pod finds out by itself whether it is gone
(agents/kubernetes.py); elsewhere `spanmill leave` says so.
"""

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import structlog
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Int16, Int32, Schema, String
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from agents import kafka
from agents.kubernetes import KubernetesError, StatefulSet
from agents.topics import TopicNames
from schemas.config import Config

log = structlog.get_logger(__name__)

TIMEOUT_S = 10.0
NO_ERROR, UNKNOWN_MEMBER = 0, 25


class NotAMemberError(Exception):
    """The process that a command names isn't in the group."""


class LeaveGroupResponse(Response):  # type: ignore[misc]  # aiokafka ships no types
    """What became of each member (KIP-345)."""

    API_KEY = 13
    API_VERSION = 3
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        (
            "members",
            Array(("member_id", String("utf-8")), ("group_instance_id", String("utf-8")), ("error_code", Int16)),
        ),
    )


class LeaveGroupRequestV3(RequestStruct):  # type: ignore[misc]
    """The oldest version that names members by their instance ids, of Kafka 2.4; aiokafka has only those before."""

    API_KEY = 13
    API_VERSION = 3
    RESPONSE_TYPE = LeaveGroupResponse
    SCHEMA = Schema(
        ("group", String("utf-8")),
        ("members", Array(("member_id", String("utf-8")), ("group_instance_id", String("utf-8")))),
    )


class LeaveGroupRequest(Request[LeaveGroupRequestV3]):  # type: ignore[misc]
    """Removes a static member, whatever member id it has at the moment."""

    API_KEY = 13

    def __init__(self, group: str, instance: str) -> None:
        self.group, self.instance = group, instance

    def build(self, request_struct_class: type[LeaveGroupRequestV3]) -> LeaveGroupRequestV3:
        """The request on the wire."""
        return request_struct_class(self.group, [("", self.instance)])


async def remove_member(config: Config, group: str, instance: str) -> bool:
    """Remove a static member from a group; False if the group has no such member. Raises KafkaError or TimeoutError."""
    settings = kafka.faust_settings(config, {})
    client = AIOKafkaClient(
        bootstrap_servers=config.ingest.kafka.address,
        client_id=config.ingest.kafka.client_id,
        request_timeout_ms=round(TIMEOUT_S * 1000),
        **credentials_to_aiokafka_auth(settings.get("broker_credentials")),
    )
    async with asyncio.timeout(TIMEOUT_S):
        try:
            await client.bootstrap()
            return await _remove(client, LeaveGroupRequest(group, instance))
        finally:
            await client.close()


async def leave_if_gone(config: Config, group: str, environ: Mapping[str, str] = os.environ) -> None:
    """Called when a member has stopped as it was asked to: leaves its group if it won't come back.

    When in doubt it stays, which costs the others the session time-out.
    """
    instance, pod = environ.get(kafka.INSTANCE_ID_VARIABLE), StatefulSet.of_this_pod(environ)
    if not instance or pod is None:
        return
    try:
        if await pod.wants():
            log.info("stays in its group: it will be back", group=group, instance=instance)
            return
        await remove_member(config, group, instance)
    except (KubernetesError, KafkaError, TimeoutError) as error:
        log.warning("stays in its group", group=group, instance=instance, error=str(error) or repr(error))
    else:
        log.info("has left its group: it has been scaled away", group=group, instance=instance)


def leave(config: Config, stage: str, instance: str) -> str:
    """Remove a process that has been stopped for good from the group of its stage; gives a line that says so.

    Raises `NotAMemberError`, KafkaError or TimeoutError.
    """
    names = TopicNames.of(config)
    group = {"generator": names.generator_app, "sink": names.sink_app, "ingester": names.ingester_group}[stage]
    if not asyncio.run(remove_member(config, group, instance)):
        raise NotAMemberError(f"the group {group} has no member {instance}")
    return f"{instance} has left the group {group}"


async def _remove(client: Any, request: LeaveGroupRequest) -> bool:
    while True:
        try:
            node = await client.coordinator_lookup(CoordinationType.GROUP, request.group)
            answer = await client.send(node, request, group=ConnectionGroup.COORDINATION)
        except KafkaError as error:
            if not error.retriable:
                raise
            code = None
        else:
            code = answer.error_code or answer.members[0][2]
        if code in {NO_ERROR, UNKNOWN_MEMBER}:
            return bool(code == NO_ERROR)
        if code is not None and not (refused := for_code(code)).retriable:
            raise refused
        await asyncio.sleep(0.2)  # the coordinator is on its way to another broker
