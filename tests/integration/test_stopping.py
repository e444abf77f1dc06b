"""Stopping: a pause and an open breaker hold everything back, spend nothing, and let it all go on in order."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import typer
from sqlalchemy import Engine, text
from typer.testing import CliRunner, Result

from infra.doctor.database import examine_ledger
from infra.filters import AskingError
from infra.sink import SinkThread
from infra.store import by_hand, releasing
from infra.store import firing as store
from infra.store.by_hand import Signature
from infra.store.destinations import Destinations
from infra.store.evidence import read_life
from infra.store.ledger import read_ledger
from infra.store.searching.search import Criteria
from infra.store.selection import Selection, extent
from infra.store.stopping import breaking, parking
from infra.store.stopping.stopping import pause, resume, stops, waiting
from investigations.next_step import next_step
from schemas.breaker import BreakerPolicy, BreakerState
from schemas.by_hand import Act, Errand, Moved
from schemas.lifecycle import State
from schemas.postback import Gated, Prepared, Stopped
from tests.integration.ground import (
    QUICK_RETRY,
    Ground,
    Gun,
    cleared,
    contract,
    conversion,
    generic_url,
    signal,
    until,
)
from workers import destinations_cli, stopping_cli
from workers.releasing import release_due
from workers.rendering import Renderer, prepare
from workers.rescuing import rescue

PATIENT = QUICK_RETRY | {"attempts": 50, "base": "50ms", "cap": "200ms"}
TOUCHY = {"failures": 5, "share": 0.9, "window": "1m", "cooldown": "2s", "cap": "4s"}
FOREVER = {"failures": 5, "share": 0.9, "window": "1m", "cooldown": "1h", "cap": "1h"}
DOWN = [{"match": {}, "behave": "status:503"}]


@pytest.fixture
def ground(engine: Engine) -> Ground:
    return cleared(engine)


@pytest.fixture(scope="module")
def _sink() -> Iterator[SinkThread]:
    with SinkThread() as running:
        yield running


@pytest.fixture
def sink(_sink: SinkThread) -> SinkThread:
    _sink.client.reset()
    _sink.client.plan([])
    return _sink


@pytest.fixture
def gun(ground: Ground) -> Iterator[Gun]:
    with ground.firing() as gun:
        yield gun


def take(ground: Ground, count: int, *, start: int = 0, **fields: Any) -> None:
    """Conversions e0, e1 ..., each due a second after the one before, the last one now."""
    names = [f"e{number}" for number in range(start, start + count)]
    ground.take(*(conversion(name, **fields) for name in names))
    ground.run(
        """UPDATE postbacks p SET release_at = now() - make_interval(secs => :count - n.place),
            due_at = now() - make_interval(secs => :count - n.place)
        FROM conversions c, unnest(CAST(:names AS text[])) WITH ORDINALITY AS n(name, place)
        WHERE p.conversion_id = c.id AND c.event_id = n.name AND p.state = 'held'""",
        names=names,
        count=count,
    )


def order_of_requests(sink: SinkThread) -> list[str]:
    """The order ids that the network was asked about, in the order of the requests."""
    return [request["raw"].partition("order_id=")[2].partition("&")[0] for request in sink.client.requests()]


def parked(ground: Ground) -> int:
    return int(ground.one("SELECT count(*) FROM postbacks WHERE parked"))


# Pausing -------------------------------------------------------------------------------------------


def test_a_paused_destination_fires_nothing_and_spends_nothing(
    ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """Its due postbacks are parked, once; the others' go on."""
    ground.apply(contract("d", generic_url(sink.url)), contract("other", generic_url(sink.url), events=["x"]))
    take(ground, 30)
    pause(ground.engine, "d", "anna", "they migrate")
    ground.take(conversion("x", name="x"))
    for _ in range(3):
        gun.fire()
    assert order_of_requests(sink) == ["x"]
    assert (parked(ground), ground.states()) == (30, {"held": 30, "delivered": 1})
    assert ground.one("SELECT count(*) FROM intents") == 1
    assert releasing.backlog(ground.engine).due == 0
    stop = stops(ground.engine)["d"]
    assert (stop.kind, stop.who, stop.reason, stop.until) == ("paused", "anna", "they migrate", None)


