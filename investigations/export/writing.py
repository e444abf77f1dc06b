"""Each form of evidence as pieces of text, life by life; and the file they go to. Nothing is held in memory whole."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from infra.store.records import Life
from investigations.export.cells import BOM
from investigations.export.curl import curl_command
from investigations.export.exhibit import Exhibit, exhibits
from investigations.export.handing import Handing
from investigations.export.har import har_entries, har_page, har_text
from investigations.export.inert import inert_json
from investigations.export.packing import Spool
from investigations.export.table import csv_header, csv_rows
from investigations.jsonable import life_json
from investigations.transcript import transcript
from investigations.words import visible
from schemas.ids import show


class Form(StrEnum):
    """What evidence is handed over as."""

    TRANSCRIPT = "transcript"
    CURL = "curl"
    HAR = "har"
    CSV = "csv"
    JSON = "json"
    BUNDLE = "bundle"


class OutputError(ValueError):
    """A file that cannot be written: which, why, and what to do."""


def pieces(form: Form, lives: Iterable[Life], handing: Handing, *, bom: bool = False) -> Iterator[str]:
    """Every form but the bundle."""
    match form:
        case Form.TRANSCRIPT:
            yield from _transcripts(lives)
        case Form.CURL:
            yield from _commands(lives)
        case Form.HAR:
            yield from _har(lives)
        case Form.CSV:
            yield (BOM if bom else "") + csv_header(handing.fields)
            for life in lives:
                yield from csv_rows(handing.fields, exhibits(life), handing.zone_info)
        case _:
            for life in lives:
                yield inert_json(life_json(life)) + "\n"


def transcript_text(exhibit: Exhibit) -> Iterator[str]:
    """One attempt's transcript, lines with their ends."""
    yield from (f"{line}\n" for line in transcript(exhibit.life, exhibit.postback, exhibit.attempt))


def _transcripts(lives: Iterable[Life]) -> Iterator[str]:
    for number, exhibit in enumerate(each for life in lives for each in exhibits(life)):
        yield "\n" if number else ""
        yield from transcript_text(exhibit)


def _commands(lives: Iterable[Life]) -> Iterator[str]:
    """A command a hop. Run as a script it ends before the first: every one of them would report a conversion again."""
    yield "#!/bin/sh\n"
    yield "# Each command sends a request again, and a network may count it again. Copy the one you mean.\n"
    yield "echo 'nothing was sent: copy the one command you mean' >&2; exit 64\n"
    for life in lives:
        for exhibit in exhibits(life):
            name = f"{show('at', exhibit.attempt.id)}, attempt {exhibit.attempt.number} of {show('pb', exhibit.postback.id)}"
            for hop in exhibit.attempt.hops:
                yield f"\n# {name} to {visible(exhibit.postback.version.contract.name)}, hop {hop.number} of {len(exhibit.attempt.hops)}\n"
                yield curl_command(hop)


def _har(lives: Iterable[Life]) -> Iterator[str]:
    with ExitStack() as stack:
        pages, entries = Spool(), Spool()
        stack.callback(pages.close)
        stack.callback(entries.close)
        for life in lives:
            for exhibit in exhibits(life):
                pages.put(inert_json(har_page(life, exhibit.postback, exhibit.attempt)) + "\n")
                made = har_entries(exhibit.postback, exhibit.attempt)
                entries.put(*(inert_json(entry) + "\n" for entry in made))
        yield from har_text(pages.lines(), entries.lines())


@contextmanager
def open_output(output: str, *, force: bool) -> Iterator[BinaryIO]:
    """Where evidence goes: standard output for ``-``, or a file that is there whole or not at all, for this user alone.

    Raises OutputError.
    """
    if output == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(output)
    check_output(path, force=force)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise OutputError(
            f"{path}: {error.strerror}; give a folder that is there and may be written to"
        ) from None
    made = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        _put_in_place(made, path, force=force)
    finally:
        made.unlink(missing_ok=True)


def check_output(path: Path, *, force: bool) -> None:
    """Refuse before the work what would be refused after it. Raises OutputError."""
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file in it")
    if path.exists() and not force:
        raise OutputError(f"{path} is there already; give another name, or --force to write over it")


def _put_in_place(made: Path, path: Path, *, force: bool) -> None:
    if force:
        made.replace(path)
        return
    try:
        os.link(made, path)  # unlike a rename it never replaces what somebody made meanwhile
    except FileExistsError:
        check_output(path, force=False)
    except OSError:  # a file system without links
        with path.open("xb"):
            pass
        made.replace(path)
