"""How evidence is handed over: for whom, in which time zone, with which fields, and what is left out. Reads life by life."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from infra.store.evidence import read_lives
from infra.store.records import Life
from investigations.export.exhibit import EVERYTHING, Narrowing, narrowed
from investigations.masking import mask_life
from investigations.trail import moments
from schemas.network import Network
from schemas.support import FIELDS


@dataclass(frozen=True, slots=True)
class Handing:
    """``about``: what was asked; ``selection``: what was chosen, in words; ``who`` hands it over.

    ``network`` is the one whose support gets it, in its form. Without one it is for ourselves: every field.
    """

    about: str = ""
    who: str = ""
    selection: str = ""
    zone: str = "UTC"
    fields: tuple[str, ...] = tuple(FIELDS)
    network: Network | None = None
    mask_click_ids: bool = False
    narrowing: Narrowing = EVERYTHING

    @property
    def zone_info(self) -> ZoneInfo:
        return ZoneInfo(self.zone)


def for_support(handing: Handing, network: Network) -> Handing:
    """The same in the form that this network's support asks for, and of its own postbacks only."""
    support = network.support
    only = replace(handing.narrowing, network=network.slug)
    return replace(handing, network=network, zone=support.time_zone, fields=support.fields, narrowing=only)


@dataclass(slots=True)
class Reading:
    """Reads the lives one after another, and remembers which were not there."""

    engine: Engine
    handing: Handing
    made_at: datetime
    missing: list[int] = field(default_factory=list)

    def lives(self, conversion_ids: Iterable[int]) -> Iterator[Life]:
        """What is handed over of each conversion, by ascending id, each once; masked where it is to be."""
        wanted = sorted(set(conversion_ids))
        found = set()
        for life in read_lives(self.engine, wanted):
            found.add(life.conversion.id)
            shown = narrowed(_as_of(life, self.made_at), self.handing.narrowing)
            yield mask_life(shown) if self.handing.mask_click_ids else shown
        self.missing += [number for number in wanted if number not in found]


def _as_of(life: Life, instant: datetime) -> Life:
    """Read as of the instant at which the whole was begun, unless more has happened since."""
    newest = max((moment.at for moment in moments(life)), default=instant)
    return replace(life, now=max(instant, min(newest, life.now)))
