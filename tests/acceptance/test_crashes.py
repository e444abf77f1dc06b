"""Real processes, really killed: nothing that was committed is lost, and whatever is unknown is said to be."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from infra import broker
from infra.embedded import empty_broker_on_restart
from infra.sink import SinkThread
from tests.acceptance.stage import HOLD, LEASE_S, NOWHERE, Stage, balances, kill
from tests.integration.ground import Ground, contract, conversion, generic_url, until

FINAL = "SELECT count(*) FROM postbacks WHERE due_at IS NOT NULL"


@pytest.fixture
def sink() -> Iterator[SinkThread]:
    with SinkThread() as running:
        yield running


def all_final(ground: Ground) -> Callable[[], bool]:
    return lambda: ground.one(FINAL) == 0


def test_a_worker_killed_mid_fire_is_rescued_and_the_dedupe_rule_decides(
    stage: Stage, ground: Ground, sink: SinkThread
) -> None:
    """Within seconds of the lease's end the attempt is on record as unknown, by the name of the dead worker."""
    ground.apply(
        contract("again", generic_url(sink.url), events=["again"], dedupe="harmless"),
        contract("once", generic_url(sink.url), events=["once"], dedupe="counted_twice"),
    )
    sink.client.hold(limit=2)
    ground.take(conversion("a", name="again"), conversion("o", name="once"))
    doomed = stage.worker()
    stage.clock()
    until(lambda: len(sink.client.held()) == 2, 30)
    kill(doomed.pid)
    killed = time.monotonic()
    stage.worker()
    until(lambda: ground.attempts("a") and ground.attempts("o"), 20)
    assert time.monotonic() - killed < LEASE_S + 6  # the second worker has to start meanwhile
    for event in ("a", "o"):
        lost = ground.attempts(event)[0]
        assert (lost.verdict, lost.error_class) == ("unknown", "WorkerLost")
        assert lost.worker.endswith(f":{doomed.pid}")
    until(all_final(ground))
    assert (ground.postback("a").state, ground.postback("o").state) == ("delivered", "in_doubt")
    assert [row.number for row in ground.attempts("a")] == [1, 2]
    assert ground.one("SELECT count(*) FROM intents") == 3
    assert balances(ground)


def test_a_broker_killed_and_emptied_with_leases_outstanding_loses_nothing(
    stage: Stage, ground: Ground, sink: SinkThread
) -> None:
    """Its queues held every hint: all that was committed still reaches a final state."""
    ground.apply(
        contract("d", generic_url(sink.url, "late:0.1"), limits={"concurrency": 5}, dedupe="harmless")
    )
    events = [conversion(f"e{number}") for number in range(150)]
    ground.take(*events)
    stage.clock()
    workers = [stage.worker(), stage.worker()]
    until(lambda: ground.states().get("delivered", 0) > 10, 30)
    before = stage.engines.valkey_pid
    empty_broker_on_restart(stage.data_dir)
    kill(before)
    until(lambda: stage.engines.valkey_pid not in (None, before), 20)
    until(all_final(ground), 40)
    assert ground.states() == {"delivered": 150}
    assert len({credit["order_id"] for credit in sink.client.credits("generic")}) == 150
    assert all(worker.poll() is None for worker in workers)
    assert balances(ground)


def test_a_worker_told_to_end_lets_its_attempts_end_first(
    stage: Stage, ground: Ground, sink: SinkThread
) -> None:
    """SIGTERM while three attempts are on the wire: it settles them and goes, leaving nothing firing or leased."""
    ground.apply(contract("d", generic_url(sink.url)))
    sink.client.hold()
    ground.take(*(conversion(f"e{number}") for number in range(3)))
    worker = stage.worker()
    stage.clock()
    until(lambda: len(sink.client.held()) == 3, 30)
    worker.send_signal(signal.SIGTERM)
    until(lambda: "holdfire" in stage.log and worker.poll() is None, 5)
    sink.client.release()
    assert worker.wait(20) == 0
    assert ground.states() == {"delivered": 3}
    assert {row.verdict for row in ground.rows("SELECT verdict FROM attempts")} == {"delivered"}


