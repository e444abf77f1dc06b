"""Settling by hand what is in doubt: a person asked the network, and says what it said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from infra.store.by_hand import Signature
from infra.store.correcting import FollowUp, after_settling
from infra.store.replays.replay_look import LOCK, Versions, execute
from infra.store.replays.replaying import BATCH, sign
from infra.store.rulings import promote_duplicates
from infra.store.selection import Selection, stretches
from infra.store.transactions import retried
from schemas.lifecycle import State
from schemas.replaying import Refused, Said, Settled, settle

WORDS = {
    Said.DELIVERED: "settled by hand: the network says that it has it",
    Said.NOT_COUNTED: "settled by hand: the network says that it has not counted it",
}


@dataclass(frozen=True, slots=True)
class DoubtAnswer:
    """What became of one postback. ``follow_up``: what is done about what does not stand any more, if anything."""

    postback_id: int
    conversion_id: int
    state: State
    """Before."""
    decision: Settled | Refused
    follow_up: FollowUp | None = None


_READ = "SELECT p.id, p.conversion_id, p.state, p.adjusts FROM postbacks p JOIN conversions c ON c.id = p.conversion_id"

# What the network was told by the attempt whose outcome was unknown is what it was told last.
_DELIVERED = text("""
    UPDATE postbacks SET state = 'delivered', settled_by = :who, reason = :reason, settled_at = clock_timestamp(),
        reported = sending
    WHERE id = ANY(:ids) AND state = 'in_doubt' RETURNING id, state, adjusts, overtaken, void_reason""")

# Nothing of it may have been counted any more, and its place is free: a duplicate takes it, or whoever comes.
_NOT_COUNTED = text("""
    UPDATE postbacks SET state = 'dead', reason = :reason, settled_at = clock_timestamp(), had_unknown = false,
        freed = adjusts IS NULL
    WHERE id = ANY(:ids) AND state = 'in_doubt' RETURNING id, state, adjusts, overtaken, void_reason""")


def settle_by_hand(
    engine: Engine, postback_ids: Sequence[int], said: Said, signature: Signature
) -> list[DoubtAnswer]:
    """Settle these, in one transaction, as the network said: what is delivered counts as delivered from now on, with all
    that signals make of that; what was not counted is dead, and its place is free. Anything else is refused.
    """
    return retried(
        engine,
        lambda connection: _settle(connection, Selection(), list(postback_ids), said, signature),
    )


def settle_all(
    engine: Engine, selection: Selection, said: Said, signature: Signature, last: int
) -> Iterator[list[DoubtAnswer]]:
    """As ``settle_by_hand``, to all that match up to the id ``last``, a batch a transaction; calling it again goes on."""
    for ids in stretches(engine, selection, last, BATCH):

        def run(connection: Connection, ids: list[int] = ids) -> list[DoubtAnswer]:
            return _settle(connection, selection, ids, said, signature)

        if answers := retried(engine, run):
            yield answers


def consider_doubts(
    engine: Engine, selection: Selection, said: Said, last: int
) -> Iterator[list[DoubtAnswer]]:
    """What ``settle_all`` would do now; nothing is changed or locked."""
    for ids in stretches(engine, selection, last, BATCH):
        with engine.connect() as connection:
            yield [_answer(row, said) for row in _rows(connection, selection, ids)]


def _rows(connection: Connection, selection: Selection, ids: list[int]) -> Sequence[Row[Any]]:
    where, values = selection.conditions()
    query = f"{_READ} WHERE p.id = ANY(:ids) AND {where} ORDER BY p.id"
    found: Sequence[Row[Any]] = execute(connection, query, values | {"ids": ids}).all()
    return found


def _answer(row: Row[Any], said: Said) -> DoubtAnswer:
    state = State(row.state)
    return DoubtAnswer(row.id, row.conversion_id, state, settle(state, said))


def _settle(
    connection: Connection, selection: Selection, ids: list[int], said: Said, signature: Signature
) -> list[DoubtAnswer]:
    connection.execute(LOCK, {"ids": ids})
    answers = [_answer(row, said) for row in _rows(connection, selection, ids)]
    doubted = [each.postback_id for each in answers if isinstance(each.decision, Settled)]
    statement = _DELIVERED if said is Said.DELIVERED else _NOT_COUNTED
    given = {"ids": doubted, "reason": WORDS[said], "who": signature.who}
    rows = connection.execute(statement, {name: given[name] for name in statement.compile().params}).all()
    if said is Said.NOT_COUNTED:
        promote_duplicates(connection, sorted(row.id for row in rows if row.adjusts is None))
    followed = after_settling(connection, rows, Versions(connection).read) if rows else {}
    detail = {"reason": signature.reason, "state": State.IN_DOUBT, "said": said}
    sign(
        connection, signature.who, "postback.settle", [{"id": number, "detail": detail} for number in doubted]
    )
    return [
        DoubtAnswer(
            each.postback_id, each.conversion_id, each.state, each.decision, followed.get(each.postback_id)
        )
        for each in answers
    ]
