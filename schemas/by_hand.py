"""What a person may do to a postback by hand: void it, extend its window, release it now. Pure, total over states.

Each act is a decision: the postback is moved, or the person is told why it makes no sense here and what would. The
texts of refusals are the same for all that are refused alike, so that many of them can be counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from schemas.lifecycle import VOIDABLE, State
from schemas.signals import VoidReason


class Act(StrEnum):
    """What is done by hand."""

    VOID = "void"
    EXTEND = "extend"
    RELEASE = "release"


@dataclass(frozen=True, slots=True)
class Extension:
    """A window's new end: ``by`` so much after its old one, or after now if that was before; or the instant ``to``."""

    by: timedelta | None = None
    to: datetime | None = None

    def end(self, release_at: datetime, now: datetime) -> datetime:
        return self.to if self.to is not None else max(release_at, now) + (self.by or timedelta(0))


@dataclass(frozen=True, slots=True)
class Errand:
    """What a person wants done, to however many postbacks; ``extension`` goes with EXTEND."""

    act: Act
    extension: Extension | None = None


@dataclass(frozen=True, slots=True)
class Postback:
    """What a decision looks at."""

    state: State
    attempts: int
    release_at: datetime
    expires_at: datetime | None = None
    """End of the network's age limit."""
    void_reason: str | None = None
    """Why it is voided, or the wish that it be."""
    waits_for_hand: bool = False
    """Whether nobody but a hand releases it."""
    let_go: bool = False
    """Whether it was released by hand before."""
    stopped: bool = False
    """Whether its destination is paused, or its breaker is open."""
    falls_back: State | None = None
    """What it is again, if a person fired it again and that comes to nothing."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What is done. ``wish``: it cannot be voided just now, but it is never fired anew."""

    state: State
    """Afterwards."""
    release_at: datetime
    """Afterwards."""
    says: str
    wish: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """Why nothing is done. ``instants``: those of this one postback that the reason is about."""

    why: str
    instants: str = ""


Decision = Moved | Refused


def decide(errand: Errand, postback: Postback, now: datetime) -> Decision:
    """Decide on one postback; ``now`` is the database's clock, under its row lock."""
    match errand.act:
        case Act.VOID:
            return _void(postback)
        case Act.EXTEND:
            assert errand.extension is not None
            return _extend(postback, errand.extension.end(postback.release_at, now), now)
        case Act.RELEASE:
            return _release(postback, now)


_NOT_VOIDED = {
    State.DELIVERED: "the network has it: send a refund signal, which corrects it there where the network takes "
    "corrections",
    State.REJECTED: "the network refused it for good, so it fires no more: there is nothing to void",
    State.DEAD: "its attempts are exhausted, so it fires no more: there is nothing to void",
    State.EXPIRED: "the network's age limit passed, so it never fires: there is nothing to void",
    State.IN_DOUBT: "it was sent and the answer is unknown: ask the network whether it counted it; "
    "`holdfire transcript` is what its support wants to see",
}
_NOT_EXTENDED = {
    State.LEASED: "its window has ended and an attempt was made: void it instead, then no other is made",
    State.RETRYING: "its window has ended and an attempt was made: void it instead, then no other is made",
    State.FIRING: "its window has ended and an attempt is on the wire: void it instead, then no other is made",
    State.DELIVERED: "its window has ended and the network has it",
    State.REJECTED: "its window has ended and the network refused it for good",
    State.DEAD: "its window has ended and its attempts are exhausted",
    State.VOIDED: "it is voided: it has no window any more",
    State.EXPIRED: "the network's age limit has passed: it never fires",
    State.IN_DOUBT: "its window has ended: it was sent and the answer is unknown",
}
_NOT_RELEASED = {
    State.LEASED: "it was released before: a worker has claimed it, to fire it or to ask its service",
    State.FIRING: "it was released before: an attempt is on the wire",
    State.RETRYING: "it was released before: an attempt was made, and the next comes by its retry policy",
    State.DELIVERED: "it was released before, and the network has it",
    State.REJECTED: "it was released before, and the network refused it for good",
    State.DEAD: "it was released before, and its attempts are exhausted",
    State.VOIDED: "it is voided: it never fires",
    State.EXPIRED: "the network's age limit has passed: it never fires",
    State.IN_DOUBT: "it was released before: it was sent and the answer is unknown",
    State.DUPLICATE: "the network would take it for another one again: it fires only if that one never does",
}


def _void(postback: Postback) -> Decision:
    if postback.state in VOIDABLE and postback.falls_back is not None:
        return Refused(
            "the network has it or may have it, and it is being fired again: `holdfire replays stop` stops that, and then "
            "it is what it was"
        )
    if postback.state in VOIDABLE:
        return Moved(State.VOIDED, postback.release_at, "it never fires")
    if postback.state is State.VOIDED:
        return Refused(f"it is voided already, {_because(postback.void_reason)}")
    if postback.state not in {State.FIRING, State.DUPLICATE}:
        return Refused(_NOT_VOIDED[postback.state])
    if postback.void_reason == VoidReason.BY_HAND:
        return Refused("it was voided by hand before: it is never fired anew")
    says = (
        "an attempt is on the wire: if it fails no other is made, if it is delivered it is corrected where the network "
        "takes corrections"
        if postback.state is State.FIRING
        else "it never takes the place of the one it is a duplicate of"
    )
    return Moved(postback.state, postback.release_at, says, wish=True)


def _because(void_reason: str | None) -> str:
    if void_reason == VoidReason.BY_HAND:
        return "by hand"
    return f"as {'without a reason' if void_reason is None else void_reason.replace('_', ' ')}"


def _extend(postback: Postback, end: datetime, now: datetime) -> Decision:
    claimed = postback.state is State.LEASED and not postback.attempts
    if postback.state not in {State.HELD, State.DUPLICATE} and not claimed:
        return Refused(_NOT_EXTENDED[postback.state])
    if end <= now:
        return Refused("the new end has passed", f"{_at(end)}, and it is {_at(now)}")
    if end <= postback.release_at:
        return Refused(
            "a window is never made shorter",
            f"it ends at {_at(postback.release_at)}, and {_at(end)} is not after that",
        )
    if postback.expires_at is not None and end >= postback.expires_at:
        return Refused(
            "the network's age limit would pass before it fires",
            f"its window would end at {_at(end)}, the limit at {_at(postback.expires_at)}",
        )
    says = f"its window ends at {_at(end)}"
    if claimed:
        return Moved(State.HELD, end, f"taken back before anything was sent; {says}")
    return Moved(postback.state, end, says)


def _release(postback: Postback, now: datetime) -> Decision:
    if postback.state is not State.HELD:
        return Refused(_NOT_RELEASED[postback.state])
    if postback.expires_at is not None and postback.expires_at <= now:
        return Refused(
            "the network's age limit has passed: it expires with the next tick", _at(postback.expires_at)
        )
    if postback.let_go and not postback.waits_for_hand and postback.release_at <= now:
        return Refused("it was released by hand before: it fires as soon as its destination takes it")
    when = "once its destination goes on" if postback.stopped else "with the next tick"
    return Moved(State.HELD, min(postback.release_at, now), f"it is due and fires {when}")


def _at(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC"
