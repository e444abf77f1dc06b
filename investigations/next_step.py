"""What happens next to a postback, in one sentence. Pure: total over every state."""

from __future__ import annotations

from datetime import datetime, timedelta

from infra.store.records import Life, PostbackRecord
from infra.store.stopping.stopping import Stop
from investigations.corrections import (
    correction_told,
    loss,
    open_adjustment,
    title,
    told_last,
    withdrawn,
)
from investigations.words import clock, span, taken_back, visible
from schemas.ids import show
from schemas.lifecycle import FINAL, State
from schemas.reconciling.findings import CAUSES
from schemas.signals import Outcome, VoidReason

_OVERDUE = timedelta(seconds=30)
"""Later than this, somebody should look whether anything runs."""
_IN_VAIN = ("delivered before; fired again", "fired again, it came to nothing")
"""How the reason of one begins that was fired again and stays what it was."""


def next_step(life: Life, postback: PostbackRecord) -> str:
    """Read off what stands in the store, as of ``life.now``."""
    if life.conversion.erased_at is not None and postback.state in FINAL:
        return "nothing: it was erased at a person's request, and never fires again"
    if postback.adjusts is None:
        return _step(life, postback)
    settled = _settled_adjustment(life, postback) if postback.state in FINAL else None
    return f"{title(postback)}: {settled or _step(life, postback)}"


def _step(life: Life, postback: PostbackRecord) -> str:
    now = life.now
    match postback.state:
        case State.HELD | State.RETRYING:
            return _undecided(life, postback) or _waiting(life, postback)
        case State.LEASED:
            return _leased(postback, now)
        case State.FIRING:
            return _firing(postback, now)
        case _:
            return _settled(life, postback)


def _undecided(life: Life, postback: PostbackRecord) -> str | None:
    """Of one that waits for a credit decision: until when, and what becomes of it without one."""
    policy = postback.version.contract.destination.hold_for(life.conversion.event)
    decided = "credit_check.approved" in life.conversion.outcomes or postback.let_go_at is not None
    if policy.kind != "credit_check" or decided or postback.attempts_made or postback.adjusts is not None:
        return None
    fate = "voided" if policy.needs_decision else "released"
    if postback.release_at <= life.now:
        when = "with the next tick" if life.stop_of(postback) is None else "once its destination goes on"
        late = f"no credit decision came in time: it is voided {when}"
        due = postback.due_at is not None and postback.due_at <= life.now
        return late if policy.needs_decision and due else None
    until = f"until {clock(postback.release_at)} UTC, in {span(postback.release_at - life.now)}"
    review = "is under review and " if "credit_check.review" in life.conversion.outcomes else ""
    hand = ", then for `holdfire release --due`" if postback.by_hand else ""
    return f"{review}waits for a credit decision {until}{hand}; without one it is {fate} then"


def _settled(life: Life, postback: PostbackRecord) -> str:
    match postback.state:
        case State.IN_DOUBT:
            words = f"a person must decide: {postback.reason}"
            if postback.counted_by is not None:
                words += f"; it was counted by the network, by report {show('rp', postback.counted_by)}"
        case State.REJECTED | State.DEAD:
            words = f"nothing by itself: {postback.reason}; a person may replay it"
        case State.DELIVERED:
            words = _delivered(life, postback)
        case State.VOIDED:
            words = f"nothing: {_voided(life, postback)}"
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


def _voided(life: Life, postback: PostbackRecord) -> str:
    """In the words of the person or the gate that did it, where there are any; and whether a signal takes it back."""
    reason = None if postback.reason == postback.void_reason else postback.reason
    if postback.void_reason == VoidReason.BY_HAND and reason:
        return f"{reason}, it never fires"
    said = f" ({reason})" if reason else ""
    return f"voided {taken_back(postback.void_reason)}{said}, it never fires{_unless(life, postback)}"


def _waiting(life: Life, postback: PostbackRecord) -> str:
    """Until when, and for what; where its destination is stopped, for that."""
    stop, now = life.stop_of(postback), life.now
    due_at = postback.due_at or postback.release_at
    if postback.by_hand or due_at > now or not (stop or postback.parked):
        words = _by_itself(postback, now)
        return words if stop is None else f"{words}; {_stopped(postback, stop)}"
    verb, numbered = _verb(postback)
    said = f"{verb}{numbered} when its destination goes on, due since {span(now - due_at)}"
    if stop is None:
        return f"{said}: it was stopped and goes on, oldest first"
    return f"{said}; {_stopped(postback, stop)}"


def _stopped(postback: PostbackRecord, stop: Stop) -> str:
    return f"{postback.version.contract.name} is {visible(stop.words)}"


def _by_itself(postback: PostbackRecord, now: datetime) -> str:
    if postback.by_hand:
        if postback.release_at > now:
            return f"its window ends at {clock(postback.release_at)} UTC; then it waits for `holdfire release --due`"
        return f"waits for `holdfire release --due`: its window ended {span(now - postback.release_at)} ago"
    due_at = postback.due_at or postback.release_at
    if (asking := _asking(postback, due_at, now)) is not None:
        return asking
    verb, numbered = _verb(postback)
    if due_at > now:
        return f"{verb} at {clock(due_at)} UTC, in {span(due_at - now)}{numbered}{_remark(postback)}"
    late = now - due_at
    hint = "; is a worker running? See `holdfire doctor`" if late > _OVERDUE else ""
    return f"{verb} with the next tick, due since {span(late)}{numbered}{hint}"


