"""Judging a postback that no row of the report stands for. Total over every state."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from schemas.ids import show
from schemas.lifecycle import State
from schemas.reconciling.facts import Ours, Terms, Theirs
from schemas.reconciling.findings import Bucket, Cause, Finding, Side, finding
from schemas.reconciling.near import Why, near_miss
from schemas.reconciling.refusals import says_no
from schemas.reconciling.tokens import is_macro, odd_shape

_REPORTING_LAG = timedelta(minutes=5)
"""What is delivered within it of the last that was counted could have been counted as well."""


def judge_ours(ours: Ours, terms: Terms, near: Theirs | None = None) -> Finding:
    """A postback that no row stands for. ``near`` is a row whose click id looks like a damaged one of it."""
    cause, words, side = _why_ours(ours, terms, near)
    return finding(Bucket.OURS_ONLY, cause, words, side=side, stake=ours.value, currency=ours.currency)


def _why_ours(ours: Ours, terms: Terms, near: Theirs | None) -> Why:
    if near is not None and ours.told and (found := near_miss(ours, near)) is not None:
        return found
    if ours.state is State.DELIVERED:
        return _why_uncounted(ours, terms)
    return (_refused(ours) if ours.told else None) or _BY_STATE[ours.state](ours)


def _held(ours: Ours) -> Why:
    if ours.told:
        return Cause.RETRYING, _waits(ours, "retries"), None
    return Cause.STILL_HELD, _waits(ours, "fires"), None


def _voided(ours: Ours) -> Why:
    why = (ours.void_reason or ours.reason or "taken back").replace("_", " ")
    return Cause.VOIDED, f"voided before it was delivered: {why}", None


def _duplicate(ours: Ours) -> Why:
    first = f" of {show('pb', ours.duplicate_of)}" if ours.duplicate_of else ""
    return Cause.DUPLICATE_OF_OURS, f"a duplicate{first}, never fired", None


def _in_flight(ours: Ours) -> Why:
    return Cause.IN_FLIGHT, "a worker has claimed it, or it is on the wire", None


_BY_STATE: dict[State, Callable[[Ours], Why]] = {
    State.HELD: _held,
    State.LEASED: _in_flight,
    State.FIRING: _in_flight,
    State.RETRYING: lambda ours: (Cause.RETRYING, _waits(ours, "retries"), None),
    State.VOIDED: _voided,
    State.EXPIRED: lambda ours: (
        Cause.EXPIRED,
        ours.reason or "the network's age limit passed before it could fire",
        None,
    ),
    State.DUPLICATE: _duplicate,
    State.DEAD: lambda ours: (Cause.DEAD, f"never delivered: {ours.reason or 'attempts exhausted'}", None),
    State.REJECTED: lambda ours: (Cause.REJECTED, f"refused: {ours.reason or 'no reason kept'}", None),
    State.IN_DOUBT: lambda ours: (
        Cause.IN_DOUBT,
        f"sent, and its outcome is unknown: {ours.reason or 'no answer'}",
        None,
    ),
}
"""Every state but delivered: what it says by itself, where no answer says more."""


def _waits(ours: Ours, verb: str) -> str:
    if ours.due_at is None:
        return "waits for a release by hand"
    return f"{verb} at {ours.due_at:%Y-%m-%d %H:%M:%S} UTC"


def _refused(ours: Ours) -> Why | None:
    """What the last answer shows: a redirect that was not followed, or a refusal in the body."""
    evidence = ours.evidence
    attempt = f"attempt {evidence.number}" if evidence.number else "the last attempt"
    failure = (evidence.failure or "").partition(":")[0]
    redirected = evidence.last_status is not None and 300 <= evidence.last_status < 400
    if (
        redirected
        or failure in {"redirect_loop", "too_many_redirects"}
        or (failure == "refused_by_guard" and evidence.hops > 1)
    ):
        how = f"answered {evidence.last_status}" if redirected else failure.replace("_", " ") or "refused"
        return (
            Cause.REDIRECT_NOT_COMPLETED,
            f"{attempt} ended at a redirect ({how}) that was not followed to its end",
            None,
        )
    if "body ~" in evidence.rule:
        return (
            Cause.BODY_SAID_NO,
            f"{attempt} was answered {evidence.status_code}, and its body refused it",
            None,
        )
    if evidence.status_code is not None and evidence.status_code < 300 and (no := says_no(evidence.body)):
        return (
            Cause.BODY_SAID_NO,
            f"{attempt} was answered {evidence.status_code}, and its body says {no!r}",
            None,
        )
    return None


def _why_uncounted(ours: Ours, terms: Terms) -> Why:
    """Of one that was delivered: the first cause that the evidence supports."""
    for look in (_retracted, _refused_though_delivered, _placeholder, _aged, _late, _misshapen):
        if (found := look(ours, terms)) is not None:
            return found
    status = ours.evidence.status_code
    words = (
        f"{f'answered {status}' if status else 'delivered'}, and nothing in the evidence speaks against it"
    )
    if terms.delivered_means == "tried":
        words += "; this network answers the same when it counts nothing"
    return Cause.NOT_COUNTED, words, None


def _retracted(ours: Ours, terms: Terms) -> Why | None:
    if not ours.retracted:
        return None
    return Cause.RETRACTED, "the network was told that it does not stand, and took it off", None


def _refused_though_delivered(ours: Ours, terms: Terms) -> Why | None:
    return _refused(ours)


def _placeholder(ours: Ours, terms: Terms) -> Why | None:
    if not ours.click_id or not is_macro(ours.click_id):
        return None
    return Cause.UNREPLACED_MACRO, "its click id is the ad server's placeholder", None


def _late(ours: Ours, terms: Terms) -> Why | None:
    until = terms.counted_until
    if until is None or ours.delivered_at is None or ours.delivered_at <= until + _REPORTING_LAG:
        return None
    at, last = (f"{each:%Y-%m-%d %H:%M:%S} UTC" for each in (ours.delivered_at, until))
    return (
        Cause.DELIVERED_AFTER_REPORT,
        f"delivered at {at}; the report counts nothing delivered after {last}",
        None,
    )


def _misshapen(ours: Ours, terms: Terms) -> Why | None:
    odd = odd_shape(ours.click_id, terms.shape) if ours.click_id else None
    return None if odd is None else (odd[0], f"told with a click id as none was counted: {odd[1]}", Side.US)


def _aged(ours: Ours, terms: Terms) -> Why | None:
    """Whether it came later than the network attributes. The click's own instant decides where it is known."""
    told_at = ours.delivered_at
    if told_at is None:
        return None
    limits = []
    if terms.window is not None:
        limits.append((terms.window, "click", ours.clicked_at or ours.event_at))
    if terms.age_limit is not None:
        by_click = terms.age_limit.measured_from == "click" and ours.clicked_at is not None
        limits.append(
            (
                terms.age_limit.wait,
                "click" if by_click else "event",
                ours.clicked_at if by_click else ours.event_at,
            )
        )
    for limit, name, since in limits:
        if since is not None and told_at - since > limit:
            known = (
                name
                if name == "event" or ours.clicked_at is not None
                else "event, the click's instant is not known,"
            )
            return (
                Cause.ATTRIBUTION_AGE,
                f"delivered {_days(told_at - since)} after the {known}; the network attributes {_days(limit)}",
                None,
            )
    return None


def _days(span: timedelta) -> str:
    days, seconds = span.days, span.seconds
    if days:
        return f"{days} d {seconds // 3600} h" if seconds >= 3600 else f"{days} d"
    return f"{seconds // 3600} h {seconds // 60 % 60} min"
