"""The queue's contract: settings that decide whether a message survives, and errors that keep secrets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from infra import broker

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://guest:guest@127.0.0.1:1//"])
def test_a_message_is_given_back_when_its_worker_dies(url: str) -> None:
    """Late acknowledgement and rejection on a lost worker go together; one without the other loses messages."""
    conf = broker.celery_app(url).conf
    assert conf.task_acks_late
    assert conf.task_reject_on_worker_lost
    assert conf.worker_prefetch_multiplier == 1
    assert conf.accept_content == ["json"]


def test_rabbitmq_gets_quorum_queues_and_confirms() -> None:
    """On AMQP every queue is a quorum queue and every publish is confirmed; Redis is not told of either."""
    on_amqp, on_redis = broker.celery_app("amqps://host//"), broker.celery_app("redis://host/0")
    quorum = {"x-queue-type": "quorum", "x-delivery-limit": broker.DELIVERY_LIMIT}
    assert [queue.queue_arguments for queue in on_amqp.conf.task_queues] == [quorum] * 3
    assert on_amqp.conf.broker_transport_options["confirm_publish"]
    assert [queue.queue_arguments for queue in on_redis.conf.task_queues] == [None] * 3
    assert on_redis.conf.broker_transport_options["socket_timeout"] == broker.ANSWER_TIMEOUT_S


@pytest.mark.parametrize("url", ["redis://:secret@127.0.0.1:1/0", "amqp://user:secret@127.0.0.1:1//"])
def test_a_broker_that_is_away_is_named_without_its_password(url: str) -> None:
    """One error for every transport, raised at once."""
    with pytest.raises(broker.BrokerAwayError, match=r"127\.0\.0\.1:1") as caught:
        broker.depth(broker.celery_app(url), broker.EVENTS)
    assert "secret" not in str(caught.value)


def test_an_event_with_kombus_own_keys_arrives_as_it_was_sent() -> None:
    """kombu would revive the object, or throw the whole message away; in its own process, as it is process-wide."""
    script = (
        "from infra.broker import read_plain_json\n"
        "from kombu.serialization import loads\n"
        "read_plain_json()\n"
        'body = \'[[[{"params": {"__type__": "x", "__value__": "y"}}]], {}, {}]\'\n'
        "args, _, _ = loads(body, 'application/json', 'utf-8', accept=['application/json'])\n"
        "assert args == [[{'params': {'__type__': 'x', '__value__': 'y'}}]], args\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")