def _verb(postback: PostbackRecord) -> tuple[str, str]:
    """What it does next, and which attempt that is."""
    if postback.fires_again:
        assert postback.run_id is not None
        return f"fires again in {show('rn', postback.run_id)},", f" ({_nth(postback)})"
    if postback.attempts_made:
        return "retries", f" ({_nth(postback)})"
    return "fires", ""


def _nth(postback: PostbackRecord) -> str:
    """Which attempt comes next; of one that a person fired again also which it is since then."""
    following, of = postback.attempts_made + 1, postback.version.contract.retry.attempts
    if not postback.budget_from:
        return f"attempt {following} of {of}"
    return f"attempt {following}, {following - postback.budget_from} of {of} since it was fired again"


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


def _remark(postback: PostbackRecord) -> str:
    """What was said of one that was never attempted: how it came to wait, or why the gate put it off."""
    deferred = postback.due_at not in {None, postback.release_at}
    if (
        postback.fires_again
        or postback.attempts_made
        or not postback.reason
        or (postback.adjusts is not None and not deferred)
    ):
        return ""
    return f"{', put off at the gate' if deferred else ''}; {postback.reason}"


def _leased(postback: PostbackRecord, now: datetime) -> str:
    attempt = _nth(postback)
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
    if postback.overtaken and not wish:
        wish = "; a signal came meanwhile: once it is settled, the network is told what stands then"
    return f"{number} is on the wire{since}{wish}"


def _delivered(life: Life, postback: PostbackRecord) -> str:
    words = _by_attempt(postback)
    if postback.run_id is not None and (postback.reason or "").startswith(_IN_VAIN):
        words += f"; {(postback.reason or '').removeprefix('delivered before; ')}"
    if postback.counted_by is not None:
        words += f"; counted by the network: report {show('rp', postback.counted_by)}{_disputed(postback)}"
    elif postback.dispute is not None:
        words += _disputed(postback)
    elif postback.version.contract.network.delivered_means == "tried":
        words += "; this network answers the same when it counted nothing"
    if postback.void_reason:
        words += f"; it was voided {taken_back(postback.void_reason)} too late to stop it"
    last = told_last(life, postback)
    if last is not None:
        words += f"; the network was told last: {last}"
    if postback.lost_at is not None:
        words += f"; {loss(life, postback)}"
    correcting = open_adjustment(life, postback)
    if correcting is None:
        return f"nothing: {words}"
    return f"{words}; corrected by {show('pb', correcting.id)}, {_soon(life, correcting)}"


def _disputed(postback: PostbackRecord) -> str:
    """What the network's report has against it."""
    found = postback.dispute
    if found is None:
        return ""
    if postback.counted_by is not None:
        return f"; {found.bucket.replace('_', ' ')} there: {CAUSES[found.cause].title}"
    report = show("rp", found.report_id)
    return f"; not counted by the network's report {report}: {CAUSES[found.cause].title}"


def _by_attempt(postback: PostbackRecord) -> str:
    delivering = next(
        (a for a in postback.attempts if a.outcome is not None and a.outcome.state is State.DELIVERED), None
    )
    if delivering is None and postback.settled_by is not None:
        return f"delivered, as {postback.settled_by} learned from the network"
    return "delivered" + (f" by attempt {delivering.number}" if delivering else "")


def _soon(life: Life, adjustment: PostbackRecord) -> str:
    """When an open adjustment tells what stands."""
    match adjustment.state:
        case State.HELD | State.RETRYING:
            return f"which {_waiting(life, adjustment)}"
        case State.LEASED:
            return "which a worker has claimed"
    return "which is on the wire"


def _settled_adjustment(life: Life, postback: PostbackRecord) -> str:
    match postback.state:
        case State.DELIVERED:
            return f"{_by_attempt(postback)}; it told that {correction_told(life, postback)}"
        case State.VOIDED:
            by_signal = postback.void_reason == VoidReason.WITHDRAWN
            return withdrawn(postback) if by_signal else f"voided: {postback.reason or postback.void_reason}"
        case State.IN_DOUBT:
            return f"a person must decide: {postback.reason}"
    return f"nothing by itself: {postback.reason}; it is tried anew only when something else stands"


_WITHDRAWN_BY: dict[str, tuple[frozenset[Outcome], str]] = {
    VoidReason.DECLINED: (frozenset({"credit_check.declined"}), "a later decision takes that back"),
    VoidReason.CHARGED_BACK: (frozenset({"chargeback.opened", "chargeback.lost"}), "the dispute is won"),
}


def _unless(life: Life, postback: PostbackRecord) -> str:
    """The signal that would bring a voided one back, if there is any."""
    outcomes, event = _WITHDRAWN_BY.get(postback.void_reason or "", (frozenset(), ""))
    policy = postback.version.contract.destination.hold_for(life.conversion.event)
    rest = frozenset(life.conversion.outcomes) - outcomes
    return f" unless {event}" if event and policy.void_reason(rest) is None else ""
