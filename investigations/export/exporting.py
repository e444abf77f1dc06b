"""Handing over: the lives are read, written as they go by, and what was handed over is audited before it is there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import Progress
from sqlalchemy import Engine

from infra.settings import load_settings
from infra.store import audit
from infra.store.evidence import read_lives
from infra.store.firing import database_now
from infra.store.records import Life
from investigations.export.bundle import write_bundle
from investigations.export.exhibit import narrowed
from investigations.export.handing import Handing, Reading
from investigations.export.selecting import Selection
from investigations.export.signing import signer_of
from investigations.export.summary import Totals, counted
from investigations.export.writing import Form, open_output, pieces


@dataclass(frozen=True, slots=True)
class Export:
    """One handing over, from the log to a file that is there whole, or not at all."""

    engine: Engine
    chosen: Selection
    handing: Handing
    form: Form
    bom: bool

    def count(self) -> Totals:
        """How much it would be; exchanges are not read for it."""
        totals = Totals()
        with progress(len(self.chosen.conversions), "counting") as step:
            for life in read_lives(self.engine, sorted(self.chosen.conversions), hops_of=lambda _: ()):
                totals.add(narrowed(life, self.handing.narrowing))
                step()
        return totals

    def write(self, output: str, *, force: bool) -> tuple[Totals, dict[str, Any]]:
        """Write it, and audit that it was written before it is there."""
        totals = Totals()
        with (
            open_output(output, force=force) as target,
            progress(len(self.chosen.conversions), "writing") as step,
        ):
            if self.form is Form.BUNDLE:
                signer = signer_of(load_settings())
                manifest = write_bundle(
                    self.engine, self.chosen.conversions, target,
                    signer=signer, about=self.handing.about, handing=self.handing, progress=step,
                )  # fmt: skip
                totals = counted(manifest.counts)
                found = {
                    "manifest_sha256": hashlib.sha256(manifest.encode()).hexdigest(),
                    "fingerprint": signer.public.fingerprint,
                }
            else:
                reading = Reading(self.engine, self.handing, database_now(self.engine))
                lives = self._counted(reading, totals, step)
                target.writelines(
                    piece.encode("utf-8", "backslashreplace")
                    for piece in pieces(self.form, lives, self.handing, bom=self.bom)
                )
                found = {}
            self._audit(totals, found)
        return totals, found

    def _counted(self, reading: Reading, totals: Totals, step: Callable[[], None]) -> Iterator[Life]:
        for life in reading.lives(self.chosen.conversions):
            totals.add(life)
            yield life
            step()

    def _audit(self, totals: Totals, found: dict[str, Any]) -> None:
        # Not the selection's words: they may hold an order or click id, which may have to be forgotten.
        detail = {
            "form": self.form.value,
            **totals.numbers(),
            "network": self.handing.network.slug if self.handing.network else None,
            "click_ids_masked": self.handing.mask_click_ids,
            **found,
        }
        audit.record(self.engine, who=self.handing.who, action="evidence.export", detail=detail)


@contextmanager
def progress(total: int, words: str) -> Iterator[Callable[[], None]]:
    """A bar on standard error while somebody looks at it."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(words, total=total)
        yield lambda: bar.advance(task)
