"""Which postbacks a person means who acts on many: all that match, come by in stretches of their ids."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, Engine, text

from infra.store.replays.causes import LETTERS, OF_CAUSE
from infra.store.searching.criteria import Criteria, postback_conditions
from infra.store.searching.cursors import Sort
from infra.store.searching.paging import BY_INDEX, Narrowing, Search, Stretch, searching

_STRETCH_S = 2.0
"""How long the next few are looked for before what was found is acted on."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Everything given must hold."""

    criteria: Criteria = field(default_factory=Criteria)
    cause: str | None = None
    """Key of what ended it, as ``infra.store.replays.causes`` gives it."""

    def conditions(self) -> tuple[str, dict[str, Any]]:
        """What must hold of ``postbacks p JOIN conversions c``, as SQL, and the values it may bind."""
        where, values = postback_conditions(self.criteria)
        if self.cause is not None:
            where += f" AND {OF_CAUSE}"
        return where, values | {"cause": self.cause}

    def search(self, connection: Connection, narrowing: Narrowing | None = None) -> Search:
        """All that match, oldest first. Its candidates come by the index that serves best, whatever was asked."""
        criteria, given = self.criteria, narrowing or Narrowing()
        if self.cause is not None:
            given = Narrowing(f"{given.where} AND {OF_CAUSE}", given.values | {"cause": self.cause})
            criteria = replace(criteria, states=criteria.states or LETTERS)
        return Search(connection, criteria, Sort.OLDEST, given)


@dataclass(frozen=True, slots=True)
class Extent:
    """What there is to look at: how many match, and the newest postback of all. What comes later is left alone."""

    count: int
    last: int


def extent(engine: Engine, selection: Selection) -> Extent:
    """Counts all that match, however many."""
    with searching(engine) as connection:
        last = connection.execute(text("SELECT coalesce(max(id), 0) FROM postbacks")).scalar_one()
        return Extent(selection.search(connection).count(math.inf, math.inf).count, last)


def next_stretch(  # noqa: PLR0913, PLR0917 — what matches, from where to where, and how many
    connection: Connection,
    selection: Selection,
    after: int,
    last: int,
    limit: int,
    narrowing: Narrowing | None = None,
) -> Stretch:
    """The next postbacks that match; also within a transaction that goes on to act on them, whose plans stay free."""
    looking = connection.begin_nested()
    try:
        connection.exec_driver_sql(BY_INDEX)
        deadline = time.monotonic() + _STRETCH_S
        return selection.search(connection, narrowing).stretch(after, last, limit, deadline)
    finally:
        looking.rollback()


def stretches(engine: Engine, selection: Selection, last: int, limit: int) -> Iterator[list[int]]:
    """Ids of all that match up to ``last``, ``limit`` at a time, each looked for when it is its turn."""
    after = 0
    while after < last:
        with engine.connect() as connection:
            stretch = next_stretch(connection, selection, after, last, limit)
        if stretch.ids:
            yield stretch.ids
        after = stretch.upto
