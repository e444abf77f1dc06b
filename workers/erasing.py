"""An erasure from its order to its end: seal, clear what repeats it, archives, and the rows themselves."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Engine

from infra.store.firing import database_now
from infra.store.keeping.erasing import NotErasableError, Order, finish, look, seal
from infra.store.keeping.erasing_archives import concerned, delete_replaced, erase_in
from infra.store.keeping.keeping import alone
from infra.store.keeping.legal_holds import refresh
from infra.store.keeping.reach import Reach
from infra.store.keeping.scrubbing import scrub

log = structlog.get_logger()

WIRE_PATIENCE_S = 30.0
"""How long an attempt that is on the wire is waited for: as a rule it ends within its deadline of 10 s."""

Progress = Callable[[str], None]


@dataclass(slots=True)
class Erased:
    """What an erasure came to, or would come to."""

    reach: Reach
    number: int | None = None
    counts: dict[str, int] = field(default_factory=dict)
    """Rows that repeated an identifier, by table; the rows themselves as well, once it is done."""
    archives: list[str] = field(default_factory=list)

    @property
    def found(self) -> bool:
        return bool(self.reach.conversions or self.reach.signals or any(self.counts.values()))


def foresee(engine: Engine, order: Order) -> Erased:
    """What ``erase`` would do. Changes nothing. Raises NotErasableError for what stands against it."""
    refresh(engine)
    reach = look(engine, order.kind, order.value)
    archives = [part.file for part, _ in concerned(engine, reach)]
    return Erased(reach, None, scrub(engine, reach, dry_run=True), archives)


def erase(engine: Engine, order: Order, progress: Progress = lambda _: None) -> Erased:
    """Do it. Interrupted, the same order does the rest. Raises NotErasableError; once it has sealed, nothing comes back."""
    with alone(engine):
        refresh(engine)
        delete_replaced(engine)
        concerned(engine, look(engine, order.kind, order.value))
        number, reach = _sealed(engine, order)
        progress(f"sealed: {len(reach.conversions)} conversions, nothing of it is let in or fires")
        counts = scrub(
            engine,
            reach,
            dry_run=False,
            progress=lambda table, count: progress(f"{table}: {count} cleared"),
        )
        files = []
        for part, attempts in concerned(engine, reach):
            erase_in(engine, part, attempts, database_now(engine))
            files.append(part.file)
            progress(f"archive {part.file}: {len(attempts)} attempts and checks erased")
        counts = finish(engine, number, order, counts)
    log.info("erasure.done", erasure=number, kind=order.kind, conversions=len(reach.conversions))
    return Erased(reach, number, counts, files)


def _sealed(engine: Engine, order: Order) -> tuple[int, Reach]:
    """Sealed, once nothing of it is on the wire."""
    deadline = time.monotonic() + WIRE_PATIENCE_S
    while True:
        try:
            return seal(engine, order)
        except NotErasableError as error:
            if "on the wire" not in str(error) or time.monotonic() >= deadline:
                raise
        time.sleep(0.5)
