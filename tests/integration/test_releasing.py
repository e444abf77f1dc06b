"""Release passes: what is due is claimed once, oldest first, by any number of clocks, and by the index alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, text

from infra.store import releasing
from schemas.postback import Lease
from tests.integration.ground import Ground, cleared, contract, conversion, generic_url, signal, until
from workers.releasing import HINTS_WAITING_MAX, PER_LEASE, release_due

HOLD = {"kind": "refund", "wait": "1d"}
URL = generic_url("http://127.0.0.1:9")


@pytest.fixture
def ground(engine: Engine) -> Ground:
    ground = cleared(engine)
    ground.apply(contract("d", URL, hold=HOLD))
    return ground


def put(ground: Ground, count: int, due: str, version_id: int = 1) -> None:
    """``count`` held postbacks of one conversion; ``due`` is SQL in ``n``, the postback's number from 1."""
    ground.run(
        f"""
        WITH c AS (
            INSERT INTO conversions (source, event_id, name, click_ids, occurred_at, routed, event)
            SELECT 'test', 'many-' || (SELECT count(*) FROM conversions), 'purchase', '{{}}', now(), 1, '{{}}'
            RETURNING id)
        INSERT INTO postbacks (conversion_id, version_id, state, release_at, due_at)
        SELECT c.id, :version_id, 'held', {due}, {due} FROM c, generate_series(1, :count) n ORDER BY n""",
        count=count,
        version_id=version_id,
    )


def claim(ground: Ground, limit: int = 1000, **options: Any) -> list[Lease]:
    return releasing.claim(ground.engine, limit=limit, **({"lease_s": 60.0, "per_lease": 200} | options))


def ids(leases: list[Lease]) -> list[int]:
    return [number for lease in leases for number in lease.postback_ids]


def test_nothing_is_claimed_before_its_window_has_passed(ground: Ground) -> None:
    """A postback due in 300 ms is left alone until then, by the database's clock."""
    put(ground, 1, "now() + interval '300 ms'")
    assert claim(ground) == []
    until(lambda: ids(claim(ground)) == [1], 5)
    row = ground.rows("SELECT release_at, due_at - interval '60 s' AS claimed_at FROM postbacks")[0]
    assert row.claimed_at >= row.release_at


def test_the_oldest_is_claimed_first(ground: Ground) -> None:
    """Of ten that are due the three that have been for longest, longest first."""
    put(ground, 10, "now() - n * interval '1 s'")
    assert ids(claim(ground, limit=3)) == [10, 9, 8]


def test_leases_come_in_the_order_of_their_oldest_postback(ground: Ground) -> None:
    """Two destinations in turn: the second part of the first one waits behind the older part of the other."""
    ground.apply(contract("d", URL, hold=HOLD), contract("e", URL, hold=HOLD))
    put(ground, 4, "now() - interval '1 min' - (CASE WHEN n < 3 THEN 9 ELSE 1 END) * interval '1 s'", 1)
    put(ground, 2, "now() - interval '1 min' - interval '5 s'", 2)
    leases = claim(ground, per_lease=2)
    assert [(lease.version_id, lease.postback_ids) for lease in leases] == [
        (1, (1, 2)),
        (2, (5, 6)),
        (1, (3, 4)),
    ]


def test_clocks_side_by_side_never_lease_the_same_postback(ground: Ground) -> None:
    """Four threads claim 2,000 in small bites: each is leased once, under the token its row has."""
    put(ground, 2000, "now() - interval '1 s'")

    def claim_all(_: int) -> list[Lease]:
        found = []
        while leases := claim(ground, limit=70):
            found += leases
        return found

    with ThreadPoolExecutor(4) as threads:
        leases = [lease for found in threads.map(claim_all, range(4)) for lease in found]
    assert sorted(ids(leases)) == list(range(1, 2001))
    tokens = {row.id: row.lease_token for row in ground.rows("SELECT id, lease_token FROM postbacks")}
    assert all(tokens[number] == lease.token for lease in leases for number in lease.postback_ids)


