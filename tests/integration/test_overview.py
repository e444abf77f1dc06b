"""The overview's figures against a slow truth, and the tallies behind them while attempts come and go."""

from __future__ import annotations

import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from infra.store import overview
from infra.store.overview import DestinationOverview, read_overview
from infra.store.stopping import stopping
from infra.store.tallying import count_states, tally
from schemas.exchange import Failure, FailureKind
from schemas.lifecycle import State
from schemas.verdict import VerdictKind
from tests.integration.ground import Ground, cleared
from tests.integration.scenes import Scene, contract, conversion
from tests.integration.searchable import add, prepare
from workers.tallying import keep_count

REFUSED = Failure(FailureKind.CONNECT, sent=False, error_class="ConnectError", message="refused")
NOTHING_COUNTED = """TRUNCATE tallies, latenesses, state_counts;
    UPDATE tallied SET attempt_id = 0, candidate_id = 0, candidate_xid = '0', counted_at = NULL, took_ms = 0"""


@pytest.fixture
def ground(engine: Engine) -> Ground:
    ground = cleared(engine)
    ground.run(NOTHING_COUNTED)
    ground.run("ALTER SEQUENCE attempt_ids RESTART")
    return ground


def by_name(engine: Engine, **how: int) -> dict[str, DestinationOverview]:
    return {each.destination: each for each in read_overview(engine, **how).destinations}


def recent(ground: Ground, count: int = 400) -> None:
    """Conversions of the last hours, and their attempts since."""
    prepare(ground)
    since = ground.one("SELECT now() - interval '20 hours'")
    add(ground, "r", count, since.isoformat())
    ground.run(
        "UPDATE postbacks SET state = 'dead', due_at = NULL, lease_token = NULL WHERE state = 'firing'"
    )


def count_up(engine: Engine) -> int:
    """Passes until nothing is left to count."""
    return sum(iter(lambda: keep_count(engine), 0), 0) + keep_count(engine)


def truth(ground: Ground, what: str) -> Counter[tuple[str, str]]:
    rows = ground.rows(
        f"""SELECT v.destination, {what} AS what, count(*) AS n FROM attempts a JOIN destination_versions v ON v.id = a.version_id
        WHERE a.intent_at >= date_bin('30 minutes', now() - interval '24 hours', 'epoch') GROUP BY 1, 2"""
    )
    return Counter({(row.destination, row.what): row.n for row in rows})


def seen(engine: Engine) -> Counter[tuple[str, str]]:
    return Counter(
        {(name, kind.value): n for name, each in by_name(engine).items() for kind, n in each.attempts.items()}
    )


@pytest.mark.parametrize("counted", ["not at all", "in part", "whole"])
def test_every_figure_is_what_counting_all_rows_gives(counted: str, ground: Ground) -> None:
    """Whether the tallies have everything, nothing or a part, and the same is never counted twice."""
    recent(ground)
    if counted != "not at all":
        tally(ground.engine)
        keep_count(ground.engine)
    if counted == "in part":
        recent_since = ground.one("SELECT now() - interval '6 hours'")
        add(ground, "s", 60, recent_since.isoformat())
    assert seen(ground.engine) == truth(ground, "a.verdict")
    assert bool(ground.one("SELECT count(*) FROM tallies")) == (counted != "not at all")
    states = ground.rows(
        """SELECT v.destination, p.state, count(*) AS n FROM postbacks p
        JOIN destination_versions v ON v.id = p.version_id GROUP BY 1, 2"""
    )
    found = by_name(ground.engine)
    assert {(name, state): n for name, each in found.items() for state, n in each.states.items()} == {
        (row.destination, row.state): row.n for row in states
    }
    for name, each in found.items():
        assert sum(sum(bucket.attempts.values()) for bucket in each.buckets) == sum(each.attempts.values())
        ended = truth(ground, "a.state")
        whole = sum(
            n for (destination, state), n in ended.items() if destination == name and state != "retrying"
        )
        assert each.success_share == pytest.approx(ended[name, "delivered"] / whole)


def test_lateness_is_the_truth_within_its_grades(ground: Ground) -> None:
    """From the end of the window to the first attempt: nearest rank, within 5 %."""
    recent(ground)
    ground.run(
        "UPDATE postbacks p SET release_at = (SELECT min(intent_at) FROM attempts a WHERE a.postback_id = p.id) - id * interval '37 milliseconds' WHERE attempts > 0"
    )
    exact = [
        row.late
        for row in ground.rows(
            """SELECT extract(epoch FROM a.intent_at - p.release_at)::float AS late FROM attempts a
            JOIN postbacks p ON p.id = a.postback_id JOIN destination_versions v ON v.id = a.version_id
            WHERE a.number = 1 AND v.destination = 'first' ORDER BY 1"""
        )
    ]
    for _ in range(2):
        late = by_name(ground.engine)["first"].lateness
        assert late is not None
        assert late.attempts == len(exact)
        for share, found in ((0.50, late.p50_s), (0.95, late.p95_s), (0.99, late.p99_s)):
            assert found == pytest.approx(exact[math.ceil(share * len(exact)) - 1], rel=0.051)
        count_up(ground.engine)


def test_what_was_received_after_its_window_is_late_since_the_receipt(ground: Ground) -> None:
    """A producer that sends old events does not make the network look late."""
    scene = Scene(ground.engine)
    scene.apply(contract("push-eu"))
    scene.take(conversion("old", "push"))
    scene.run("UPDATE postbacks SET release_at = now() - interval '10 days'")
    scene.settle(scene.fire_one("old"))
    for _ in range(2):
        late = by_name(ground.engine)["push-eu"].lateness
        assert late is not None
        assert late.p99_s < 60
        count_up(ground.engine)


