"""Void, extend and release by hand, on the real store, beside clocks, gates, signals and other hands."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import typer
from sqlalchemy import Engine, text
from typer.testing import CliRunner, Result

from infra.filters import AskingError
from infra.sink.thread import SinkThread
from infra.store import by_hand, releasing
from infra.store.by_hand import Answer, Signature
from infra.store.evidence import read_life
from infra.store.ledger import read_ledger
from infra.store.searching.search import Criteria
from infra.store.selection import Selection, extent
from investigations.next_step import next_step
from investigations.trail import moments
from schemas.by_hand import Act, Errand, Extension, Moved, Refused
from schemas.destination import Contract
from schemas.lifecycle import State
from schemas.network import Adjustment, Adjustments
from tests.integration.ground import Ground, cleared, contract, conversion, generic_url, signal, until
from workers import by_hand as commands

NOWHERE = "https://host.example/p?click_id={click_id}"
HOLD = {"kind": "refund", "wait": "14d"}
MANUAL = {"kind": "refund", "wait": "30s", "release": "manual"}
CREDIT = {"kind": "credit_check", "wait": "30d"}
ANNA = Signature("anna", "fraud ring")
EVERYTHING = Selection(Criteria())
VOID = Errand(Act.VOID)
RELEASE = Errand(Act.RELEASE)
WEEK = timedelta(days=7)


def extend(by: timedelta = WEEK) -> Errand:
    return Errand(Act.EXTEND, Extension(by=by))


@pytest.fixture
def ground(engine: Engine) -> Ground:
    return cleared(engine)


@pytest.fixture
def sink() -> Iterator[SinkThread]:
    with SinkThread(port=0) as running:
        yield running


@pytest.fixture
def run(database_url: str) -> Callable[..., Result]:
    """Run a command as the front door does, with its output as it is when piped."""
    app = typer.Typer()
    commands.register(app)
    runner = CliRunner(env={"HOLDFIRE_DATABASE_URL": database_url, "NO_COLOR": "1"})
    return lambda *arguments: runner.invoke(app, list(arguments))


def do(ground: Ground, errand: Errand, selection: Selection = EVERYTHING, **how: Any) -> list[Answer]:
    last = extent(ground.engine, selection).last
    done = by_hand.carry_out(ground.engine, selection, errand, ANNA, last, **how)
    return [answer for batch in done for answer in batch]


def do_one(ground: Ground, errand: Errand, event_id: str) -> Answer:
    (answer,) = do(ground, errand, Selection(Criteria(event_id=event_id)))
    return answer


def moved(answer: Answer) -> Moved:
    assert isinstance(answer.decision, Moved), answer
    return answer.decision


def refused(answer: Answer) -> Refused:
    assert isinstance(answer.decision, Refused), answer
    return answer.decision


def audits(ground: Ground) -> list[Any]:
    return list(
        ground.rows("SELECT who, action, detail, postback_id FROM audit WHERE action LIKE 'postback.%'")
    )


def trail(ground: Ground, event_id: str) -> list[str]:
    life = read_life(ground.engine, ground.postback(event_id).conversion_id)
    assert life is not None
    return [each.text for each in moments(life)]


def next_of(ground: Ground, event_id: str) -> str:
    life = read_life(ground.engine, ground.postback(event_id).conversion_id)
    assert life is not None
    return next_step(life, life.postbacks[0])


# Void ----------------------------------------------------------------------------------------------


def test_a_void_by_hand_is_kept_with_who_and_why(ground: Ground) -> None:
    """State, reason, audit, trail and what happens next all say the same; and the ledger balances."""
    ground.apply(contract("d", NOWHERE, hold=HOLD))
    ground.take(conversion("e"))
    assert moved(do_one(ground, VOID, "e")).state is State.VOIDED
    postback = ground.postback("e")
    assert (postback.state, postback.void_reason, postback.due_at) == ("voided", "by_hand", None)
    assert postback.reason == "voided by anna: fraud ring"
    (row,) = audits(ground)
    assert (row.who, row.action, row.postback_id) == ("anna", "postback.void", postback.id)
    assert (row.detail["reason"], row.detail["state"], row.detail["to_state"]) == (
        "fraud ring",
        "held",
        "voided",
    )
    assert trail(ground, "e").count("voided by anna: fraud ring") == 1
    assert not any(words.startswith("voided by hand") for words in trail(ground, "e"))
    assert next_of(ground, "e") == "nothing: voided by anna: fraud ring, it never fires"
    assert read_ledger(ground.engine).balances


def test_a_signal_does_not_bring_back_what_a_person_voided(ground: Ground) -> None:
    """A dispute that is won reinstates what a dispute voided, and nothing else."""
    ground.apply(contract("d", NOWHERE, hold=HOLD))
    ground.take(conversion("e"))
    do_one(ground, VOID, "e")
    ground.take(
        signal("chargeback", "c1", "e", outcome="opened"), signal("chargeback", "c2", "e", outcome="won")
    )
    assert ground.postback("e").state == "voided"


def test_voiding_the_first_lets_its_duplicate_take_its_place(ground: Ground) -> None:
    """The one that a person voided was not counted, so the network may be told of the other."""
    ground.apply(contract("d", NOWHERE, hold=HOLD))
    same: dict[str, Any] = {"click_ids": {"generic": "t"}, "order_id": "o"}
    ground.take(conversion("first", **same), conversion("second", **same))
    do_one(ground, VOID, "first")
    assert [ground.postback(name).state for name in ("first", "second")] == ["voided", "held"]


def test_a_duplicate_that_was_voided_takes_no_place(ground: Ground) -> None:
    """Whether it was voided before, or in the same breath as the first."""
    ground.apply(contract("d", NOWHERE, hold=HOLD))
    for name in ("a", "b"):
        same: dict[str, Any] = {"click_ids": {"generic": name}, "order_id": name}
        ground.take(conversion(f"{name}1", **same), conversion(f"{name}2", **same))
    assert moved(do_one(ground, VOID, "a2")).wish
    assert "voided by hand, it never takes its place" in next_of(ground, "a2")
    do_one(ground, VOID, "a1")
    do(ground, VOID, Selection(Criteria(order_id="b")))
    assert ground.states() == {"voided": 2, "duplicate": 2}


def test_a_void_while_an_attempt_is_on_the_wire_makes_it_the_last(ground: Ground, sink: SinkThread) -> None:
    """It fails and is voided instead of tried again; the trail says both."""
    ground.apply(contract("d", generic_url(sink.url, "status:500")))
    ground.take(conversion("e"))
    with ground.firing() as gun:
        sink.client.hold()
        gun.fire_due()
        until(sink.client.held)
        assert moved(do_one(ground, VOID, "e")).wish
        assert "if it fails no other is made (voided by hand)" in next_of(ground, "e")
        assert "before" in refused(do_one(ground, VOID, "e")).why
        sink.client.release()
        gun.settle()
    assert (ground.postback("e").state, sink.client.counts()["requests"]) == ("voided", 1)
    assert any(
        words.startswith("voided by anna: fraud ring (an attempt was on") for words in trail(ground, "e")
    )


def test_a_delivered_one_is_refused_with_what_to_do_instead(ground: Ground, sink: SinkThread) -> None:
    """Nothing here takes back what the network has; a refund signal does, where it takes one."""
    ground.apply(contract("d", generic_url(sink.url)))
    ground.take(conversion("e"))
    with ground.firing() as gun:
        gun.fire()
    assert "send a refund signal" in refused(do_one(ground, VOID, "e")).why
    assert (ground.postback("e").state, audits(ground)) == ("delivered", [])


def corrected_at(sink: SinkThread, behaviour: str = "", **table: Any) -> Contract:
    """A destination whose network takes retractions, and answers them as ``behaviour`` has it."""
    plain = contract("d", generic_url(sink.url), **table)
    retraction = Adjustment(url=f"{generic_url(sink.url, behaviour)}&back=1")
    network = plain.network.model_copy(update={"adjustments": Adjustments(retraction=retraction)})
    return plain.model_copy(update={"network": network})


def test_an_adjustment_that_is_voided_leaves_a_loss_on_record(ground: Ground, sink: SinkThread) -> None:
    """The network goes on showing what it was told; no other adjustment is ordered."""
    ground.apply(corrected_at(sink, adjust={"wait": "1h"}))
    ground.take(conversion("e"))
    with ground.firing() as gun:
        gun.fire()
        ground.take(signal("refund", "r", "e"))
        adjustment = ground.one("SELECT id FROM postbacks WHERE adjusts IS NOT NULL")
        (answer,) = do(ground, VOID, Selection(Criteria(postback_id=adjustment)))
    assert moved(answer).state is State.VOIDED
    assert [(str(row.lost), row.adjustments) for row in ground.rows(CORRECTED)] == [("49.90", 1)]


CORRECTED = "SELECT lost, adjustments FROM postbacks WHERE adjusts IS NULL"


def test_an_adjustment_that_is_voided_on_the_wire_and_fails_is_not_ordered_anew(
    ground: Ground, sink: SinkThread
) -> None:
    """No further attempt means none by another adjustment either; the loss is on record."""
    ground.apply(corrected_at(sink, "status:500", adjust={"wait": "0s"}))
    ground.take(conversion("e"))
    with ground.firing() as gun:
        gun.fire()
        ground.take(signal("refund", "r", "e"))
        sink.client.hold()
        gun.fire_due()
        until(sink.client.held)
        (delivered, adjustment) = do(ground, VOID)
        assert "send a refund signal" in refused(delivered).why
        assert moved(adjustment).wish
        sink.client.release()
        gun.settle()
        assert gun.fire_due() == 0
    assert [(str(row.lost), row.adjustments) for row in ground.rows(CORRECTED)] == [("49.90", 1)]
    assert ground.states() == {"delivered": 1, "voided": 1}


def test_what_is_voided_on_the_wire_and_delivered_is_taken_back(ground: Ground, sink: SinkThread) -> None:
    """Where the network takes corrections, as the command said."""
    ground.apply(corrected_at(sink, adjust={"wait": "0s"}))
    ground.take(conversion("e"))
    with ground.firing() as gun:
        sink.client.hold()
        gun.fire_due()
        until(sink.client.held)
        moved(do_one(ground, VOID, "e"))
        sink.client.release()
        gun.settle()
        gun.fire_until_final()
    assert (
        ground.one(
            "SELECT count(*) FROM postbacks WHERE retracted_at IS NOT NULL AND void_reason = 'by_hand'"
        )
        == 1
    )
    assert any("&back=1" in row.url for row in ground.rows("SELECT url FROM intents"))


# Extend --------------------------------------------------------------------------------------------


def test_an_extended_window_ends_later_and_the_trail_says_so(ground: Ground) -> None:
    """release_at and the due instant move together; the clock claims nothing before."""
    ground.apply(contract("d", NOWHERE, hold=HOLD))
    ground.take(conversion("e"))
    before = ground.postback("e").release_at
    moved(do_one(ground, extend(), "e"))
    postback = ground.postback("e")
    assert (postback.release_at, postback.due_at, postback.state) == (before + WEEK, before + WEEK, "held")
    assert any(
        re.match(r"extended by anna from .* to .* UTC: fraud ring", words) for words in trail(ground, "e")
    )
    assert next_of(ground, "e").startswith("fires at ")


def test_an_extended_lease_is_taken_back_before_anything_is_sent(ground: Ground, sink: SinkThread) -> None:
    """The worker that had claimed it finds its lease gone at the gate."""
    ground.apply(contract("d", generic_url(sink.url)))
    ground.take(conversion("e"))
    (lease,) = releasing.claim(ground.engine, limit=10, lease_s=60, per_lease=10)
    moved(do_one(ground, extend(), "e"))
    with ground.firing() as gun:
        gun.firing.fire(lease.token, lease.version_id, lease.postback_ids)
        assert gun.fire_due() == 0
    assert (ground.postback("e").state, sink.client.counts()["requests"]) == ("held", 0)


def test_a_window_that_a_hand_ends_still_waits_for_it_after_an_extension(
    ground: Ground, engine: Engine
) -> None:
    """Also one that had been let go already and was not claimed yet."""
    ground.apply(contract("d", NOWHERE, hold=MANUAL))
    ground.take(conversion("waits"), conversion("let go"))
    do_one(ground, RELEASE, "let go")
    assert [type(each.decision) for each in do(ground, extend())] == [Moved, Moved]
    assert releasing.claim(engine, limit=10, lease_s=9, per_lease=9) == []
    assert ground.one("SELECT count(*) FROM postbacks WHERE due_at = 'infinity' AND let_go_at IS NULL") == 2


def test_an_extension_beyond_the_age_limit_is_refused_with_both_instants(ground: Ground) -> None:
    """What could not fire after it would only expire."""
    ground.apply(contract("d", NOWHERE, hold=HOLD))
    ground.take(conversion("e"))
    ground.run("UPDATE postbacks SET expires_at = release_at + interval '1 day'")
    assert refused(do_one(ground, extend(), "e")).instants.count("UTC") == 2
    assert moved(do_one(ground, extend(timedelta(hours=23)), "e"))


# Release -------------------------------------------------------------------------------------------


def test_a_release_by_hand_fires_before_the_windows_end(ground: Ground, sink: SinkThread) -> None:
    """The next pass takes it; the trail says who let it go and how early, and not that its window ended."""
    ground.apply(contract("d", generic_url(sink.url), hold=HOLD))
    ground.take(conversion("e"), conversion("other"))
    moved(do_one(ground, RELEASE, "e"))
    with ground.firing() as gun:
        gun.fire()
    assert (ground.postback("e").state, ground.postback("other").state) == ("delivered", "held")
    words = trail(ground, "e")
    assert any(
        re.match(r"released by anna, 13 d 23 h before its window's end: fraud ring", each) for each in words
    )
    assert "its window ended: due" not in words


def test_a_release_by_hand_is_the_credit_decision(ground: Ground, sink: SinkThread) -> None:
    """No approval ever came: the one that a person released fires, the other is voided at its window's end."""
    ground.apply(contract("d", generic_url(sink.url), hold=CREDIT))
    ground.take(conversion("by hand"), conversion("nobody"))
    do_one(ground, RELEASE, "by hand")
    ground.run("UPDATE postbacks SET release_at = now(), due_at = now() WHERE let_go_at IS NULL")
    with ground.firing() as gun:
        gun.fire()
    assert [ground.postback(name).state for name in ("by hand", "nobody")] == ["delivered", "voided"]


