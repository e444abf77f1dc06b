"""The ledger: every sum counted twice, in different tables, as of one instant.

Each entry is a statement with two sides that must be equal. The left side is what was written down when it
happened, the right side is what stands in the tables now; a row that vanished, came from nowhere or was moved by
hand makes them differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from infra.db.snapshot import snapshot
from schemas.lifecycle import State
from schemas.network import ADJUSTMENT_KINDS, AdjustmentKind

LONGEST_COUNT_S = 1800.0
"""Counting all evidence takes its time; nobody waits for it but the reader."""


@dataclass(frozen=True, slots=True)
class Term:
    """One number of an equation, and what it counts."""

    label: str
    count: int


@dataclass(frozen=True, slots=True)
class Entry:
    """``left`` and the sum of ``right`` must be equal. ``key`` is stable, ``says`` is for people."""

    key: str
    says: str
    left: Term
    right: tuple[Term, ...]
    never: bool = False
    """Whether it counts what must not be: the left side is zero."""

    @property
    def difference(self) -> int:
        """Left less right: positive when something is missing on the right."""
        return self.left.count - sum(term.count for term in self.right)

    @property
    def balances(self) -> bool:
        return self.difference == 0


@dataclass(frozen=True, slots=True)
class Amount:
    """What the postbacks of one state are worth in one currency, adjustments left out: they report nothing of their own.

    ``net``: what is left of it to report: after partial refunds, and nothing once it is refunded, voided, retracted, or
    would be retracted if the network took that."""

    currency: str
    state: State
    postbacks: int
    value: Decimal
    net: Decimal


@dataclass(frozen=True, slots=True)
class Adjusted:
    """How many adjustments of one kind stand in one state."""

    kind: AdjustmentKind
    state: State
    postbacks: int


@dataclass(frozen=True, slots=True)
class Loss:
    """What networks show that does not stand, and cannot be told, in one currency.

    ``currency`` None: without an amount, for the network was never told a value.
    """

    currency: str | None
    postbacks: int
    too_much: Decimal
    too_little: Decimal


@dataclass(frozen=True, slots=True)
class Ledger:
    """The books as of ``at``, by the database's clock."""

    at: datetime
    entries: tuple[Entry, ...]
    states: tuple[tuple[State, int], ...]
    amounts: tuple[Amount, ...]
    adjustments: tuple[Adjusted, ...]
    losses: tuple[Loss, ...]

    @property
    def balances(self) -> bool:
        return all(entry.balances for entry in self.entries)


_ARRIVALS = """
    SELECT now() AS at,
        (SELECT coalesce(sum(events), 0) FROM receipts)::bigint AS events,
        (SELECT coalesce(sum((counts->>'events')::bigint), 0) FROM pruned)::bigint AS dropped_events,
        (SELECT coalesce(sum((counts->>'duplicates')::bigint), 0) FROM pruned)::bigint AS dropped_duplicates,
        (SELECT coalesce(sum((counts->>'rejected')::bigint), 0) FROM pruned)::bigint AS dropped_rejected,
        c.conversions, c.routed, c.unrouted, c.planned,
        (SELECT count(*) FROM signals) AS signals,
        r.duplicates, r.rejected
    FROM (SELECT count(*) AS conversions, count(*) FILTER (WHERE routed > 0) AS routed,
            count(*) FILTER (WHERE unrouted_reason IS NOT NULL) AS unrouted,
            coalesce(sum(routed), 0)::bigint AS planned FROM conversions) c,
        (SELECT count(*) FILTER (WHERE code = 'duplicate') AS duplicates,
            count(*) FILTER (WHERE code <> 'duplicate') AS rejected FROM rejects) r"""

# Each original counts the adjustments that were ordered of it; each adjustment is a row of its own.
_POSTBACKS = """
    SELECT state, adjustment, count(*) AS postbacks, sum(attempts)::bigint AS attempts,
        sum(adjustments)::bigint AS ordered, sum(archived)::bigint AS archived,
        sum(archived_checks)::bigint AS archived_checks
    FROM postbacks GROUP BY state, adjustment"""

_AMOUNTS = """
    SELECT c.currency, p.state, count(*) AS postbacks, sum(c.value) AS value,
        sum(CASE WHEN p.state = 'voided' THEN 0
            WHEN p.lost IS NOT NULL
                THEN CASE WHEN p.retracted_at IS NULL THEN coalesce(p.reported, c.value) ELSE 0 END - p.lost
            WHEN p.lost_at IS NOT NULL OR p.retracted_at IS NOT NULL THEN 0 ELSE c.net_value END) AS net
    FROM postbacks p JOIN conversions c ON c.id = p.conversion_id
    WHERE c.value IS NOT NULL AND p.adjusts IS NULL GROUP BY c.currency, p.state"""

_LOSSES = """
    SELECT CASE WHEN p.lost IS NOT NULL THEN c.currency END AS currency, count(*) AS postbacks,
        coalesce(sum(p.lost) FILTER (WHERE p.lost > 0), 0) AS too_much,
        coalesce(-sum(p.lost) FILTER (WHERE p.lost < 0), 0) AS too_little
    FROM postbacks p JOIN conversions c ON c.id = p.conversion_id
    WHERE p.lost_at IS NOT NULL GROUP BY 1 ORDER BY 1"""