def test_a_void_leaves_nothing_to_claim(ground: Ground) -> None:
    """A postback that came due after its order was cancelled is never leased."""
    ground.take(conversion("e"), conversion("f"))
    ground.take(signal("cancel", "c", "e"))
    ground.run("UPDATE postbacks SET release_at = now(), due_at = now() WHERE state = 'held'")
    assert ids(claim(ground)) == [ground.postback("f").id]


def test_a_lease_that_runs_out_goes_back_where_it_came_from(ground: Ground) -> None:
    """Never attempted is held again and due as before; attempted before is retrying. No attempt is spent."""
    put(ground, 2, "now() - interval '1 s'")
    ground.run("UPDATE postbacks SET state = 'retrying', attempts = 2 WHERE id = 2")
    claim(ground, lease_s=0.2)
    assert releasing.rescue_leased(ground.engine) == 0
    until(lambda: releasing.rescue_leased(ground.engine) == 2, 5)
    rows = ground.rows("SELECT *, due_at <= now() AS due FROM postbacks ORDER BY id")
    assert [(row.state, row.attempts, row.lease_token, row.due) for row in rows] == [
        ("held", 0, None, True),
        ("retrying", 2, None, True),
    ]
    assert rows[0].due_at == rows[0].release_at


def release(ground: Ground, waiting: int = 0) -> tuple[int, list[Lease]]:
    hints: list[Lease] = []
    released = release_due(
        ground.engine,
        hints_waiting=lambda: waiting + len(hints),
        hint=hints.append,
        lease_s=60.0,
    )
    return released, hints


def test_a_pass_goes_on_until_nothing_is_due(ground: Ground) -> None:
    """1,700 due: one pass claims them in several bites, and the next one finds nothing."""
    put(ground, 1700, "now() - interval '1 s'")
    released, hints = release(ground)
    assert (released, sorted(ids(hints))) == (1700, list(range(1, 1701)))
    assert max(len(hint.postback_ids) for hint in hints) <= PER_LEASE
    assert release(ground) == (0, [])


def test_a_pass_stops_when_enough_hints_wait(ground: Ground) -> None:
    """What is claimed beyond what can be fired soon would only grow old: the rest stays due."""
    put(ground, (HINTS_WAITING_MAX + 3) * PER_LEASE, "now() - n * interval '1 ms'")
    assert release(ground, waiting=HINTS_WAITING_MAX) == (0, [])
    released, hints = release(ground)
    assert (released, len(hints)) == (HINTS_WAITING_MAX * PER_LEASE, HINTS_WAITING_MAX)
    assert ground.states() == {"leased": released, "held": 3 * PER_LEASE}


@pytest.fixture
def crowd(ground: Ground) -> Iterator[Ground]:
    """50,000 held for a day yet, 200 due, 200 whose leases ran out; statistics as autovacuum keeps them."""
    put(ground, 50_000, "now() + interval '1 d'")
    put(ground, 200, "now() - interval '1 s'")
    put(ground, 200, "now() - interval '1 s'")
    ground.run("UPDATE postbacks SET state = 'leased', lease_token = 1 WHERE id > 50200")
    ground.run("ANALYZE postbacks")
    yield ground
    ground.run("TRUNCATE postbacks CASCADE")


@pytest.mark.parametrize(
    ("name", "values"),
    [("_CLAIM", {"limit": 800, "token": 1, "lease_s": 15.0}), ("_RESCUE_LEASED", {"limit": 1000})],
)
def test_what_is_due_is_found_by_its_index_whatever_is_held(
    name: str, values: dict[str, Any], crowd: Ground
) -> None:
    """The plan reads ``postbacks_due_at`` for what is due, and never walks the table."""
    statement = text(f"EXPLAIN (FORMAT JSON, ANALYZE) {getattr(releasing, name).text}")
    with crowd.engine.connect() as connection:
        plan = json.dumps(connection.execute(statement, values).scalar_one())
        connection.rollback()
    assert "postbacks_due_at" in plan
    assert "Seq Scan" not in plan
    rows_read = max(int(part.split(",")[0].split(".")[0]) for part in plan.split('"Actual Rows": ')[1:])
    assert rows_read <= 400
