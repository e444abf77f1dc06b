"""What is handed over: attempts, each with the life it belongs to, and nothing of what concerns others. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from infra.store.records import AttemptRecord, Life, PostbackRecord
from investigations.corrections import in_reading_order


@dataclass(frozen=True, slots=True)
class Exhibit:
    """One attempt in its place."""

    life: Life
    postback: PostbackRecord
    attempt: AttemptRecord


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What of each conversion is handed over; None is all of it."""

    postbacks: frozenset[int] | None = None
    attempts: frozenset[int] | None = None
    destinations: frozenset[str] | None = None
    network: str | None = None

    @property
    def everything(self) -> bool:
        return self == EVERYTHING

    def takes(self, postback: PostbackRecord) -> bool:
        """Whether something of this postback is handed over; of a corrected one its corrections are part of it."""
        contract = postback.version.contract
        return (
            (self.postbacks is None or bool({postback.id, postback.adjusts} & self.postbacks))
            and (self.destinations is None or contract.name in self.destinations)
            and (self.network is None or contract.network.slug == self.network)
            and (self.attempts is None or any(each.id in self.attempts for each in postback.attempts))
        )


EVERYTHING = Narrowing()


def narrowed(life: Life, narrowing: Narrowing) -> Life:
    """The life as far as it is handed over: a network is told nothing of what others were sent.

    Click ids of others go, and so does what was refused as a repeat, which is kept verbatim and may name them. For a
    network also what is between us: what our own services were asked, and what was done by hand, by whom and why.
    """
    if narrowing.everything:
        return life
    postbacks = tuple(_narrowed(each, narrowing) for each in life.postbacks if narrowing.takes(each))
    ids = {each.id for each in postbacks}
    names = {each.version.contract.name for each in postbacks}
    known = names | {each.version.contract.network.slug for each in postbacks}
    conversion = life.conversion
    event = conversion.event
    kept = {name: click_id for name, click_id in event.click_ids.items() if name in known}
    return replace(
        life,
        postbacks=postbacks,
        conversion=replace(
            conversion,
            event=event.model_copy(update={"click_ids": kept}),
            matches=tuple(each for each in conversion.matches if each.destination in names),
            refusals={name: why for name, why in conversion.refusals.items() if name in names},
        ),
        repeats=(),
        acts=() if narrowing.network else tuple(each for each in life.acts if each.postback_id in ids),
        redone=() if narrowing.network else tuple(each for each in life.redone if each.postback_id in ids),
        stops={} if narrowing.network else {name: stop for name, stop in life.stops.items() if name in names},
    )


def _narrowed(postback: PostbackRecord, narrowing: Narrowing) -> PostbackRecord:
    chosen = narrowing.attempts
    return replace(
        postback,
        attempts=tuple(each for each in postback.attempts if chosen is None or each.id in chosen),
        checks=() if narrowing.network else postback.checks,
    )


def exhibits(life: Life) -> Iterator[Exhibit]:
    """Every attempt, in reading order: a postback's own, then those of its corrections."""
    ordered = in_reading_order(life)
    # A correction without what it corrects is still evidence.
    loose = [each for each in life.postbacks if each not in ordered]
    for postback in (*ordered, *loose):
        for attempt in postback.attempts:
            yield Exhibit(life, postback, attempt)