def test_a_release_by_hand_is_the_answer_of_the_service(ground: Ground, sink: SinkThread) -> None:
    """It is down, and holds everything on; what a person releases fires without being asked about again."""
    check = {"url": "http://127.0.0.1:1/{order_id}", "allow_http": True, "allow_private": True}
    ground.apply(contract("d", generic_url(sink.url), hold={"kind": "none", "check": check}))
    ground.take(conversion("e"))
    with ground.firing() as gun:
        gun.fire_due()
        until(lambda: ground.postback("e").asked == 1)
        moved(do_one(ground, RELEASE, "e"))
        gun.fire_until_final()
    assert (ground.postback("e").state, ground.one("SELECT count(*) FROM checks")) == ("delivered", 1)


def test_an_extended_window_asks_its_service_as_if_for_the_first_time(
    ground: Ground, sink: SinkThread
) -> None:
    """Else the time it may be held on for would have run out before its new end."""
    check = {"url": "http://127.0.0.1:1/{order_id}", "allow_http": True, "allow_private": True}
    ground.apply(contract("d", generic_url(sink.url), hold={"kind": "none", "check": check}))
    ground.take(conversion("e"))
    with ground.firing() as gun:
        gun.fire_due()
        until(lambda: ground.postback("e").asked == 1)
    moved(do_one(ground, extend(), "e"))
    postback = ground.postback("e")
    assert (postback.asked, postback.asked_since, postback.due_at) == (0, None, postback.release_at)


