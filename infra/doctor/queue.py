"""The broker: reachable, set up so that it loses nothing, and how much waits in it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import redis

from infra.broker import EVENTS, QUEUES, BrokerAwayError, broker_errors, celery_app, depth, open_line
from infra.doctor.database import clock
from infra.doctor.finding import Finding, fail, ok, warn

OLDEST_REDIS = (6, 2)
OLDEST_RABBITMQ = (3, 10)
MANY_MESSAGES = 1000


def examine_broker(broker_url: str) -> list[Finding]:
    """Never raises for a broker that is away: that is a finding."""
    try:
        found = _redis(broker_url) if broker_url.startswith(("redis:", "rediss:")) else _rabbitmq(broker_url)
        return [*found, _depths(broker_url)]
    except BrokerAwayError as error:
        return [
            fail(
                "broker",
                str(error),
                "check HOLDFIRE_BROKER_URL and the server; events wait with their producers",
            )
        ]


def _redis(broker_url: str) -> list[Finding]:
    address = broker_url.rpartition("@")[2].removeprefix("redis://").removeprefix("rediss://")
    with (
        broker_errors(address),
        redis.Redis.from_url(broker_url, socket_timeout=5, socket_connect_timeout=3) as client,
    ):
        asked = datetime.now(UTC)
        seconds, microseconds = client.time()
        apart = abs(datetime.fromtimestamp(seconds + microseconds / 1e6, UTC) - asked)
        info: dict[str, Any] = client.info()
    return [_server(info), *_keeping(info), clock("the broker", apart)]


def _server(info: dict[str, Any]) -> Finding:
    version = str(info.get("valkey_version") or info["redis_version"])
    name = "Valkey" if "valkey_version" in info else "Redis"
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
        return fail("broker", f"{name} {version}", "use Redis 6.2 or newer, or Valkey")
    return ok("broker", f"{name} {version} answers")


def _keeping(info: dict[str, Any]) -> list[Finding]:
    findings = []
    if not info.get("aof_enabled"):
        says = "append-only persistence is off: events between producer and intake end with the server"
        findings.append(warn("broker persistence", says, "set appendonly yes"))
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        says = f"maxmemory-policy is {policy}: a full server drops queues"
        findings.append(warn("broker memory", says, "set maxmemory-policy noeviction"))
    return findings or [ok("broker persistence", "append-only, nothing is evicted")]


def _rabbitmq(broker_url: str) -> list[Finding]:
    app = celery_app(broker_url)
    connection = open_line(app)
    with broker_errors(connection.as_uri()), connection:
        server: dict[str, Any] = connection.connection.server_properties
        findings = [_rabbitmq_version(str(server.get("product")), str(server.get("version")))]
        declared = [one for queue in app.conf.task_queues if (one := _declared(connection, queue))]
    return findings + (declared or [ok("broker persistence", "quorum queues, every message is confirmed")])


def _rabbitmq_version(product: str, version: str) -> Finding:
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < OLDEST_RABBITMQ:
        return fail(
            "broker", f"{product} {version}", "use RabbitMQ 3.10 or newer: its quorum queues let ticks expire"
        )
    return ok("broker", f"{product} {version} answers")


def _declared(connection: Any, queue: Any) -> Finding | None:
    """What is wrong with a queue, if it is there: somebody may have made it before us, and as something else."""
    for passive in (True, False):  # one that is not there must not be made by looking
        with connection.channel() as channel:
            try:
                queue.bind(channel).queue_declare(passive=passive)
            except connection.channel_errors as error:
                if passive:
                    return None
                remedy = f"stop the workers, let it run empty, then `rabbitmqctl delete_queue {queue.name}`: workers make it anew"
                return fail(
                    "broker persistence", f"{queue.name} is not as Holdfire makes it: {error}", remedy
                )
    return None


def _depths(broker_url: str) -> Finding:
    app = celery_app(broker_url)
    depths = {queue: depth(app, queue) for queue in QUEUES}
    says = ", ".join(f"{queue} {count}" for queue, count in depths.items())
    if depths[EVENTS] >= MANY_MESSAGES:
        return warn("queues", f"{says} messages", "start workers, or add some: events wait for intake")
    return ok("queues", f"{says} messages")
