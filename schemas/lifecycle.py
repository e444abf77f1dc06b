"""The states of a postback, the moves between them, and what to do once an attempt has its verdict.

The table is the machine: the database's CHECK constraint and the diagram in the README are tested against
it. Nothing here does anything; ``decide`` says what should be done and the firing shell does it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from schemas.backoff import RetryPolicy, delay
from schemas.verdict import Dedupe, Verdict, VerdictKind


class State(StrEnum):
    """Where a postback stands. Each says who moves it on."""

    HELD = "held"
    """Its window is open. The release clock leases it when it is due; a signal voids it."""
    LEASED = "leased"
    """Due and claimed for a worker until ``leased_until``. The fire gate moves it on; rescue takes it back."""
    FIRING = "firing"
    """The attempt's intent is recorded; bytes may be on the wire. Only the settling worker or rescue moves it."""
    RETRYING = "retrying"
    """The last attempt failed in a way worth repeating at ``next_attempt_at``. Moved like ``held``."""
    DELIVERED = "delivered"
    """The network answered as its success rule asks. Not yet proof that it counted it."""
    REJECTED = "rejected"
    """The network refused for good, or the postback cannot be rendered for it. A person may replay."""
    DEAD = "dead"
    """Attempts or horizon exhausted. A person may replay."""
    VOIDED = "voided"
    """A refund, decline, chargeback or cancel came first: it never fires."""
    EXPIRED = "expired"
    """The network's age limit passed before it could fire."""
    IN_DOUBT = "in_doubt"
    """Sent, answer unknown, and the network would count a second one twice. A person decides."""
    DUPLICATE = "duplicate"
    """The network would count it twice, so it never fires; it names the first."""


class Move(StrEnum):
    """Why a postback changes state."""

    CLAIM = "claim"
    GATE = "gate"
    DEFER = "defer"
    RESCUE = "rescue"
    VOID = "void"
    EXPIRE = "expire"
    DELIVER = "deliver"
    RETRY = "retry"
    REJECT = "reject"
    EXHAUST = "exhaust"
    DOUBT = "doubt"
    PROMOTE = "promote"
    REINSTATE = "reinstate"
    REPLAY = "replay"
    SETTLE = "settle"
    RETURN = "return"


PERSONAL = frozenset({Move.REPLAY, Move.SETTLE})
"""Moves that a person alone makes."""


TABLE: dict[State, dict[Move, frozenset[State]]] = {
    State.HELD: {
        Move.CLAIM: frozenset({State.LEASED}),
        Move.VOID: frozenset({State.VOIDED}),
        Move.EXPIRE: frozenset({State.EXPIRED}),
        # Fired again by a person who changed their mind before it fired: it is again what it was. See RETRYING.
        Move.RETURN: frozenset({State.REJECTED, State.EXPIRED}),
    },
    State.LEASED: {
        Move.GATE: frozenset({State.FIRING}),
        # Back where it came from: never attempted is held, attempted before is retrying.
        Move.DEFER: frozenset({State.HELD, State.RETRYING}),
        Move.RESCUE: frozenset({State.HELD, State.RETRYING}),
        Move.VOID: frozenset({State.VOIDED}),
        Move.EXPIRE: frozenset({State.EXPIRED}),
        # Found unfireable at the gate: a secret is gone, or a setting its template needs.
        Move.REJECT: frozenset({State.REJECTED}),
        Move.RETURN: frozenset({State.DELIVERED, State.REJECTED, State.DEAD, State.EXPIRED, State.IN_DOUBT}),
    },
    State.FIRING: {
        Move.DELIVER: frozenset({State.DELIVERED}),
        Move.RETRY: frozenset({State.RETRYING}),
        Move.REJECT: frozenset({State.REJECTED}),
        Move.EXHAUST: frozenset({State.DEAD}),
        Move.DOUBT: frozenset({State.IN_DOUBT}),
        # A signal came while the attempt was on the wire, and the attempt failed: no further one is made.
        Move.VOID: frozenset({State.VOIDED}),
        # Fired again although it had been delivered: whatever comes of that, the network has it.
        Move.RETURN: frozenset({State.DELIVERED}),
    },
    State.RETRYING: {
        Move.CLAIM: frozenset({State.LEASED}),
        Move.VOID: frozenset({State.VOIDED}),
        Move.EXHAUST: frozenset({State.DEAD}),
        Move.EXPIRE: frozenset({State.EXPIRED}),
        # A replay comes to nothing before it fires. A person stops its run: it is again what it was. Or a signal takes its
        # conversion back: what the network has, or may have, does not become voided, for there it is to be corrected, or
        # in doubt still.
        Move.RETURN: frozenset({State.DELIVERED, State.REJECTED, State.DEAD, State.EXPIRED, State.IN_DOUBT}),
    },
    # A person fires again: what the network refused or never took, what it ignores for its age, what may have been
    # counted, and what was; the last three only by force, and what is voided or a duplicate never. See
    # schemas/replaying.py, which decides.
    State.DELIVERED: {Move.REPLAY: frozenset({State.RETRYING})},
    State.REJECTED: {Move.REPLAY: frozenset({State.HELD, State.RETRYING})},
    State.DEAD: {Move.REPLAY: frozenset({State.RETRYING})},
    # What voided it was withdrawn: a dispute was won, a decision revised. It goes on where it was with what is left of
    # its window and horizon; or another one has taken its place meanwhile. Moved by the signal's transaction.
    State.VOIDED: {
        Move.REINSTATE: frozenset({State.HELD, State.RETRYING, State.DEAD, State.DUPLICATE}),
    },
    State.EXPIRED: {Move.REPLAY: frozenset({State.HELD, State.RETRYING})},
    # A person asked the network: it has it, or it has not and nobody fires again by itself.
    State.IN_DOUBT: {
        Move.SETTLE: frozenset({State.DELIVERED, State.DEAD}),
        Move.REPLAY: frozenset({State.RETRYING}),
    },
    # The first it names was voided or expired before it fired: then it is no duplicate any more, and waits out its
    # own window. Moved by the transaction that ends the first, never by a worker or clock.
    State.DUPLICATE: {Move.PROMOTE: frozenset({State.HELD})},
}

