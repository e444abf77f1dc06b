"""What happens next to a postback, in one sentence. Pure: total over every state."""

from __future__ import annotations

from datetime import datetime, timedelta

from infra.store.records import PostbackRecord
from investigations.words import clock, span, taken_back
from schemas.ids import show
from schemas.lifecycle import State
from schemas.signals import VoidReason

_OVERDUE = timedelta(seconds=30)
"""Later than this, somebody should look whether anything runs."""


def next_step(postback: PostbackRecord, now: datetime) -> str:
    """Read off the state alone; ``now`` is the database's clock."""
    match postback.state:
        case State.HELD | State.RETRYING:
            return _waiting(postback, now)
        case State.LEASED:
            return _leased(postback, now)
        case State.FIRING:
            return _firing(postback, now)
        case _:
            return _settled(postback)


def _settled(postback: PostbackRecord) -> str:
    match postback.state:
        case State.IN_DOUBT:
            words = f"a person must decide: {postback.reason}"
        case State.REJECTED | State.DEAD:
            words = f"nothing by itself: {postback.reason}; a person may replay it"
        case State.DELIVERED:
            words = _delivered(postback)
        case State.VOIDED:
            words = f"nothing: {_voided(postback)}, it never fires"
        case State.DUPLICATE:
            first = show("pb", postback.duplicate_of) if postback.duplicate_of else "an earlier postback"
            words = f"nothing: duplicate of {first}, which the network would take for the same"
            if postback.void_reason:
                words += f"; voided {taken_back(postback.void_reason)}, it never takes its place"
        case _:
            words = (
                f"nothing: {postback.reason or 'the age limit of the network passed before it could fire'}"
            )
    return words


def _voided(postback: PostbackRecord) -> str:
    """A person's own words, where a person did it."""
    by_hand = postback.void_reason == VoidReason.BY_HAND and postback.reason not in {
        None,
        postback.void_reason,
    }
    return str(postback.reason) if by_hand else f"voided {taken_back(postback.void_reason)}"


def _waiting(postback: PostbackRecord, now: datetime) -> str:
    if postback.by_hand:
        if postback.release_at > now:
            return f"its window ends at {clock(postback.release_at)} UTC; then it waits for `holdfire release --due`"
        return f"waits for `holdfire release --due`: its window ended {span(now - postback.release_at)} ago"
    due_at = postback.due_at or postback.release_at
    if (asking := _asking(postback, due_at, now)) is not None:
        return asking
    following = postback.attempts_made + 1
    attempt = f" (attempt {following} of {postback.version.contract.retry.attempts})"
    verb = "retries" if postback.attempts_made else "fires"
    numbered = attempt if postback.attempts_made else ""
    if due_at > now:
        deferred = f"; put off at the gate: {postback.reason}" if _deferred(postback) else ""
        return f"{verb} at {clock(due_at)} UTC, in {span(due_at - now)}{numbered}{deferred}"
    late = now - due_at
    hint = "; is a worker running? See `holdfire doctor`" if late > _OVERDUE else ""
    return f"{verb} with the next tick, due since {span(late)}{numbered}{hint}"


def _asking(postback: PostbackRecord, due_at: datetime, now: datetime) -> str | None:
    """When its service is asked again, if that is what it waits for."""
    asked = [check for check in postback.checks if not check.stale]
    if not asked or asked[-1].asks_again_at != due_at:
        return None
    when = (
        f"at {clock(due_at)} UTC, in {span(due_at - now)}"
        if due_at > now
        else f"with the next tick, due since {span(now - due_at)}"
    )
    return f"held on: asks its service again {when}; it said {asked[-1].rule}"


def _deferred(postback: PostbackRecord) -> bool:
    return not postback.attempts_made and postback.due_at != postback.release_at and bool(postback.reason)


def _leased(postback: PostbackRecord, now: datetime) -> str:
    attempt = f"attempt {postback.attempts_made + 1} of {postback.version.contract.retry.attempts}"
    if postback.due_at is not None and postback.due_at < now:
        return f"its worker fell silent before {attempt}: the next tick takes it back, nothing was sent"
    if postback.version.contract.asks and postback.adjustment is None:
        return (
            f"a worker has claimed it: {attempt} is about to be fired, or its service is being asked about it"
        )
    return f"a worker has claimed it: {attempt} is about to be fired"


def _firing(postback: PostbackRecord, now: datetime) -> str:
    attempt = postback.last_attempt
    number = f"attempt {postback.attempts_made}"
    since = f" since {clock(attempt.intent_at)} UTC ({span(now - attempt.intent_at)})" if attempt else ""
    wish = (
        f"; if it fails no other is made (voided {taken_back(postback.void_reason)})"
        if postback.void_reason
        else ""
    )
    if postback.due_at is not None and postback.due_at < now:
        worker = f" {attempt.worker}" if attempt else ""
        return f"{number} is without an outcome{since}: its worker{worker} fell silent, rescue will settle it{wish}"
    return f"{number} is on the wire{since}{wish}"


def _delivered(postback: PostbackRecord) -> str:
    delivering = next(
        (a for a in postback.attempts if a.outcome is not None and a.outcome.state is State.DELIVERED), None
    )
    by = f" by attempt {delivering.number}" if delivering else ""
    words = f"nothing: delivered{by}"
    if postback.version.contract.network.delivered_means == "tried":
        words += "; this network answers the same when it counted nothing"
    if postback.void_reason:
        words += f"; it was voided {taken_back(postback.void_reason)} too late to stop it"
    return words