# What stands of it, or what it had come to when it was put back or another run took it up.
_REPLAYS = """
    SELECT coalesce(r.came_to, p.state) AS came_to, count(*) AS postbacks
    FROM replays r JOIN postbacks p ON p.id = r.postback_id WHERE r.refused IS NULL GROUP BY 1 ORDER BY 1"""

_ATTEMPTS = """
    SELECT (SELECT count(*) FROM intents) AS intents,
        (SELECT count(*) FROM attempts) AS settled,
        (SELECT count(*) FROM postbacks p JOIN intents i ON i.attempt_id = p.attempt_id AND i.postback_id = p.id
         WHERE p.state = 'firing'
            AND NOT EXISTS (SELECT FROM attempts a WHERE a.id = i.attempt_id AND a.intent_at = i.intent_at)) AS open"""

_ARCHIVES = """
    SELECT coalesce(sum(attempts + checks), 0)::bigint AS written, coalesce(sum(gone_intents), 0)::bigint AS gone_intents,
        coalesce(sum(gone_attempts), 0)::bigint AS gone_attempts FROM archives"""

# What was wrong already when rows left for an archive; the tables cannot say it any more.
_WRONG = """
    SELECT w.key, sum(w.value::bigint)::bigint AS found FROM archives a, jsonb_each_text(a.wrong) w
    WHERE a.gone_at IS NOT NULL GROUP BY w.key"""

# Each counts what must not be.
_NEVER = (
    (
        "delivered_without_attempt",
        "delivered, but no attempt was answered so, and no person signed that it is",
        # Of one whose attempts are in archives the counts of the archives answer.
        """SELECT count(*) FROM postbacks p WHERE p.state = 'delivered' AND p.archived = 0 AND NOT EXISTS (
        SELECT FROM attempts a WHERE a.postback_id = p.id AND a.state = 'delivered')
        AND (p.settled_by IS NULL OR NOT EXISTS (
            SELECT FROM audit s WHERE s.postback_id = p.id AND s.action = 'postback.settle' AND s.who = p.settled_by))""",
    ),
    (
        "fired_again_unsigned",
        "attempts by a replay that nobody signed",
        """SELECT count(*) FROM attempts a WHERE a.trigger = 'replay' AND NOT EXISTS (
        SELECT FROM audit s WHERE s.postback_id = a.postback_id AND s.action = 'postback.replay'
            AND s.at <= a.intent_at)""",
    ),
    (
        "voided_but_delivered",
        "voided, but an attempt had delivered it",
        """SELECT count(*) FROM postbacks p WHERE p.state = 'voided' AND EXISTS (
        SELECT FROM attempts a WHERE a.postback_id = p.id AND (a.verdict = 'delivered' OR a.state = 'delivered'))""",
    ),
    (
        "fired_after_void",
        "fired after it was voided",
        """SELECT count(*) FROM postbacks p JOIN intents i ON i.postback_id = p.id
        WHERE p.state = 'voided' AND i.intent_at > p.settled_at""",
    ),
    (
        "fired_early",
        "fired before its window ended",
        "SELECT count(*) FROM intents i JOIN postbacks p ON p.id = i.postback_id WHERE i.intent_at < p.release_at",
    ),
    (
        "duplicate_fired",
        "duplicates that were fired as such",
        # One that was fired, voided and brought back is a duplicate from then on.
        """SELECT count(*) FROM postbacks p JOIN intents i ON i.postback_id = p.id
        WHERE p.state = 'duplicate' AND i.intent_at > p.settled_at""",
    ),
    (
        "adjusted_undelivered",
        "adjustments of what was not delivered",
        """SELECT count(*) FROM postbacks a LEFT JOIN postbacks p ON p.id = a.adjusts
        WHERE a.adjusts IS NOT NULL AND (p.state IS DISTINCT FROM 'delivered' OR p.adjusts IS NOT NULL)""",
    ),
    (
        "adjusted_twice_at_once",
        "postbacks with two adjustments open",
        """SELECT count(*) FROM (SELECT adjusts FROM postbacks
        WHERE adjusts IS NOT NULL AND state IN ('held', 'leased', 'firing', 'retrying')
        GROUP BY adjusts HAVING count(*) > 1) twice""",
    ),
    (
        "lost_undelivered",
        "losses of what was not delivered",
        """SELECT count(*) FROM postbacks
        WHERE lost_at IS NOT NULL AND (state <> 'delivered' OR adjusts IS NOT NULL)""",
    ),
)