def test_what_waits_for_a_hand_is_let_go(ground: Ground, engine: Engine) -> None:
    """One of two, by its id, and once."""
    ground.apply(contract("d", NOWHERE, hold=MANUAL))
    ground.take(conversion("a"), conversion("b"))
    moved(do_one(ground, RELEASE, "a"))
    assert "before" in refused(do_one(ground, RELEASE, "a")).why
    (lease,) = releasing.claim(engine, limit=10, lease_s=9, per_lease=9)
    assert lease.postback_ids == (ground.postback("a").id,)


# Many ----------------------------------------------------------------------------------------------


def test_in_batches_none_is_left_out_and_none_is_done_twice(ground: Ground) -> None:
    """What comes after the beginning is left alone; a second call finds all of them done."""
    ground.apply(contract("d", NOWHERE, hold=HOLD))
    ground.take(*(conversion(f"e{number}") for number in range(25)))
    last = extent(ground.engine, EVERYTHING).last
    batches = by_hand.carry_out(ground.engine, EVERYTHING, VOID, ANNA, last, batch=10)
    sizes = [len(next(batches))]
    ground.take(conversion("late"))
    sizes += [len(batch) for batch in batches]
    assert (sizes, ground.states()) == ([10, 10, 5], {"voided": 25, "held": 1})
    held = Selection(Criteria(states=(State.HELD,)))
    assert len(do(ground, VOID, held)) == 1
    assert len(audits(ground)) == 26


