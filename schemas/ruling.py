"""What a new signal does to one postback of its conversion, by that postback's own policy. Pure, total over states."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from datetime import datetime

from schemas.hold import HoldPolicy
from schemas.lifecycle import VOIDABLE, State
from schemas.signals import SIGNALLED, Outcome, VoidReason


@dataclass(frozen=True, slots=True)
class Postback:
    """What a ruling looks at. ``void_reason``: why it is voided, or the wish that it be. ``before``: the outcomes that
    stood of its conversion until now."""

    state: State
    release_at: datetime
    void_reason: str | None = None
    before: frozenset[Outcome] = frozenset()
    falls_back: State | None = None
    """What it is again, if a person fired it again and that comes to nothing."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """What becomes of it; all left out means nothing."""

    void: VoidReason | None = None
    returns: VoidReason | None = None
    """For one that a person fired again, though the network has it or may have it: it is again what it was."""
    wish: VoidReason | None = None
    """For one that cannot be voided now: it makes no further attempt, and no duplicate takes the first's place."""
    unwish: bool = False
    """The wish is withdrawn."""
    reinstate: bool = False
    """What voided it was withdrawn: it goes on with what is left of its window."""
    release_early: bool = False
    """Its window ends now."""
    look_again: bool = False
    """The network was told, or is being told just now, what may not stand any more."""


def rule(
    postback: Postback,
    policy: HoldPolicy,
    outcomes: Container[Outcome],
    confirmed: Iterable[Outcome],
    now: datetime,
) -> Ruling:
    """Rule on one postback. ``outcomes`` stand of its conversion, ``confirmed`` are those that new signals brought."""
    reason = policy.void_reason(outcomes)
    early = _ends_window(postback, policy, outcomes, confirmed, now)
    match postback.state:
        case state if state in VOIDABLE:
            return _waits(postback, reason, early=early)
        case State.FIRING:
            return _wish(postback, reason, release_early=False, look_again=True)
        case State.DUPLICATE:
            return _wish(postback, reason, release_early=early, look_again=False)
        case State.VOIDED:
            # Only what a signal took back is brought back by one: the advertiser's own service may have said the same.
            withdrawn = reason is None and policy.void_reason(postback.before) is not None
            reinstate = withdrawn and postback.void_reason in SIGNALLED
            return Ruling(reinstate=reinstate, release_early=early)
        case State.DELIVERED:
            return Ruling(look_again=True)
    return Ruling()


def _waits(postback: Postback, reason: VoidReason | None, *, early: bool) -> Ruling:
    if postback.falls_back is not None:
        return Ruling(returns=reason, look_again=reason is not None)
    # What is voided now may be reinstated: its window then is over, as if the two had come one by one.
    return Ruling(void=reason, release_early=early and postback.state is State.HELD)


def _wish(postback: Postback, reason: VoidReason | None, *, release_early: bool, look_again: bool) -> Ruling:
    by_hand = postback.void_reason == VoidReason.BY_HAND
    return Ruling(
        wish=None if by_hand else reason,
        unwish=reason is None and postback.void_reason is not None and not by_hand,
        release_early=release_early,
        look_again=look_again,
    )


def _ends_window(
    postback: Postback,
    policy: HoldPolicy,
    outcomes: Container[Outcome],
    confirmed: Iterable[Outcome],
    now: datetime,
) -> bool:
    if postback.release_at <= now:
        return False
    return any(each in policy.releases_on and each in outcomes for each in confirmed)