FINAL = frozenset(State) - {State.HELD, State.LEASED, State.FIRING, State.RETRYING}
"""States in which a postback waits for nothing: no worker and no clock ever moves it on."""
VOIDABLE = frozenset(
    state for state, moves in TABLE.items() if Move.VOID in moves and state is not State.FIRING
)
"""States in which a signal voids at once; in ``firing`` the wish is kept until the attempt is settled."""


def mermaid() -> str:
    """The table as a Mermaid state diagram: an arrow a pair of states, labelled with the moves along it."""
    moves: dict[tuple[State, State], list[Move]] = {}
    for state, exits in TABLE.items():
        for move, targets in exits.items():
            for target in sorted(targets, key=list(State).index):
                moves.setdefault((state, target), []).append(move)
    arrows = [f"    {state} --> {target}: {', '.join(reasons)}" for (state, target), reasons in moves.items()]
    # A postback begins held; or at once as what it will stay, when it is a repeat or cannot be rendered.
    starts = [f"    [*] --> {state}" for state in (State.HELD, State.DUPLICATE, State.REJECTED)]
    return "\n".join(["stateDiagram-v2", *starts, *arrows])


def came_from(attempts_made: int) -> State:
    """Where a lease returns to: a postback never attempted is held, any other is retrying."""
    return State.RETRYING if attempts_made else State.HELD


@dataclass(frozen=True, slots=True)
class Fired:
    """What ``decide`` needs to know of a postback whose attempt just ended."""

    attempt: int
    """Number of the attempt that ended, from 1; of one that a person fired again, from 1 since then."""
    first_attempt_at: datetime
    """The first of those."""
    retry: RetryPolicy
    dedupe: Dedupe
    had_unknown: bool = False
    """Whether an earlier attempt ended with its outcome unknown."""
    expires_at: datetime | None = None
    """End of the network's age limit."""


@dataclass(frozen=True, slots=True)
class Settle:
    """The postback is done: ``delivered``, ``rejected`` or ``dead``."""

    state: State
    reason: str


@dataclass(frozen=True, slots=True)
class Reschedule:
    """Another attempt at ``next_attempt_at``."""

    next_attempt_at: datetime
    delay: timedelta
    reason: str


@dataclass(frozen=True, slots=True)
class AskAPerson:
    """Firing again could count twice; not firing could count nothing. Only a person can tell."""

    reason: str


Decision = Settle | Reschedule | AskAPerson


def decide(fired: Fired, verdict: Verdict, now: datetime, draw: float) -> Decision:
    """What becomes of a postback, total over every verdict. ``draw`` is uniform in [0, 1)."""
    match verdict.kind:
        case VerdictKind.DELIVERED:
            return Settle(State.DELIVERED, verdict.rule)
        case VerdictKind.DUPLICATE if fired.had_unknown:
            return Settle(
                State.DELIVERED, f"{verdict.rule}: the attempt with the unknown outcome was counted"
            )
        case VerdictKind.REJECTED | VerdictKind.DUPLICATE:
            return Settle(State.REJECTED, verdict.rule)
        case VerdictKind.IN_DOUBT:
            return AskAPerson(verdict.rule)
        case VerdictKind.UNKNOWN if fired.dedupe is Dedupe.COUNTED_TWICE:
            return AskAPerson(f"{verdict.rule}; the network counts a second postback twice")
        case VerdictKind.UNKNOWN | VerdictKind.RETRY:
            return _again(fired, verdict, now, draw)


def _again(fired: Fired, verdict: Verdict, now: datetime, draw: float) -> Decision:
    if fired.attempt >= fired.retry.attempts:
        return Settle(
            State.DEAD, f"{verdict.rule}; attempt {fired.attempt} of {fired.retry.attempts} was the last"
        )
    wait = delay(fired.attempt, fired.retry, draw, verdict.retry_after)
    if wait > fired.first_attempt_at + fired.retry.horizon - now:
        return Settle(State.DEAD, f"{verdict.rule}; the next attempt would come after the retry horizon")
    next_attempt_at = now + wait
    if fired.expires_at is not None and next_attempt_at > fired.expires_at:
        return Settle(
            State.DEAD, f"{verdict.rule}; the next attempt would come after the network's age limit"
        )
    return Reschedule(next_attempt_at, wait, verdict.rule)
