"""The queue's contract in one place: names, Celery's settings, and what it means when the broker is away.

The queue carries events in, and after that only hints. Whatever runs a Celery app of Holdfire's takes it from
``celery_app``, so that producers and workers cannot disagree about serialisation, acknowledgement or timeouts.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import amqp.exceptions
import kombu.exceptions
import orjson
import redis.exceptions
from celery import Celery
from kombu import serialization
from kombu.entity import Exchange, Queue

EVENTS: Final = "holdfire.events"
"""Queue: messages of 1 to 500 events, on their way to intake."""
FIRE: Final = "holdfire.fire"
"""Queue: hints that leases wait to be fired."""
CLOCK: Final = "holdfire.clock"
"""Queue: ticks. Idempotent hints, so any number of beats may send them."""
QUEUES: Final = (EVENTS, FIRE, CLOCK)

INTAKE_TASK: Final = "holdfire.intake"
FIRE_TASK: Final = "holdfire.fire"
RELEASE_TASK: Final = "holdfire.release"
RESCUE_TASK: Final = "holdfire.rescue"
PRUNE_TASK: Final = "holdfire.prune"
TALLY_TASK: Final = "holdfire.tally"
TASK_QUEUES: Final = {
    INTAKE_TASK: EVENTS,
    FIRE_TASK: FIRE,
    RELEASE_TASK: CLOCK,
    RESCUE_TASK: CLOCK,
    PRUNE_TASK: CLOCK,
    TALLY_TASK: CLOCK,
}

VISIBILITY_TIMEOUT_S: Final = 300
"""How long Redis waits for an acknowledgement before another worker gets the message: recovery after a killed
worker takes this long, and a task that runs longer than this runs twice."""
CONNECT_TIMEOUT_S: Final = 3.0
ANSWER_TIMEOUT_S: Final = 10.0
"""How long one exchange with the broker may take. kombu's own default is none at all, so that a publish over a
connection that a firewall forgot hangs for ever. It must stay above the one second that BRPOP blocks."""

DELIVERY_LIMIT: Final = 2**31 - 1
"""How often a quorum queue gives a message again before it drops it. RabbitMQ 4 says 20 by default, which a database
that is away for 20 s exhausts. Its word for no limit, -1, is refused before version 4."""

_QUORUM: Final = {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}
_AMQP_SCHEMES: Final = frozenset({"amqp", "amqps", "pyamqp"})


class BrokerAwayError(ConnectionError):
    """The broker cannot be reached, or does not take messages now. Says where it was looked for, never how."""


_AWAY: Final = (
    kombu.exceptions.KombuError,
    redis.exceptions.RedisError,
    amqp.exceptions.AMQPError,
    amqp.exceptions.MessageNacked,
    OSError,
    # py-amqp reads an attribute of a connection that is already gone when the line drops inside a call.
    AttributeError,
)


@contextmanager
def broker_errors(address: str) -> Iterator[None]:
    """Raise whatever kombu, redis or amqp raise inside as BrokerAwayError. ``address`` is without a password."""
    try:
        yield
    except BrokerAwayError:
        raise
    except _AWAY as error:
        said = str(error) or type(error).__name__
        raise BrokerAwayError(f"the broker at {address} does not take messages: {said}") from error


def celery_app(broker_url: str) -> Celery:
    """A Celery app that speaks Holdfire's contract. It connects to nothing until it is used.

    ``broker_url`` is as :func:`infra.settings.normalise_broker_url` returns it. The app is not made the
    process's current one: a producer may live inside a program that has a Celery app of its own.
    """
    quorum = _is_amqp(broker_url)
    app = Celery("holdfire", broker=broker_url, set_as_current=False)
    app.conf.update(
        # JSON and nothing else: unpickling what a queue holds would be running it.
        task_serializer="json",
        accept_content=["json"],
        task_protocol=2,
        # No results: PostgreSQL says what became of a message, and a result would be one more write each.
        result_backend=None,
        task_ignore_result=True,
        # Late alone still acknowledges when the child is killed; both together give the message back.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        task_queues=_queues(quorum=quorum),
        task_routes={task: {"queue": queue} for task, queue in TASK_QUEUES.items()},
        task_default_queue=EVENTS,
        task_default_exchange="",
        task_default_queue_type="quorum" if quorum else "classic",
        task_create_missing_queues=True,
        task_create_missing_queue_type="quorum" if quorum else "classic",
        worker_detect_quorum_queues=True,
        # Ticks and hints: once more, over a new connection. RabbitMQ hangs up on one that was idle for minutes, and a
        # connection that is gone stays gone for whoever only publishes. The SDK retries by its own rules.
        task_publish_retry=True,
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0},
        broker_connection_timeout=CONNECT_TIMEOUT_S,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # Also when RabbitMQ closed only the channel, as it does when a database hung for longer than its
        # consumer_timeout: the worker goes on, over a new connection.
        broker_channel_error_retry=True,
        broker_transport_options=_transport_options(amqp_broker=quorum),
        enable_utc=True,
        timezone="UTC",
        # Nobody asks for it, and on RabbitMQ it costs each worker a queue of a kind that is on its way out.
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        task_send_sent_event=False,
        worker_hijack_root_logger=False,
    )
    return app


def open_line(app: Celery) -> Any:
    """A kombu Connection for publishing, made at once. Raises BrokerAwayError instead of retrying for ever.

    Without a heartbeat: nobody would send it between two publishes, and RabbitMQ would hang up.
    """
    options = {"read_timeout": ANSWER_TIMEOUT_S} if _is_amqp(app.conf.broker_url) else {}
    connection = app.connection_for_write(heartbeat=0, transport_options=options)
    with broker_errors(connection.as_uri()):
        try:
            # One try. kombu's default_channel retries without end, whatever deadline the caller has.
            connection.ensure_connection(max_retries=1, interval_start=0, reraise_as_library_errors=False)
        except BaseException:
            connection.release()
            raise
    return connection


def depth(app: Celery, queue: str) -> int:
    """How many messages wait in ``queue``; those already with a worker are not counted.

    A queue that nobody has made yet is empty. Raises BrokerAwayError.
    """
    connection = open_line(app)
    with connection:
        return _depth(connection, queue)


class Gauge:
    """Depths for who asks all the time: over one line that stays open. Thread-safe.

    RabbitMQ writes three lines into its log for every connection that comes and goes.
    """

    def __init__(self, app: Celery) -> None:
        """Connects to nothing yet."""
        self._app = app
        self._lock = threading.Lock()
        self._line: Any = None

    def depth(self, queue: str) -> int:
        """As :func:`depth`."""
        with self._lock:
            if self._line is not None:
                with suppress(BrokerAwayError):
                    return _depth(self._line, queue)
                self._hang_up()
            self._line = open_line(self._app)
            return _depth(self._line, queue)

    def close(self) -> None:
        """Close the line. It is opened again if somebody asks."""
        with self._lock:
            self._hang_up()

    def _hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            with suppress(BrokerAwayError), broker_errors("unused"):
                line.release()


def _depth(connection: Any, queue: str) -> int:
    with broker_errors(connection.as_uri()), connection.channel() as channel:
        try:
            return int(channel.queue_declare(queue, passive=True).message_count)
        except connection.channel_errors as error:
            if getattr(error, "reply_code", None) == 404 or "NOT_FOUND" in str(error):
                return 0
            raise


def read_plain_json() -> None:
    """Have this process's kombu decode JSON as JSON. For worker processes, before the worker starts.

    kombu revives objects of the shape ``{"__type__": …, "__value__": …}`` and raises for a type it does not
    know, which Celery answers by throwing the whole message away. An event's ``params`` may well have two such
    keys. This is process-wide, which is why a producer inside somebody else's program must not do it.
    """
    serialization.register(
        "json", _write_json, _read_json, content_type="application/json", content_encoding="utf-8"
    )


def _read_json(text: str | bytes) -> object:
    """JSON; also with a lone surrogate or a NaN in it, for then one event is at fault and not its message."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


def _write_json(value: object) -> str:
    return orjson.dumps(value).decode()


def _is_amqp(broker_url: str) -> bool:
    return broker_url.partition("://")[0].lower() in _AMQP_SCHEMES


def _queues(*, quorum: bool) -> list[Queue]:
    # The nameless exchange routes by queue name and needs no binding, so a wiped broker takes messages at once.
    arguments = _QUORUM if quorum else None
    queue: Any = Queue  # kombu's constructors have no types
    exchange: Any = Exchange
    return [queue(name, exchange(""), routing_key=name, queue_arguments=arguments) for name in QUEUES]


def _transport_options(*, amqp_broker: bool) -> dict[str, Any]:
    if amqp_broker:
        return {
            "confirm_publish": True,
            "connect_timeout": CONNECT_TIMEOUT_S,
            "write_timeout": ANSWER_TIMEOUT_S,
        }
    return {
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        # Look for abandoned messages every 10 s. The default looks every 100 s, on top of the timeout.
        "unacked_restore_interval": 10,
        "unacked_restore_throttle": 1,
        "socket_timeout": ANSWER_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": 10,
    }
