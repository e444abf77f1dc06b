"""Whether a postback that has ended may be fired again by a person, and what a person may say of one in doubt. Pure.

A replay is refused where it would report what does not stand, where it cannot help, and where the network might count
twice; the last, and what the network is known to ignore, may be forced with a reason. The texts of refusals are the same for
all that are refused alike, so that many of them can be counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from schemas.lifecycle import State, came_from
from schemas.signals import SIGNALLED, VoidReason
from schemas.verdict import Dedupe

PER_SECOND = 10.0
"""What a run fires a second if nothing is said: a network that has just come back is not flooded."""


@dataclass(frozen=True, slots=True)
class Rival:
    """Another postback that its network would take for the same conversion, and that holds the place."""

    postback_id: int
    state: State


@dataclass(frozen=True, slots=True)
class Postback:
    """What a decision looks at. Dedupe and rendering are of the version that it would be fired under."""

    state: State
    attempts: int
    release_at: datetime
    dedupe: Dedupe
    expires_at: datetime | None = None
    """End of the network's age limit."""
    had_unknown: bool = False
    """Whether the outcome of some attempt is unknown."""
    called_duplicate: bool = False
    """Whether the network answered the last attempt that it has it already."""
    void_reason: str | None = None
    """The wish that it be voided."""
    taken_back: VoidReason | None = None
    """Why its conversion is not to be reported by what its signals come to, if it is not."""
    retracted: bool = False
    """Whether the network was told that nothing stands of it."""
    corrections: int = 0
    """How many corrections of it were ordered."""
    rival: Rival | None = None
    unrenderable: str | None = None
    """Why its request cannot be made."""
    retired: bool = False
    """Whether the current version of its destination is wanted, and there is none."""
    adjustment: bool = False
    """Whether it is a correction of one that was delivered."""
    stands: bool = True
    """Of a correction: whether what it tells still has to be told, and no other one is under way."""


@dataclass(frozen=True, slots=True)
class Again:
    """It is fired again: it waits as ``state`` and is due no earlier than at its window's end.

    ``falls_back``: what it is again, if that comes to nothing. ``warnings``: what spoke against it and was overruled.
    """

    state: State
    falls_back: State | None = None
    warnings: tuple[str, ...] = ()
    ageless: bool = False
    """Whether the network's age limit is passed over."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why nothing is done. ``forceable``: a person who knows better may overrule it."""

    why: str
    forceable: bool = False

    @property
    def words(self) -> str:
        """With the way out, if there is one."""
        return (
            f"{self.why}; if you know better, --force fires it all the same" if self.forceable else self.why
        )


Decision = Again | Refused

_WAITS = {
    State.HELD: "its window is open, and it fires when that ends: `holdfire release` ends it now",
    State.LEASED: "a worker has claimed it: it fires now",
    State.FIRING: "an attempt is on the wire",
    State.RETRYING: "it waits for its next attempt, which comes by itself",
}


def decide(postback: Postback, now: datetime, *, force: bool) -> Decision:
    """Decide on one postback; ``now`` is the database's clock, under its row lock."""
    if (why := next(_never(postback), None)) is not None:
        return Refused(why)
    against = tuple(_against(postback, now))
    if against and not force:
        return Refused(against[0], forceable=True)
    kept = postback.state in {State.DELIVERED, State.IN_DOUBT}
    return Again(
        came_from(postback.attempts),
        falls_back=postback.state if kept else None,
        warnings=against,
        ageless=_too_old(postback, now),
    )


def _never(postback: Postback) -> Iterator[str]:
    """What no force overrules: what is taken back is never reported, and what waits is not fired twice."""
    if postback.state in _WAITS:
        yield _WAITS[postback.state]
    if postback.state is State.VOIDED:
        yield f"it is voided, {_because(postback.void_reason)}: what was voided never fires"
    if postback.state is State.DUPLICATE:
        yield "the network would take it for another one again, which fires or has fired in its place"
    if postback.void_reason is not None and postback.void_reason not in SIGNALLED:
        yield f"it was to be voided, {_because(postback.void_reason)}: what was voided never fires"
    yield from _never_a_correction(postback) if postback.adjustment else _taken_back(postback)
    yield from _hopeless(postback)