def read_ledger(engine: Engine) -> Ledger:
    """Take the balance. It holds at every instant, also while everything runs."""
    with snapshot(engine, timeout_s=LONGEST_COUNT_S, months=True) as connection:
        arrivals = connection.execute(text(_ARRIVALS)).one()
        counted = connection.execute(text(_POSTBACKS)).all()
        wrong = {row.key: row.found for row in connection.execute(text(_WRONG))}
        states = tuple((state, _postbacks(counted, state)) for state in State)
        adjustments = tuple(
            Adjusted(kind, state, found)
            for kind in ADJUSTMENT_KINDS
            for state in State
            if (found := _postbacks(counted, state, kind))
        )
        entries = (
            *_arrival_entries(arrivals),
            *_postback_entries(arrivals.planned, sum(row.ordered for row in counted), states, adjustments),
            *_attempt_entries(connection, counted),
            *_replay_entries(connection),
            *(_never(connection, *each, wrong.get(each[0], 0)) for each in _NEVER),
        )
        losses = tuple(Loss(**row._mapping) for row in connection.execute(text(_LOSSES)))
        return Ledger(arrivals.at, entries, states, _amounts(connection), adjustments, losses)


def _postbacks(counted: Sequence[Row[Any]], state: State, kind: AdjustmentKind | None = None) -> int:
    """Those in a state: all, or the adjustments of a kind."""
    return sum(row.postbacks for row in counted if row.state == state and kind in {None, row.adjustment})


def _arrival_entries(arrivals: Row[Any]) -> tuple[Entry, Entry]:
    kept = (
        Term("conversions", arrivals.conversions),
        Term("signals", arrivals.signals),
        Term("duplicates", arrivals.duplicates + arrivals.dropped_duplicates),
        Term("rejected", arrivals.rejected + arrivals.dropped_rejected),
    )
    routed = (Term("routed", arrivals.routed), Term("unrouted", arrivals.unrouted))
    taken = arrivals.events + arrivals.dropped_events
    return (
        Entry("events", "every event is kept", Term("events taken in, by receipt", taken), kept),
        Entry(
            "conversions",
            "every conversion is routed, or says why not",
            Term("conversions", arrivals.conversions),
            routed,
        ),
    )


def _postback_entries(
    planned: int, ordered: int, states: Sequence[tuple[State, int]], adjustments: Sequence[Adjusted]
) -> tuple[Entry, Entry]:
    kinds = tuple(Term(f"{each.kind}, {each.state}", each.postbacks) for each in adjustments)
    return (
        Entry(
            "postbacks",
            "every postback that was planned or ordered stands in one state",
            Term("postbacks planned by routing, and adjustments ordered", planned + ordered),
            tuple(Term(state.value, count) for state, count in states),
        ),
        Entry(
            "adjustments",
            "every adjustment that was ordered is there",
            Term("adjustments ordered of delivered postbacks", ordered),
            kinds or (Term("adjustments", 0),),
        ),
    )


def _never(connection: Connection, key: str, says: str, query: str, archived: int) -> Entry:
    found = connection.execute(text(query)).scalar_one()
    terms = (Term("found", found), Term("found when it was archived", archived))
    return Entry(key, says, Term("must be", 0), terms if archived else terms[:1], never=True)


def _attempt_entries(connection: Connection, counted: Sequence[Row[Any]]) -> tuple[Entry, ...]:
    row, gone = connection.execute(text(_ATTEMPTS)).one(), connection.execute(text(_ARCHIVES)).one()
    in_archives = (Term("in archives", gone.gone_attempts),) if gone.written else ()
    ended = (Term("recorded with their outcome", row.settled), *in_archives, Term("on the wire", row.open))
    marked = sum(each.archived + each.archived_checks for each in counted)
    archives = Entry(
        "archives",
        "every attempt and check in an archive is known to its postback",
        Term("attempts and checks in archives", gone.written),
        (Term("counted by postbacks", marked),),
    )
    return (
        Entry(
            "attempts",
            "every attempt is recorded",
            Term("attempts counted by postbacks", sum(each.attempts for each in counted)),
            ended,
        ),
        Entry(
            "intents",
            "every intent has an outcome, or is on the wire",
            Term(
                "intents, those in archives too" if gone.written else "intents",
                row.intents + gone.gone_intents,
            ),
            ended,
        ),
        *((archives,) if gone.written or marked else ()),
    )


def _replay_entries(connection: Connection) -> tuple[Entry, Entry]:
    runs = "SELECT coalesce(sum(moved), 0)::bigint AS moved, coalesce(sum(refused), 0)::bigint AS refused FROM replay_runs"
    sums = connection.execute(text(runs)).one()
    came_to = tuple(Term(row.came_to, row.postbacks) for row in connection.execute(text(_REPLAYS)))
    refused = connection.execute(text("SELECT count(*) FROM replays WHERE refused IS NOT NULL")).scalar_one()
    return (
        Entry(
            "replays",
            "every postback that a person fires again comes to something",
            Term("postbacks moved, by run", sums.moved),
            came_to or (Term("replays", 0),),
        ),
        Entry(
            "replays_refused",
            "every postback that is not fired again says why not",
            Term("postbacks refused, by run", sums.refused),
            (Term("refusals with a reason", refused),),
        ),
    )


def _amounts(connection: Connection) -> tuple[Amount, ...]:
    rows = [
        Amount(row.currency, State(row.state), row.postbacks, row.value, row.net)
        for row in connection.execute(text(_AMOUNTS))
    ]
    order = list(State)
    return tuple(sorted(rows, key=lambda amount: (amount.currency, order.index(amount.state))))