def test_up_ends_on_ctrl_c_and_a_restart_goes_on_where_it_stopped(
    stage: Stage, ground: Ground, sink: SinkThread
) -> None:
    """SIGINT ends every process it started; what was held meanwhile fires when it is up again."""
    ground.apply(contract("d", generic_url(sink.url)))
    up = stage.start("up", "--workers", "1", "--lease", str(LEASE_S))
    ground.take(conversion("first"))
    until(lambda: ground.postback("first").state == "delivered", 40)
    children = psutil.Process(up.pid).children(recursive=True)
    assert len(children) >= 2
    up.send_signal(signal.SIGINT)
    assert up.wait(30) == 0
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    ground.take(conversion("second"))
    assert ground.postback("second").state == "held"
    again = stage.start("up", "--workers", "1", "--lease", str(LEASE_S))
    until(lambda: ground.postback("second").state == "delivered", 40)
    again.send_signal(signal.SIGINT)
    assert again.wait(30) == 0
    assert "Traceback" not in stage.log


def test_a_database_killed_mid_fire_comes_back_to_a_ledger_that_balances(
    stage: Stage, ground: Ground, sink: SinkThread
) -> None:
    """Attempts on the wire are settled afterwards or called unknown; no worker ends over it."""
    ground.apply(contract("d", generic_url(sink.url), dedupe="harmless"))
    sink.client.hold(limit=20)
    ground.take(*(conversion(f"e{number}") for number in range(60)))
    processes = [stage.worker(), stage.clock()]
    until(lambda: len(sink.client.held()) == 20, 30)
    before = stage.engines.postgres_pid
    kill(before)
    sink.client.release()
    until(lambda: stage.engines.postgres_pid not in (None, before), 30)
    ground.engine.dispose()
    until(all_final(ground), 40)
    assert ground.states() == {"delivered": 60}
    assert {row.verdict for row in ground.rows("SELECT verdict FROM attempts")} <= {"delivered", "unknown"}
    assert all(process.poll() is None for process in processes)
    assert balances(ground)


def send(stage: Stage, events: list[Any]) -> None:
    """One message on the queue, as the SDK sends it."""
    with broker.celery_app(stage.engines.broker_url) as app:
        app.send_task(broker.INTAKE_TASK, args=[events])


def test_a_message_that_cannot_be_committed_now_is_given_back_until_it_can(
    stage: Stage, ground: Ground
) -> None:
    """Celery acknowledges a task that fails: here the queue's only copy goes back instead."""
    ground.apply(contract("d", NOWHERE, hold=HOLD))
    stage.worker()
    ground.run("ALTER TABLE receipts RENAME TO receipts_away")
    try:
        send(stage, [conversion("e")])
        until(lambda: "message.given_back" in stage.log, 30)
        assert ground.one("SELECT count(*) FROM conversions") == 0
    finally:
        ground.run("ALTER TABLE receipts_away RENAME TO receipts")
    until(lambda: ground.one("SELECT count(*) FROM conversions") == 1)


def test_messages_that_meet_a_killed_database_are_committed_when_it_is_back(
    stage: Stage, ground: Ground
) -> None:
    """Twenty messages sent while PostgreSQL is down: every event is there afterwards, once."""
    ground.apply(contract("d", NOWHERE, hold=HOLD))
    worker = stage.worker()
    send(stage, [conversion("before")])
    until(lambda: ground.one("SELECT count(*) FROM conversions") == 1, 30)
    before = stage.engines.postgres_pid
    kill(before)
    for number in range(20):
        send(stage, [conversion(f"e{number}")])
    until(lambda: stage.engines.postgres_pid not in (None, before), 30)
    ground.engine.dispose()
    until(lambda: ground.one("SELECT count(*) FROM conversions") == 21, 30)
    assert worker.poll() is None
    assert balances(ground)


def test_a_message_with_what_utf_8_cannot_carry_is_taken_apart_and_not_thrown_away(
    stage: Stage, ground: Ground
) -> None:
    """A lone surrogate in one event, and keys that kombu would revive in another: one reject, two conversions."""
    ground.apply(contract("d", NOWHERE, hold=HOLD))
    stage.worker()
    odd = conversion("odd", params={"__type__": "x", "__value__": "y"})
    send(stage, [conversion("good"), odd, conversion("bad", click_ids={"generic": "lone \ud800"})])
    until(lambda: ground.one("SELECT count(*) FROM receipts") == 1, 30)
    assert ground.one("SELECT count(*) FROM conversions") == 2
    assert json.loads(ground.one("SELECT raw FROM rejects"))["click_ids"] == {"generic": "lone \ud800"}