def _never_a_correction(postback: Postback) -> Iterator[str]:
    if postback.state is State.DELIVERED:
        yield "the correction was told; a signal that changes what stands orders another one"
    if not postback.stands:
        yield "what the correction tells does not have to be told any more, or another one is under way"


def _taken_back(postback: Postback) -> Iterator[str]:
    if postback.retracted:
        yield "the network was told that nothing of it stands: what was retracted is not reported again"
    if postback.taken_back is not None:
        yield f"its conversion is taken back, {_because(postback.taken_back)}: there is nothing to report"
    if postback.corrections:
        yield "corrections of it were ordered: what the network should show is told by them"


def _hopeless(postback: Postback) -> Iterator[str]:
    """What would only come to the same end again, or beside another one."""
    if postback.retired:
        yield "its destination has no current version: it is retired; leave --with-current-version out"
    if postback.unrenderable is not None:
        yield f"{postback.unrenderable}. Mend the destination, apply it, and replay with --with-current-version"
    if postback.state is State.REJECTED and postback.called_duplicate:
        yield "the network said that it has it already: it would say so again"
    if postback.rival is not None and postback.rival.state in _WAITS:
        yield "another postback of the same conversion to the network waits or fires in its place"


def _against(postback: Postback, now: datetime) -> Iterator[str]:
    """What a person may overrule who knows better than the record."""
    twice = postback.dedupe is Dedupe.COUNTED_TWICE
    if postback.state is State.DELIVERED:
        yield "it was delivered: the network would count it twice, or take it for a repeat"
    elif postback.state is State.IN_DOUBT and twice:
        yield (
            "it is in doubt, and the network counts a second one twice: ask the network, then `holdfire settle`"
        )
    elif postback.had_unknown and twice:
        yield "an attempt without an answer may have been counted, and the network counts a second one twice"
    if postback.rival is not None:
        counted = {
            State.DELIVERED: "was delivered",
            State.IN_DOUBT: "may have been counted",
        }.get(postback.rival.state, f"is {postback.rival.state} in its place")
        yield f"the network would take it for another postback again, which {counted}"
    if _too_old(postback, now):
        yield "the network's age limit has passed: it ignores what comes now, whatever it answers"


def _too_old(postback: Postback, now: datetime) -> bool:
    if postback.state is State.EXPIRED:
        return True
    return postback.expires_at is not None and postback.expires_at <= now


def _because(void_reason: str | None) -> str:
    if void_reason == VoidReason.BY_HAND:
        return "by hand"
    return f"as {'without a reason' if void_reason is None else void_reason.replace('_', ' ')}"


class Said(StrEnum):
    """What a person learned of a postback in doubt."""

    DELIVERED = "delivered"
    """The network has it."""
    NOT_COUNTED = "not-counted"
    """The network has not, and nobody fires again by itself."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What becomes of one that was in doubt."""

    state: State


_NOT_IN_DOUBT = {
    **_WAITS,
    State.DELIVERED: "it is not in doubt: the network answered that it has it",
    State.REJECTED: "it is not in doubt: the network refused it; `holdfire replay` fires it again",
    State.DEAD: "it is not in doubt: its attempts are exhausted; `holdfire replay` fires it again",
    State.VOIDED: "it is not in doubt: it is voided and never fires",
    State.EXPIRED: "it is not in doubt: the network's age limit passed before it fired",
    State.DUPLICATE: "it is not in doubt: it never fires, for the network would take it for another one",
}


def settle(state: State, said: Said) -> Settled | Refused:
    """Only what is in doubt can be settled by hand, either way."""
    if state is not State.IN_DOUBT:
        return Refused(_NOT_IN_DOUBT[state])
    return Settled(State.DELIVERED if said is Said.DELIVERED else State.DEAD)