def test_what_was_parked_goes_on_oldest_first_and_what_came_later_behind_it(
    ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """In the order in which it was due, through one place on the wire."""
    ground.apply(contract("d", generic_url(sink.url), limits={"concurrency": 1}))
    take(ground, 12)
    pause(ground.engine, "d", "anna", "they migrate")
    gun.fire()
    assert parked(ground) == 12
    resume(ground.engine, "d", "anna")
    now = datetime.now(UTC).isoformat()
    ground.take(*(conversion(f"e{number}", occurred_at=now) for number in (12, 13, 14)))
    gun.fire_until_final()
    assert order_of_requests(sink) == [f"e{number}" for number in range(15)]


def test_a_pause_ends_by_itself_and_the_audit_says_so(ground: Ground, gun: Gun, sink: SinkThread) -> None:
    ground.apply(contract("d", generic_url(sink.url)))
    take(ground, 3)
    pause(ground.engine, "d", "anna", "a moment", datetime.now(UTC) + timedelta(seconds=1))
    gun.fire()
    assert sink.client.counts()["requests"] == 0
    gun.fire_until_final()
    assert ground.states() == {"delivered": 3}
    assert stops(ground.engine) == {}
    said = ground.rows(
        "SELECT who, action, detail->>'reason' AS reason FROM audit WHERE action LIKE 'destination.%'"
    )
    assert [(row.who, row.action) for row in said] == [
        ("anna", "destination.pause"),
        ("holdfire", "destination.resume"),
    ]
    assert said[1].reason.startswith("it was paused by anna until ")


def test_once_pause_has_returned_no_intent_is_recorded(ground: Ground, sink: SinkThread) -> None:
    """Four workers in full swing, paused over and over: not one intent is of an instant within a pause."""
    ground.apply(contract("d", generic_url(sink.url)))
    done = threading.Event()
    spans: list[tuple[datetime, datetime]] = []

    def fire(gun: Gun) -> None:
        while not done.is_set():
            claimed = releasing.claim_all(ground.engine, limit=40, lease_s=15, per_lease=10)
            time.sleep(0.02)  # as a hint waits in its queue
            for lease in claimed.leases:
                gun.firing.fire(lease.token, lease.version_id, lease.postback_ids)

    with ground.firing() as gun, ThreadPoolExecutor(4) as threads:
        clocks = [threads.submit(fire, gun) for _ in range(4)]
        try:
            for number in range(12):
                take(ground, 60, start=number * 60)
                until(lambda n=number: ground.one("SELECT count(*) FROM intents") > n * 40)
                pause(ground.engine, "d", "anna", "race")
                began = ground.one("SELECT clock_timestamp()")
                time.sleep(0.1)
                spans.append((began, ground.one("SELECT clock_timestamp()")))
                resume(ground.engine, "d", "anna")
        finally:
            done.set()
        for clock in clocks:
            clock.result(30)
        gun.fire_until_final()
    within = [
        ground.one("SELECT count(*) FROM intents WHERE intent_at BETWEEN :began AND :ended", began=b, ended=e)
        for b, e in spans
    ]
    assert within == [0] * 12
    assert ground.states() == {"delivered": 720}
    assert len(sink.client.credits()) == 720


def test_a_pause_waits_for_the_gates_that_are_open(ground: Ground, sink: SinkThread) -> None:
    """While one is rendering, pause does not return; then the intent stands, and it is of before the pause."""
    ground.apply(contract("d", generic_url(sink.url)))
    take(ground, 2)
    first, second = (
        releasing.claim(ground.engine, limit=1, lease_s=15, per_lease=1)[0].postback_ids[0] for _ in range(2)
    )
    tokens = {row.id: row.lease_token for row in ground.rows("SELECT id, lease_token FROM postbacks")}
    account = Renderer(Destinations(ground.engine)).account(1)
    inside, go_on = threading.Event(), threading.Event()

    def slowly(gated: Gated) -> Prepared | Stopped:
        inside.set()
        assert go_on.wait(10)
        return prepare(gated, account)

    with ThreadPoolExecutor(2) as threads:
        gating = threads.submit(store.gate, ground.engine, tokens[first], [first], "a:1", slowly, lease_s=15)
        assert inside.wait(10)
        pausing = threads.submit(pause, ground.engine, "d", "anna", "stop")
        with pytest.raises(TimeoutError):
            pausing.result(0.3)
        go_on.set()
        assert len(gating.result(10).prepared) == 1
        pausing.result(10)
    gate = store.gate(
        ground.engine, tokens[second], [second], "a:1", lambda gated: prepare(gated, account), lease_s=15
    )
    assert (gate.prepared, gate.parked) == ([], 1)
    assert ground.one("SELECT intent_at < paused_at FROM intents, stops")


def test_what_was_claimed_before_the_pause_is_given_back_at_the_gate(
    ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """Nothing is asked either: the gate looks before it prepares anything."""
    check = {"url": f"{sink.url}/ask/{{order_id}}", "allow_http": True, "allow_private": True}
    ground.apply(contract("d", generic_url(sink.url), hold={"kind": "refund", "wait": "1s", "check": check}))
    take(ground, 5)
    (lease,) = releasing.claim(ground.engine, limit=10, lease_s=15, per_lease=10)
    pause(ground.engine, "d", "anna", "stop")
    gun.firing.fire(lease.token, lease.version_id, lease.postback_ids)
    assert (parked(ground), sink.client.counts()["requests"]) == (5, 0)
    states = ground.rows(
        "SELECT state, attempts, lease_token, due_at = release_at AS in_place FROM postbacks"
    )
    assert {tuple(row) for row in states} == {("held", 0, None, True)}


def test_one_that_expires_while_paused_is_expired_and_its_duplicate_takes_its_place(
    ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """The age limit goes on: nothing is sent, and nobody has to resume for it."""
    ground.apply(contract("d", generic_url(sink.url), dedupe="rejected"))
    take(ground, 2, click_ids={"generic": "one-click-id"}, order_id="one")
    assert ground.postback("e1").state == "duplicate"
    ground.run("UPDATE postbacks SET expires_at = now() + interval '1 s' WHERE state = 'held'")
    pause(ground.engine, "d", "anna", "stop")
    gun.fire()
    assert parked(ground) == 1
    until(lambda: (gun.fire(), ground.postback("e0").state == "expired")[1])
    assert ground.postback("e1").state == "held"
    assert sink.client.counts()["requests"] == 0


def test_signals_and_hands_move_what_is_parked_like_anything_else(
    ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """Voided, extended, released: and none of them is taken for one that waits for `release --due`."""
    ground.apply(contract("d", generic_url(sink.url), hold={"kind": "refund", "wait": "1s"}))
    take(ground, 4)
    pause(ground.engine, "d", "anna", "stop")
    gun.fire()
    assert (parked(ground), releasing.waiting_for_release(ground.engine)) == (4, 0)
    ground.take(signal("refund", "r", "e0"), signal("chargeback", "c", "e1", outcome="opened"))
    assert ground.postback("e0").void_reason == "refunded"
    ground.run(
        "UPDATE postbacks SET release_at = now() + interval '1 h', due_at = now() + interval '1 h' WHERE id = 3"
    )
    ground.take(signal("chargeback", "w", "e1", outcome="won"))
    assert ground.postback("e1").state == "held"
    resume(ground.engine, "d", "anna")
    until(lambda: (gun.fire(), ground.states().get("delivered") == 2)[1])
    assert ground.states() == {"voided": 1, "held": 1, "delivered": 2}
    assert sorted(order_of_requests(sink)) == ["e1", "e3"]


def test_a_release_by_hand_keeps_its_place_and_says_that_it_waits(
    ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """Due now, as ever, but not behind what was due after it."""
    ground.apply(contract("d", generic_url(sink.url), limits={"concurrency": 1}))
    take(ground, 5)
    pause(ground.engine, "d", "anna", "stop")
    gun.fire()
    chosen, release = Selection(Criteria(event_id="e1")), Errand(Act.RELEASE)
    last = extent(ground.engine, chosen).last
    ((answer,),) = by_hand.carry_out(ground.engine, chosen, release, Signature("ben", "by phone"), last)
    assert isinstance(answer.decision, Moved)
    assert answer.decision.says == "it is due and fires once its destination goes on"
    resume(ground.engine, "d", "anna")
    gun.fire_until_final()
    assert order_of_requests(sink) == [f"e{number}" for number in range(5)]


def test_a_rate_limit_holds_when_a_pause_ends(
    ground: Ground, gun: Gun, sink: SinkThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty were parked; 20 a second go out, in order, and none is claimed and given back over and over."""
    ground.apply(contract("d", generic_url(sink.url), limits={"per_second": 20, "concurrency": 5}))
    take(ground, 60)
    pause(ground.engine, "d", "anna", "stop")
    gun.fire()
    given_back: list[int] = []
    give_back = store.give_back

    def count(engine: Engine, token: int, ids: Sequence[int], *rest: float) -> int:
        given_back.extend(ids)
        return give_back(engine, token, ids, *rest)

    monkeypatch.setattr(store, "give_back", count)
    resume(ground.engine, "d", "anna")
    began = time.monotonic()
    gun.fire_until_final()
    assert time.monotonic() - began > 2.2
    asked = [int(name[1:]) for name in order_of_requests(sink)]
    assert max(abs(place - number) for place, number in enumerate(asked)) <= 5
    assert len(asked) == 60
    assert len(given_back) < 30


def test_a_resumed_destination_does_not_keep_another_waiting(
    ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """Hundreds stand in the queue of a slow one; another one's single postback goes with the next pass."""
    ground.apply(
        contract("slow", generic_url(sink.url, "late:0.5"), limits={"concurrency": 2}),
        contract("quick", generic_url(sink.url), events=["x"]),
    )
    take(ground, 400)
    pause(ground.engine, "slow", "anna", "stop")
    gun.fire()
    resume(ground.engine, "slow", "anna")
    gun.fire_due()
    ground.take(conversion("x", name="x"))
    began = time.monotonic()
    gun.fire_due()
    until(lambda: ground.postback("x").state == "delivered", 3)
    assert time.monotonic() - began < 2.5
    assert ground.one("SELECT max(attempts) FROM postbacks WHERE parked") == 0
    places = ground.rows("SELECT due_at = release_at AS kept FROM postbacks WHERE parked")
    assert len(places) > 300
    assert all(row.kept for row in places)
    pause(ground.engine, "slow", "anna", "enough")
    gun.settle()


def test_a_full_queue_is_parked_beside_what_others_have_due(ground: Ground, sink: SinkThread) -> None:
    """A pass leases the others' first and parks a bounded share; passes go on until all is parked."""
    ground.apply(contract("d", generic_url(sink.url)), contract("o", generic_url(sink.url), events=["x"]))
    take(ground, 50)
    ground.take(conversion("x", name="x"))
    pause(ground.engine, "d", "anna", "stop")
    hinted: list[int] = []
    release_due(
        ground.engine,
        hints_waiting=lambda: 0,
        hint=lambda lease: hinted.extend(lease.postback_ids),
        lease_s=15,
    )
    assert hinted == [ground.postback("x").id]
    assert parked(ground) == 50


def test_pausing_what_there_is_none_of_is_refused(ground: Ground) -> None:
    with pytest.raises(KeyError):
        pause(ground.engine, "nobody", "anna", "why not")
    with pytest.raises(KeyError):
        resume(ground.engine, "nobody", "anna")


def test_resuming_what_goes_on_anyway_says_so_and_is_not_audited(ground: Ground, sink: SinkThread) -> None:
    ground.apply(contract("d", generic_url(sink.url)))
    assert resume(ground.engine, "d", "anna") is None
    assert ground.one("SELECT count(*) FROM audit WHERE action = 'destination.resume'") == 0


def test_what_a_pause_holds_up_is_counted(ground: Ground, sink: SinkThread) -> None:
    ground.apply(contract("d", generic_url(sink.url), hold={"kind": "refund", "wait": "10m"}))
    ground.take(*(conversion(f"e{number}") for number in range(4)))
    ground.run("UPDATE postbacks SET due_at = now() - interval '1 m' WHERE id = 1")
    ground.run("UPDATE postbacks SET expires_at = now() + interval '30 m' WHERE id = 2")
    found = waiting(ground.engine, "d", datetime.now(UTC) + timedelta(hours=1))
    assert (found.due, found.until, found.expires) == (1, 3, 1)
    assert waiting(ground.engine, "d").expires == 0
    assert found.first_expiry == ground.postback("e1").expires_at


# The breaker ---------------------------------------------------------------------------------------


def until_open(ground: Ground, gun: Gun, destination: str = "d") -> None:
    def is_open() -> bool:
        rescue(ground.engine, gun.renderer)
        gun.fire()
        return destination in stops(ground.engine)

    until(is_open)


def test_a_network_that_is_down_is_left_alone_and_all_is_delivered_once_it_is_back(
    ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """While it is open only probes are spent, a few each cooldown; afterwards the oldest go first."""
    ground.apply(
        contract("d", generic_url(sink.url), retry=PATIENT, breaker=TOUCHY, limits={"concurrency": 1})
    )
    sink.client.plan(DOWN)
    take(ground, 40)
    gun.fire_due()
    until_open(ground, gun)
    stop = stops(ground.engine)["d"]
    assert stop.kind == "open"
    assert stop.who is None
    assert "attempts failed" in stop.reason
    assert stop.until is not None
    gun.fire()
    spent = ground.one("SELECT count(*) FROM attempts")
    while ground.one("SELECT now()") < stop.until - timedelta(seconds=0.3):
        gun.fire()
    assert ground.one("SELECT count(*) FROM attempts") == spent
    until(lambda: (gun.fire(), ground.one("SELECT trips FROM stops") == 2)[1])
    assert ground.one("SELECT count(*) FROM attempts") == spent + 3
    sink.client.plan([])
    sink.client.reset()
    gun.fire_until_final(30)
    assert ground.states() == {"delivered": 40}
    untried = [int(name[1:]) for name in order_of_requests(sink) if ground.postback(name).attempts == 1]
    assert untried == sorted(untried)
    assert stops(ground.engine) == {}
    audited = ground.rows("SELECT who, action FROM audit WHERE action LIKE 'destination.%' ORDER BY id")
    assert [tuple(row) for row in audited] == [
        ("breaker", "destination.breaker_open"),
        ("breaker", "destination.breaker_closed"),
    ]
    assert [entry.says for entry in read_ledger(ground.engine).entries if not entry.balances] == []


@pytest.mark.parametrize("behaviour", ["status:403", "status:400"])
def test_refusals_never_open_it(ground: Ground, gun: Gun, sink: SinkThread, behaviour: str) -> None:
    """A network that says no is there."""
    ground.apply(contract("d", generic_url(sink.url, behaviour), breaker=TOUCHY))
    take(ground, 40)
    gun.fire_until_final()
    assert ground.states() == {"rejected": 40}
    assert ground.one("SELECT count(*) FROM stops") == 0


def test_failures_among_answers_never_open_it(ground: Ground, gun: Gun, sink: SinkThread) -> None:
    """Every third request fails: each failure is told with the answers around it."""
    ground.apply(contract("d", generic_url(sink.url), retry=PATIENT, breaker=TOUCHY | {"share": 0.5}))
    sink.client.plan([{"match": {"every_request": 3}, "behave": "status:503"}])
    take(ground, 90)
    gun.fire_until_final(60)
    assert ground.states() == {"delivered": 90}
    assert ground.one("SELECT count(*) FROM attempts WHERE verdict = 'retry'") > 40
    assert ground.one("SELECT count(*) FROM audit WHERE action = 'destination.breaker_open'") == 0


def test_a_failure_is_told_with_the_answers_before_it(ground: Ground, gun: Gun, sink: SinkThread) -> None:
    """They were a number in memory until then, and without them a rare failure would look like nothing but failures."""
    ground.apply(contract("d", generic_url(sink.url), retry=PATIENT, breaker=TOUCHY))
    take(ground, 7)
    gun.fire_until_final()
    assert ground.one("SELECT count(*) FROM stops") == 0
    sink.client.plan(DOWN)
    take(ground, 1, start=7)
    gun.fire()
    (before, failed) = ground.one("SELECT recent FROM stops")
    assert (before[1:], failed[1:]) == ([0, 7], [1, 0])
    sink.client.plan([])
    gun.fire_until_final()


def test_without_failures_no_breaker_is_written(ground: Ground, gun: Gun, sink: SinkThread) -> None:
    ground.apply(contract("d", generic_url(sink.url), breaker=TOUCHY))
    take(ground, 40)
    gun.fire_until_final()
    assert ground.one("SELECT count(*) FROM stops") == 0


def test_a_destination_without_a_breaker_goes_on_trying(ground: Ground, gun: Gun, sink: SinkThread) -> None:
    ground.apply(contract("d", generic_url(sink.url, "status:503"), breaker=False))
    take(ground, 30)
    gun.fire_until_final()
    assert ground.states() == {"dead": 30}
    assert ground.one("SELECT count(*) FROM stops") == 0


def test_resuming_an_open_breaker_tries_at_once(ground: Ground, gun: Gun, sink: SinkThread) -> None:
    """An hour of cooldown is not waited for when a person knows better."""
    sink.client.plan(DOWN)
    ground.apply(contract("d", generic_url(sink.url), retry=PATIENT, breaker=FOREVER))
    take(ground, 20)
    until_open(ground, gun)
    sink.client.plan([])
    resume(ground.engine, "d", "anna", "they are back")
    gun.fire_until_final()
    assert ground.states() == {"delivered": 20}


def test_two_processes_share_one_breaker(ground: Ground, gun: Gun, sink: SinkThread) -> None:
    """What one has found the other does not find out again."""
    ground.apply(contract("d", generic_url(sink.url, "status:503"), retry=PATIENT, breaker=FOREVER))
    take(ground, 20)
    until_open(ground, gun)
    take(ground, 20, start=20)
    before = ground.one("SELECT count(*) FROM attempts")
    with ground.firing() as other:
        for lease in releasing.claim(ground.engine, limit=100, lease_s=15, per_lease=100):
            other.firing.fire(lease.token, lease.version_id, lease.postback_ids)
        other.settle()
    assert ground.one("SELECT count(*) FROM attempts") == before
    assert parked(ground) >= 20


def test_probes_whose_worker_dies_are_followed_by_others(
    ground: Ground, gun: Gun, sink: SinkThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half open without an answer for too long: other probes go, and the network's answer to them closes it."""
    sink.client.plan(DOWN)
    limits = {"deadline": "500ms", "connect": "300ms"}
    ground.apply(contract("d", generic_url(sink.url), retry=PATIENT, breaker=TOUCHY, limits=limits))
    take(ground, 20)
    until_open(ground, gun)
    sink.client.plan([])
    until(lambda: ground.one("SELECT breaker_until <= now() FROM stops"))
    lost = releasing.claim_all(ground.engine, limit=100, lease_s=0.5, per_lease=100)
    assert [len(lease.postback_ids) for lease in lost.leases] == [3]
    assert stops(ground.engine)["d"].kind == "half_open"
    gun.fire()
    assert sink.client.counts()["requests"] == 5 + ground.one("SELECT count(*) FROM attempts") - 5
    gun.fire_until_final()
    assert ground.states() == {"delivered": 20}


def test_only_the_probes_pass_the_gate_of_a_half_open_breaker(
    ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """A lease from before it opened is given back, and its late hint costs nothing."""
    sink.client.plan(DOWN)
    ground.apply(contract("d", generic_url(sink.url), retry=PATIENT, breaker=TOUCHY))
    take(ground, 20)
    take(ground, 10, start=20)
    ground.run("UPDATE postbacks SET due_at = now() + interval '1 h' WHERE id <= 10")
    (late,) = releasing.claim(ground.engine, limit=10, lease_s=60, per_lease=10)
    ground.run("UPDATE postbacks SET due_at = now() WHERE id <= 10")
    until_open(ground, gun)
    until(lambda: ground.one("SELECT breaker_until <= now() FROM stops"))
    probing = releasing.claim_all(ground.engine, limit=100, lease_s=60, per_lease=100)
    before = ground.one("SELECT count(*) FROM intents")
    gun.firing.fire(late.token, late.version_id, late.postback_ids)
    assert ground.one("SELECT count(*) FROM intents") == before
    (probes,) = probing.leases
    gun.firing.fire(probes.token, probes.version_id, probes.postback_ids)
    assert ground.one("SELECT count(*) FROM intents") == before + 3


def test_answers_to_what_left_before_are_no_answers_to_its_probes(
    ground: Ground, gun: Gun, sink: SinkThread
) -> None:
    """Half open, only the lease of the probes counts: a network that answered once may be gone since."""
    sink.client.plan(DOWN)
    ground.apply(contract("d", generic_url(sink.url), retry=PATIENT, breaker=TOUCHY))
    take(ground, 20)
    until_open(ground, gun)
    until(lambda: ground.one("SELECT breaker_until <= now() FROM stops"))
    probing = releasing.claim_all(ground.engine, limit=100, lease_s=60, per_lease=100)
    ((probes,), policy) = probing.leases, BreakerPolicy()
    late = breaking.Outcomes(0, 5, by_token={probes.token - 1: (0, 5)})
    assert breaking.tell(ground.engine, "d", late, policy).after.state is BreakerState.HALF_OPEN
    answered = breaking.Outcomes(0, 1, by_token={probes.token: (0, 1)})
    assert breaking.tell(ground.engine, "d", answered, policy).after.state is BreakerState.CLOSED


# How it is done ------------------------------------------------------------------------------------


def reads(engine: Engine, statement: Any, values: dict[str, Any], index: str) -> int:
    """How many pages a statement reads; it has to use the index."""
    with engine.connect() as connection:
        explained = connection.execute(
            text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement.text}"), values
        )
        plan = explained.scalar_one()[0]["Plan"]
        connection.rollback()
    assert index in str(plan)
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.mark.parametrize("analysed", [True, False])
def test_a_pass_reads_neither_past_the_parked_nor_all_of_a_queue(
    engine: Engine, sink: SinkThread, analysed: bool
) -> None:
    """With 50,000 parked, a look, a claim and a draw read what they take and little more, each by its index; also just
    after they were parked, when the statistics know nothing of it."""
    ground = cleared(engine)
    ground.apply(contract("d", generic_url(sink.url)))
    ground.take(conversion("e"))
    pause(engine, "d", "anna", "stop")
    ground.run("ANALYZE postbacks")
    ground.run("""
        INSERT INTO postbacks (conversion_id, version_id, state, release_at, due_at, parked)
        SELECT 1, 1, 'held', now() - interval '1 h', now() - make_interval(secs => n), true
        FROM generate_series(1, 50000) n""")
    if analysed:
        ground.run("ANALYZE postbacks")
    draw = {"limit": 100, "token": 1, "lease_s": 1, "versions": [1, 2]}
    assert reads(engine, parking._LOOK, {}, "postbacks_parked") < 100
    claim = {"limit": 100, "token": 1, "lease_s": 1, "besides": []}
    assert reads(engine, releasing._CLAIM, claim, "postbacks_due_at") < 500
    assert reads(engine, parking._DRAW_ANY, draw, "postbacks_parked") < 3000
    if analysed:
        assert reads(engine, parking._DRAW_EXPIRED, draw, "postbacks_parked_expiring") < 500


def test_the_database_refuses_a_parked_one_on_its_way(ground: Ground, sink: SinkThread) -> None:
    """A CHECK says what the code keeps to."""
    ground.apply(contract("d", generic_url(sink.url)))
    ground.take(conversion("e"))
    ground.run("UPDATE postbacks SET parked = true")
    with pytest.raises(Exception, match="postbacks_parked"):
        ground.run("UPDATE postbacks SET state = 'leased', lease_token = 1")
    assert ground.postback("e").state == State.HELD


# What people see -----------------------------------------------------------------------------------


@pytest.fixture
def run(database_url: str) -> Callable[..., Result]:
    """Run a command as the front door does, with its output as it is when piped."""
    app = typer.Typer()
    stopping_cli.register(app)
    destinations_cli.register(app)
    runner = CliRunner(env={"HOLDFIRE_DATABASE_URL": database_url, "NO_COLOR": "1"})
    return lambda *arguments: runner.invoke(app, list(arguments))


def next_of(ground: Ground, event_id: str) -> str:
    life = read_life(ground.engine, ground.postback(event_id).conversion_id)
    assert life is not None
    return next_step(life, life.postbacks[0])


def test_pause_says_what_it_holds_up_and_everything_that_reads_says_why(
    ground: Ground, gun: Gun, sink: SinkThread, run: Callable[..., Result]
) -> None:
    ground.apply(contract("d", generic_url(sink.url)))
    take(ground, 3)
    ground.run("UPDATE postbacks SET expires_at = now() + interval '30 m' WHERE id = 3")
    looked = run("pause", "d", "--until", "2h", "--dry-run")
    assert looked.exit_code == 0, looked.output
    assert looked.output.startswith("Would pause d until ")
    assert looked.output.endswith("Nothing was changed.\n")
    assert stops(ground.engine) == {}
    said = run("pause", "d", "--reason", "they migrate", "--until", "2h", "--as", "anna")
    assert said.exit_code == 0, said.output
    first, held_up, expire = said.output.splitlines()
    assert first.startswith("d is paused by anna since ")
    assert first.endswith(": they migrate")
    assert held_up == "3 due now are held up, and 0 more until then."
    assert expire == "1 pass the network's age limit before then: they expire and never fire."
    gun.fire()
    assert next_of(ground, "e0").startswith("fires when its destination goes on, due since ")
    assert "; d is paused by anna since " in next_of(ground, "e0")
    (listed,) = json.loads(run("destinations", "list", "--json").output)
    assert listed["stop"].startswith("paused by anna since ")
    assert "paused by anna" in run("destinations", "list").output
    warned = [finding for finding in examine_ledger(ground.engine) if finding.level != "ok"]
    assert [(finding.about, finding.level) for finding in warned if "d is paused" in finding.says] == [
        ("stopped destinations", "warn")
    ]
    assert not any(finding.about == "overdue postbacks" for finding in warned)
    ended = run("resume", "d", "--as", "ben", "--reason", "done")
    assert ended.output.startswith("d goes on; 3 due, oldest first. It was paused by anna since ")
    assert ended.exit_code == 0
    assert "it was stopped and goes on, oldest first" in next_of(ground, "e0")
    gun.fire_until_final()


def test_an_open_breaker_is_told_with_its_figures(ground: Ground, gun: Gun, sink: SinkThread) -> None:
    ground.apply(contract("d", generic_url(sink.url, "status:503"), retry=PATIENT, breaker=FOREVER))
    take(ground, 20)
    until_open(ground, gun)
    until(lambda: (gun.fire(), parked(ground) == 20)[1])
    said = next_of(ground, "e0")
    assert said.startswith("retries (attempt 2 of 50) when its destination goes on, due since ")
    assert "; d is stopped by its breaker since " in said
    assert said.endswith("20 of the last 20 attempts failed")


def test_commands_say_what_is_wrong(ground: Ground, sink: SinkThread, run: Callable[..., Result]) -> None:
    ground.apply(contract("d", generic_url(sink.url)))
    wrong = (
        (("pause", "nobody", "--reason", "x"), "use one of d"),
        (("pause", "d"), "--reason is missing"),
        (("pause", "d", "--reason", "x" * 501), "say it in 500"),
        (("pause", "d", "--reason", "x", "--until", "soon"), "write 2h, or 2026-12-24T10:00:00Z"),
        (("pause", "d", "--reason", "x", "--until", "2020-01-01"), "has passed"),
        (("resume", "nobody"), "use one of d"),
    )
    for arguments, words in wrong:
        refused = run(*arguments)
        assert isinstance(refused.exception, AskingError), arguments
        assert words in str(refused.exception)
    assert stops(ground.engine) == {}
    nothing = run("resume", "d")
    assert nothing.exit_code == 1
    assert nothing.output == "d was neither paused nor stopped by its breaker: nothing was changed.\n"


def test_json_says_the_same(ground: Ground, sink: SinkThread, run: Callable[..., Result]) -> None:
    ground.apply(contract("d", generic_url(sink.url)))
    take(ground, 2)
    paused = json.loads(run("pause", "d", "--reason", "x", "--until", "1h", "--json").output)
    assert (paused["paused"], paused["due"], paused["expire_until_then"]) == (True, 2, 0)
    resumed = json.loads(run("resume", "d", "--json").output)
    assert resumed == {"destination": "d", "resumed": True, "due": 2, "stop": None}


def test_a_reason_that_steers_terminals_is_shown_harmless(ground: Ground, sink: SinkThread) -> None:
    ground.apply(contract("d", generic_url(sink.url)))
    pause(ground.engine, "d", "an\x1b[2Jna", "see\x1b]0;x\x07 here\u202e")
    assert stops(ground.engine)["d"].words.isprintable()