def test_a_state_that_is_asked_for_must_hold_under_the_lock(ground: Ground) -> None:
    """Who voids what is held does not mean what began to fire while the lock was waited for."""
    ground.apply(contract("d", NOWHERE, hold=HOLD))
    ground.take(conversion("e"))
    held = Selection(Criteria(states=(State.HELD,)))
    with ThreadPoolExecutor(1) as threads:
        with ground.engine.begin() as gate:
            gate.execute(text("UPDATE postbacks SET state = 'leased', lease_token = 1"))
            done = threads.submit(do, ground, VOID, held)
            until(
                lambda: ground.one(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
            )
        assert done.result(10) == []
    assert ground.states() == {"leased": 1}


def test_hands_race_each_other_a_clock_and_the_gate(ground: Ground, sink: SinkThread) -> None:
    """Eight hands at the same 200 postbacks while they fire: what was delivered was credited once, the rest never."""
    ground.apply(contract("d", generic_url(sink.url), hold={"kind": "refund", "wait": "70s"}))
    ground.take(*(conversion(f"e{number}") for number in range(200)))
    draws = random.Random(7)

    def hand(errand: Errand) -> int:
        ids = draws.sample(range(200), 200)
        answers = [
            each
            for number in range(0, 200, 20)
            for chosen in [Criteria(event_id=f"e{ids[number]}"), Criteria(destination="d")]
            for each in do(ground, errand, Selection(chosen), batch=50)
        ]
        return sum(isinstance(each.decision, Moved) for each in answers)

    errands = [RELEASE, extend(timedelta(seconds=1)), RELEASE, RELEASE, extend(timedelta(seconds=1)), RELEASE]
    with ground.firing() as gun, ThreadPoolExecutor(8) as threads:
        hands = [threads.submit(hand, errand) for errand in errands]
        halves = [Selection(Criteria(event_id=f"e{number}")) for number in range(0, 200, 3)]
        voids = [
            threads.submit(lambda part: [do(ground, VOID, each) for each in part], part)
            for part in (halves[::2], halves[1::2])
        ]
        while not all(each.done() for each in [*hands, *voids]):
            gun.fire_due(limit=20)
        counted = sum(each.result() for each in hands)
        for each in voids:
            each.result()
        ground.run("UPDATE postbacks SET release_at = now(), due_at = now() WHERE state = 'held'")
        gun.fire_until_final()
    states = ground.states()
    assert set(states) <= {"delivered", "voided"}
    assert states["voided"]
    assert sum(states.values()) == 200
    credited = sink.client.credits("generic")
    assert len(credited) == len({credit["order_id"] for credit in credited}) == states["delivered"]
    voids_kept = ground.rows("""
        SELECT p.state, a.detail->>'wish' AS wish FROM audit a JOIN postbacks p ON p.id = a.postback_id
        WHERE a.action = 'postback.void'""")
    assert all(row.state == "voided" or row.wish == "true" for row in voids_kept)
    others = ground.one("SELECT count(*) FROM audit WHERE action IN ('postback.extend', 'postback.release')")
    assert others == counted


# The commands --------------------------------------------------------------------------------------


def test_a_dry_run_counts_by_state_and_changes_nothing(
    ground: Ground, sink: SinkThread, run: Callable[..., Result]
) -> None:
    """What would be done, what would be refused and why; no row, no lock, no audit; and no reason is asked for."""
    ground.apply(contract("a-now", generic_url(sink.url)), contract("b-later", NOWHERE, hold=HOLD))
    ground.take(*(conversion(f"e{number}") for number in range(15)))
    with ground.firing() as gun:
        gun.fire()
    before = ground.rows("SELECT * FROM postbacks ORDER BY id")
    said = run("void", "--source", "shop", "--dry-run")
    assert said.exit_code == 1
    assert said.stdout.splitlines() == [
        "Would void 15: 15 held.",
        "Would refuse 15:",
        (
            "  15 delivered: the network has it: send a refund signal, which corrects it there where the network takes "
            "corrections (pb_1, pb_3, pb_5 and 12 more: --json names them)"
        ),
        "Nothing was changed.",
    ]
    assert (ground.rows("SELECT * FROM postbacks ORDER BY id"), audits(ground)) == (before, [])


def test_one_id_is_told_in_a_sentence(ground: Ground, run: Callable[..., Result]) -> None:
    """A postback, all of a conversion, or an event; who runs it signs unless --as says otherwise."""
    ground.apply(contract("a", NOWHERE, hold=HOLD), contract("b", NOWHERE, hold=HOLD))
    ground.take(conversion("e"), conversion("f"))
    first = run("void", "pb_1", "--reason", "fraud ring")
    assert (first.exit_code, first.stdout) == (0, "pb_1  held → voided: it never fires\nVoided 1: 1 held.\n")
    again = run("void", "cv_1", "--reason", "fraud ring", "--as", "anna")
    assert again.exit_code == 1
    assert "pb_1  voided, refused: it is voided already, by hand" in again.stdout
    assert again.stdout.endswith("Voided 1: 1 held.\nRefused 1.\n")
    assert run("extend", "f", "--destination", "a", "--by", "7d", "--reason", "late parcel").exit_code == 0
    assert [row.who for row in audits(ground)][1:] == ["anna", audits(ground)[0].who]
    assert "@" in audits(ground)[0].who


def test_every_postback_has_its_line_of_json(ground: Ground, run: Callable[..., Result]) -> None:
    """What was done and what was refused, with the state and the window before and after."""
    ground.apply(contract("d", NOWHERE, hold=HOLD))
    ground.take(conversion("e"), conversion("f"))
    run("void", "e", "--reason", "fraud ring")
    said = run("extend", "--destination", "d", "--to", "2099-01-01", "--reason", "late parcel", "--json")
    rows = [json.loads(line) for line in said.stdout.splitlines()]
    assert [(row["id"], row["done"], row["refused"]) for row in rows] == [
        ("pb_1", False, True),
        ("pb_2", True, False),
    ]
    assert rows[1]["to_release_at"] == "2099-01-01T00:00:00+00:00"
    assert said.stderr.startswith("Extended 1: 1 held.\nRefused 1:\n")


def test_nothing_found_is_said_and_exits_1(ground: Ground, run: Callable[..., Result]) -> None:
    """A typo in an id must not look like success."""
    ground.apply(contract("d", NOWHERE, hold=HOLD))
    said = run("release", "pb_7", "--reason", "approved by phone")
    assert (said.exit_code, said.stdout) == (1, "No postback found: nothing was changed.\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["void", "--reason", "x"], "name an ID or a filter"),
        (["void", "pb_1"], "--reason is missing"),
        (["void", "pb_1", "--reason", "  "], "--reason is missing"),
        (["void", "pb_1", "--reason", "x" * 501], "501 characters"),
        (["void", "at_1", "--reason", "x"], "at_1 is no postback"),
        (["void", "one", "--event", "two", "--reason", "x"], "--event names another"),
        (["extend", "pb_1", "--reason", "x"], "one of --by"),
        (["extend", "pb_1", "--by", "1d", "--to", "2099-01-01", "--reason", "x"], "one of --by"),
        (["extend", "pb_1", "--by", "soon", "--reason", "x"], "is no duration"),
        (["extend", "pb_1", "--to", "7d", "--reason", "x"], "is no instant"),
        (["release", "pb_1"], "--reason is missing"),
        (["release", "--destination", "d"], "goes with --due"),
        (["release", "pb_1", "--due", "--reason", "x"], "--due is for a pass"),
        (["release", "--as", "anna"], "go with a release by hand"),
        (["release", "--reason", "x"], "name an ID or a filter"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_done(
    run: Callable[..., Result], arguments: list[str], words: str
) -> None:
    """The option, the reason and what to write instead."""
    said = run(*arguments)
    assert isinstance(said.exception, AskingError), said.output
    assert words in str(said.exception)