def test_an_attempt_on_the_wire_is_counted_when_it_has_ended(ground: Ground) -> None:
    """The watermark waits for it, and for nothing behind it; ids of attempts end in any order."""
    scene = Scene(ground.engine)
    scene.apply(contract("push-eu"))
    scene.take(*(conversion(f"e{n}", "push") for n in range(3)))
    first, second, third = scene.fire()
    scene.settle(third)
    scene.settle(second)
    count_up(ground.engine)
    assert ground.one("SELECT coalesce(sum(attempts), 0) FROM tallies") == 0
    assert by_name(ground.engine)["push-eu"].attempts == {VerdictKind.DELIVERED: 2}
    scene.settle(first)
    count_up(ground.engine)
    assert ground.one("SELECT sum(attempts) FROM tallies") == 3
    assert by_name(ground.engine)["push-eu"].attempts == {VerdictKind.DELIVERED: 3}


def test_a_number_drawn_by_a_transaction_that_is_open_is_waited_for(ground: Ground) -> None:
    """It may become an attempt when that commits; until then the watermark stays before it."""
    scene = Scene(ground.engine)
    scene.apply(contract("push-eu"))
    scene.take(conversion("e1", "push"))
    with ground.engine.connect() as gate:
        gate.execute(text("SELECT id FROM postbacks FOR UPDATE"))
        drawn = gate.execute(text("SELECT nextval('attempt_ids')")).scalar_one()
        for _ in range(3):
            keep_count(ground.engine)
        assert ground.one("SELECT attempt_id FROM tallied") < drawn
        gate.rollback()
    count_up(ground.engine)
    assert ground.one("SELECT attempt_id FROM tallied") == drawn


def test_many_who_count_at_once_count_each_attempt_once(ground: Ground) -> None:
    """Any number of clocks may tick."""
    recent(ground)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: tally(ground.engine, batch=7), range(300)))
    count_up(ground.engine)
    assert ground.one("SELECT sum(attempts) FROM tallies") == ground.one("SELECT count(*) FROM attempts")


def test_what_is_overdue_and_what_is_to_be_retried_is_shown(ground: Ground) -> None:
    """Overdue since when, and how many retries the next hour brings; what a stopped destination keeps waiting is not late."""
    scene = Scene(ground.engine)
    scene.apply(contract("push-eu"), contract("push-us", wait="1h"))
    scene.take(*(conversion(f"e{n}", "push") for n in range(3)))
    failed = scene.fire()[0]
    now = failed.gated.now
    scene.settle(
        failed, State.RETRYING, VerdictKind.RETRY, "connect before anything was sent", hops=(),
        next_attempt_at=now + timedelta(minutes=10), delay_s=600.0, error_class="ConnectError",
    )  # fmt: skip
    ground.run(
        "UPDATE postbacks SET state = 'held', lease_token = NULL, attempts = 0, due_at = now() - id * interval '1 minute' WHERE state = 'firing'"
    )
    found = by_name(ground.engine)
    overdue = ground.rows("SELECT id FROM postbacks WHERE due_at <= now()")
    assert sum(each.overdue for each in found.values()) == len(overdue)
    oldest = max(each.oldest_overdue_s or 0 for each in found.values())
    assert oldest == pytest.approx(60 * max(row.id for row in overdue), abs=5)
    assert sum(each.retries_due for each in found.values()) == 1
    stopping.pause(ground.engine, "push-eu", "ana", "their tracker is down")
    stop = by_name(ground.engine)["push-eu"].stop
    assert stop is not None
    assert (stop.kind, stop.who) == ("paused", "ana")


def test_states_of_many_are_those_of_the_last_count(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is said as of when that was; the next count comes no sooner than it may."""
    monkeypatch.setattr(overview, "COUNTED_LIVE", 10)
    recent(ground, 60)
    assert count_states(ground.engine)
    counted = read_overview(ground.engine)
    before = counted.destinations[0].states
    ground.run(
        "UPDATE postbacks SET state = 'expired', due_at = NULL, lease_token = NULL, duplicate_of = NULL"
    )
    again = read_overview(ground.engine)
    assert again.destinations[0].states == before
    assert again.states_at < again.at
    assert not count_states(ground.engine)
    assert count_states(ground.engine, every_s=0)
    assert set(read_overview(ground.engine).destinations[0].states) == {State.EXPIRED}


def test_attempts_that_nobody_has_tallied_yet_are_counted_up_to_a_bound(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a clock the figures end somewhere, and it is said where."""
    recent(ground)
    assert read_overview(ground.engine).counted_to is None
    monkeypatch.setattr(overview, "UNTALLIED", 100)
    behind = read_overview(ground.engine)
    assert behind.counted_to is not None
    assert behind.counted_to < ground.one("SELECT max(intent_at) FROM attempts")
    assert sum(sum(each.attempts.values()) for each in behind.destinations) <= 100
    count_up(ground.engine)
    assert read_overview(ground.engine).counted_to is None


@pytest.mark.parametrize("hours", [0, -1, 24 * 31 + 1])
def test_a_span_that_is_not_kept_is_refused(hours: int, ground: Ground) -> None:
    with pytest.raises(ValueError, match="cannot be shown"):
        read_overview(ground.engine, hours=hours)


def test_without_destinations_there_is_nothing_to_show(ground: Ground) -> None:
    """A new installation has a page, too."""
    assert read_overview(ground.engine).destinations == ()
