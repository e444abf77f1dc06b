"""A bundle: everything that is handed over in one zip, with a signed manifest. Written as a stream, in one pass over the log.

Whatever is gathered from all conversions goes to temporary files on the way, so memory does not grow with what is in
them; only names, sizes and digests are kept. The same evidence at the same instant gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import BinaryIO, Self

from sqlalchemy import Engine

from infra.store.firing import database_now
from infra.store.records import Life
from infra.version import VERSION
from investigations.export.exhibit import exhibits
from investigations.export.handing import Handing, Reading
from investigations.export.har import har_entries, har_page, har_text
from investigations.export.inert import inert_json
from investigations.export.manifest import KEY, MANIFEST, SIGNATURE, UNLISTED, FileRecord, Manifest
from investigations.export.packing import Archive, Spool
from investigations.export.signing import Signer
from investigations.export.summary import Totals, summary_conversion, summary_foot, summary_head
from investigations.export.table import csv_header, csv_rows
from investigations.export.writing import transcript_text
from investigations.jsonable import life_json
from schemas.ids import show

SUMMARY, TABLE, HAR, JSON = "summary.html", "attempts.csv", "attempts.har", "conversions.jsonl"


class BadNameError(ValueError):
    """An extra file's name that no bundle may have."""


def write_bundle(  # noqa: PLR0913 — what is optional is told by name
    engine: Engine,
    conversion_ids: Iterable[int],
    target: BinaryIO,
    *,
    signer: Signer,
    about: str,
    extra: Mapping[str, bytes] | None = None,
    handing: Handing | None = None,
    made_at: datetime | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Manifest:
    """Write a bundle of these conversions to ``target``, which need not be seekable, and return its manifest.

    ``about`` says what was asked; ``extra`` files come as they are, under ``extra/``. ``progress`` is called once a
    conversion. Conversions that are not there are named in the manifest. Raises BadNameError.
    """
    for name in extra or {}:
        if (
            not name
            or not name.isascii()
            or not name.replace("-", "").replace("_", "").replace(".", "").isalnum()
        ):
            raise BadNameError(f"extra file {name!r}: use letters, digits, '-', '_' and '.'")
    told = replace(handing or Handing(), about=about)
    reading = Reading(engine, told, made_at or database_now(engine))
    with ExitStack() as stack:
        archive = stack.enter_context(Archive(target))
        gathered = stack.enter_context(_Gathered(told))
        for life in reading.lives(conversion_ids):
            gathered.take(life)
            if lines := list(_transcripts(life)):
                archive.add(f"transcripts/{show('cv', life.conversion.id)}.txt", lines)
            progress()
        for name, pieces in gathered.files(reading, signer.public.fingerprint):
            archive.add(name, pieces)
        for name, raw in sorted((extra or {}).items()):
            archive.add_bytes(f"extra/{name}", raw)
        manifest = _manifest(told, reading, gathered.totals, signer, archive.files)
        encoded = manifest.encode()
        archive.add_bytes(MANIFEST, encoded)
        archive.add_bytes(SIGNATURE, signer.sign(encoded))
        archive.add_bytes(KEY, signer.public.pem)
    return manifest


def _manifest(
    handing: Handing, reading: Reading, totals: Totals, signer: Signer, files: Mapping[str, FileRecord]
) -> Manifest:
    return Manifest(
        made_at=reading.made_at,
        made_by=handing.who,
        version=VERSION,
        about=handing.about,
        selection=handing.selection,
        network=handing.network.slug if handing.network else None,
        time_zone=handing.zone,
        click_ids_masked=handing.mask_click_ids,
        counts=totals.numbers(),
        missing=tuple(show("cv", number) for number in reading.missing),
        fingerprint=signer.public.fingerprint,
        files={name: record for name, record in files.items() if name not in UNLISTED},
    )


def _transcripts(life: Life) -> Iterator[str]:
    for exhibit in exhibits(life):
        yield from transcript_text(exhibit)
        yield "\n"


class _Gathered:
    """What is written from all lives, one line after another, each in a file of its own until its turn comes."""

    def __init__(self, handing: Handing) -> None:
        self.totals = Totals()
        self._handing = handing
        self._spools = {name: Spool() for name in (SUMMARY, TABLE, JSON, "pages", "entries")}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for spool in self._spools.values():
            spool.close()

    def take(self, life: Life) -> None:
        self.totals.add(life)
        handing, spools = self._handing, self._spools
        spools[SUMMARY].put(summary_conversion(handing, life))
        spools[TABLE].put(*csv_rows(handing.fields, exhibits(life), handing.zone_info))
        spools[JSON].put(inert_json(life_json(life)) + "\n")
        for exhibit in exhibits(life):
            spools["pages"].put(inert_json(har_page(life, exhibit.postback, exhibit.attempt)) + "\n")
            entries = har_entries(exhibit.postback, exhibit.attempt)
            spools["entries"].put(*(inert_json(entry) + "\n" for entry in entries))

    def files(self, reading: Reading, fingerprint: str) -> Iterator[tuple[str, Iterable[str]]]:
        """The files by name, in the order they are written."""
        handing, spools = self._handing, self._spools
        yield TABLE, _joined(csv_header(handing.fields), spools[TABLE].pieces())
        yield HAR, har_text(spools["pages"].lines(), spools["entries"].lines())
        yield JSON, spools[JSON].pieces()
        head = summary_head(handing, self.totals, reading.made_at, fingerprint, reading.missing)
        yield SUMMARY, _joined(head, spools[SUMMARY].pieces(), summary_foot(handing))


def _joined(*parts: str | Iterable[str]) -> Iterator[str]:
    for part in parts:
        yield from (part,) if isinstance(part, str) else part
