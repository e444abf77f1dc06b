"""What leaves the database: archives that are there and whole, erasures that ended, and the key they are sealed with."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Engine

from infra.archives.form import DamagedArchiveError
from infra.archives.reading import ArchiveReader, verify
from infra.doctor.finding import Finding, fail, ok, warn
from infra.erasure_key import ErasureKeyError
from infra.store.keeping import archiving, tombstones
from infra.store.keeping.archived import place_of
from infra.store.keeping.archiving import Part
from infra.store.keeping.erasing import unfinished
from infra.store.keeping.keeping import applied, archives_there, last_retention

AT_MOST = 5
"""Files that are named one by one."""


def examine_keeping(engine: Engine, *, read_archives: bool = False) -> Iterator[Finding]:
    """Archives, erasures and their key. ``read_archives``: each file whole, and not its index alone."""
    yield from _archives(engine, read_archives=read_archives)
    yield from _retention(engine)
    yield from _erasures(engine)


def _archives(engine: Engine, *, read_archives: bool) -> Iterator[Finding]:
    parts = archives_there(engine)
    if not parts:
        return
    wrong = [(part, why) for part in parts if (why := _wrong(part, read_all=read_archives)) is not None]
    for part, why in wrong[:AT_MOST]:
        remedy = "put it back from a backup; evidence in it cannot be read until then"
        yield fail("archives", f"{place_of(part)} {why}", remedy)
    if len(wrong) > AT_MOST:
        yield fail("archives", f"{len(wrong) - AT_MOST} more of {len(parts)} files", "as above")
    if not wrong:
        size = sum(part.bytes for part in parts)
        how = "read whole" if read_archives else "their ends and indexes read; --archives reads them whole"
        yield ok("archives", f"{len(parts)} files, {size / 1e6:,.1f} MB: {how}")


def _wrong(part: Part, *, read_all: bool) -> str | None:
    path = place_of(part)
    try:
        if read_all:
            verify(path, part.sha256)
            return None
        with ArchiveReader(path) as reader:
            return None if reader.size == part.bytes else f"has {reader.size} bytes, not {part.bytes}"
    except FileNotFoundError:
        return "is not there"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except DamagedArchiveError as error:
        return f"is damaged: {error}"


def _retention(engine: Engine) -> Iterator[Finding]:
    left = archiving.pending(engine)
    if left:
        says = f"{len(left)} archives are written and their rows still in the tables"
        yield warn("retention", says, "run `holdfire retain` again: it was interrupted")
    if applied(engine).keeping.automatic:
        last = last_retention(engine)
        if last is None or last.total_seconds() > 3 * 86400:
            when = "never" if last is None else f"{last.total_seconds() / 86400:.0f} days ago"
            says = f"it is automatic, and last began {when}"
            yield warn("retention", says, "start a clock and a worker, or run `holdfire retain`")


def _erasures(engine: Engine) -> Iterator[Finding]:
    for number in unfinished(engine):
        says = f"number {number} was interrupted: what it is about is sealed, and not all of it is cleared"
        yield fail("erasures", says, "run the same `holdfire erase` again")
    with engine.connect() as connection:
        if not tombstones.any_stand(connection):
            return
        try:
            tombstones.key_in_use(connection)
        except ErasureKeyError as error:
            reason, _, remedy = str(error).partition("; ")
            yield fail("erasures", f"{reason}: nothing is let in", remedy)
            return
        if tombstones.key_is_stored(connection):
            remedy = "next time set HOLDFIRE_ERASURE_KEY before the first erasure; see docs/keeping.md"
            yield warn("erasures", "their key stands in the database beside what it seals", remedy)
        else:
            yield ok("erasures", "sealed with a key that is not in the database")
