"""Rescue: what a dead worker held comes back within seconds, by its network's dedupe rule, and once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine

from infra.sink import SinkThread
from infra.store import firing as store
from infra.store import releasing
from infra.store.destinations import Destinations
from tests.integration.ground import (
    QUICK_RETRY,
    Ground,
    cleared,
    contract,
    conversion,
    generic_url,
    signal,
    until,
)
from workers.rendering import Renderer, prepare
from workers.rescuing import rescue

NOWHERE = generic_url("http://127.0.0.1:9")
DEAD_WORKER = "node-a:4711"


@pytest.fixture
def ground(engine: Engine) -> Ground:
    return cleared(engine)


@pytest.fixture
def sink() -> Iterator[SinkThread]:
    with SinkThread() as running:
        yield running


def abandon(ground: Ground, *, lease_s: float = 0.2) -> int:
    """What a worker does that dies right after its intents are committed. Returns how many."""
    renderer = Renderer(Destinations(ground.engine))
    made = 0
    for lease in releasing.claim(ground.engine, limit=1000, lease_s=lease_s, per_lease=1000):
        account = renderer.account(lease.version_id)
        gate = store.gate(
            ground.engine,
            lease.token,
            lease.postback_ids,
            DEAD_WORKER,
            lambda gated, a=account: prepare(gated, a),
            lease_s=lease_s,
        )
        made += len(gate.prepared)
    return made


def rescued(ground: Ground) -> int:
    return rescue(ground.engine, Renderer(Destinations(ground.engine)))


def lose(ground: Ground, **table: Any) -> Any:
    """One conversion whose worker dies mid-fire; its postback once the lease has run out."""
    ground.apply(contract("d", NOWHERE, **table))
    ground.take(conversion("e"))
    assert abandon(ground) == 1
    until(lambda: rescued(ground))
    return ground.postback("e")


@pytest.mark.parametrize(
    ("dedupe", "state"), [("harmless", "retrying"), ("rejected", "retrying"), ("counted_twice", "in_doubt")]
)
def test_the_dedupe_rule_decides_what_becomes_of_a_silent_attempt(
    dedupe: str, state: str, ground: Ground
) -> None:
    """Unknown is on record with the worker's name; firing again only where that cannot count twice."""
    postback = lose(ground, dedupe=dedupe)
    (attempt,) = ground.attempts("e")
    assert (postback.state, postback.had_unknown, postback.lease_token) == (state, True, None)
    assert (attempt.verdict, attempt.worker, attempt.error_class) == ("unknown", DEAD_WORKER, "WorkerLost")
    assert attempt.click_id == conversion("e")["click_ids"]["generic"]
    assert attempt.state == state


def test_a_lease_that_still_runs_is_left_alone(ground: Ground) -> None:
    """Rescue takes nothing from a worker that is merely busy."""
    ground.apply(contract("d", NOWHERE))
    ground.take(conversion("e"))
    abandon(ground, lease_s=60)
    assert rescued(ground) == 0
    assert ground.postback("e").state == "firing"


def test_rescuers_side_by_side_settle_each_attempt_once(ground: Ground) -> None:
    """Four at once over 200 lost attempts: 200 outcomes, none twice."""
    ground.apply(contract("d", NOWHERE, dedupe="harmless"))
    ground.take(*(conversion(f"e{number}") for number in range(200)))
    assert abandon(ground, lease_s=0.0) == 200
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: rescued(ground), range(4)))
    assert sum(found) == 200
    assert ground.one("SELECT count(*) FROM attempts") == 200


def test_the_last_attempt_lost_leaves_it_dead(ground: Ground) -> None:
    """A lost attempt counts as one."""
    postback = lose(ground, dedupe="harmless", retry=QUICK_RETRY | {"attempts": 1})
    assert (postback.state, postback.attempts) == ("dead", 1)


def test_a_refund_that_came_while_its_worker_was_dead_voids(ground: Ground) -> None:
    """The wish is kept until rescue, which makes no further attempt."""
    ground.apply(contract("d", NOWHERE, dedupe="harmless"))
    ground.take(conversion("e"))
    abandon(ground)
    ground.take(signal("refund", "r", "e"))
    until(lambda: rescued(ground))
    postback = ground.postback("e")
    assert (postback.state, postback.void_reason) == ("voided", "refunded")
    assert f"pb_{postback.id} was on the wire and is voided" in ground.signal("r").outcome


def test_the_attempt_after_a_lost_one_is_a_second_attempt(ground: Ground, sink: SinkThread) -> None:
    """It has the next number and its own intent, and a 200 settles it."""
    ground.apply(contract("d", generic_url(sink.url), dedupe="harmless"))
    ground.take(conversion("e"))
    abandon(ground)
    with ground.firing() as gun:
        gun.fire_until_final()
    assert [(row.number, row.verdict) for row in ground.attempts("e")] == [(1, "unknown"), (2, "delivered")]
    assert [row.number for row in ground.rows("SELECT number FROM intents ORDER BY attempt_id")] == [1, 2]


def test_unfired_leases_and_silent_attempts_come_back_in_one_pass(ground: Ground) -> None:
    """A worker that died with some at the gate and some behind it: all are back, only the fired spent an attempt."""
    ground.apply(contract("d", NOWHERE, dedupe="harmless"))
    ground.take(conversion("fired"))
    abandon(ground, lease_s=0.0)
    ground.take(conversion("leased"))
    releasing.claim(ground.engine, limit=10, lease_s=0.0, per_lease=10)
    assert rescued(ground) == 2
    assert [
        (ground.postback(name).state, ground.postback(name).attempts) for name in ("fired", "leased")
    ] == [
        ("retrying", 1),
        ("held", 0),
    ]
