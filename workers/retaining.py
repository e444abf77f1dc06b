"""Retention: months that are past what their destinations keep go into archives, are read back, and leave the tables.

Killed at any instant, the next run goes on: an archive counts once its row in ``archives`` is committed, and rows leave
the tables only after that.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path

import structlog
from sqlalchemy import Engine

from infra.archives.form import TABLES, Columns
from infra.archives.reading import ArchiveReader, verify
from infra.archives.writing import ArchiveWriter
from infra.store.firing import database_now
from infra.store.keeping import archiving, expiring
from infra.store.keeping.archiving import WINDOW, ArchiveMismatchError, Filed, Head, Leaving, Part
from infra.store.keeping.dropping import drop_month
from infra.store.keeping.erasing_archives import delete_replaced
from infra.store.keeping.keeping import alone, months
from infra.store.keeping.legal_holds import held_destinations, refresh
from schemas import keeping
from schemas.keeping import Policy, is_past

log = structlog.get_logger()

PER_BLOCK = 200
"""Attempts: some 60 kB packed, which is what reading one of them costs."""
PER_PART = 50_000
"""Attempts in one file; an erasure writes one anew, and an interruption costs the one that is being written."""

Progress = Callable[[str], None]


@dataclass(slots=True)
class Retained:
    """What a run came to; of a dry run, what it would come to."""

    archived: dict[tuple[date, str], int] = field(default_factory=dict)
    """Attempts and checks by month and destination."""
    stay_held: int = 0
    """Attempts of months that are past, which stay for a legal hold."""
    stay_open: int = 0
    """The same, of postbacks that have not ended."""
    dropped: list[date] = field(default_factory=list)
    expired: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    """Rows dropped by their age, by table."""
    bytes: int = 0
    took_s: float = 0.0


class ArchiveFolderError(OSError):
    """Archives cannot be written where they should be: why, and what to do."""


def _check_folder(folder: Path) -> None:
    """Before anything is looked at: evidence leaves only for a folder that can be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        reason = error.strerror or type(error).__name__
    else:
        if os.access(folder, os.W_OK | os.X_OK):
            return
        reason = "this user may not write to it"
    raise ArchiveFolderError(
        f"{folder} cannot hold archives: {reason}; make it writable, or name another as archive_dir"
    )


def retain(engine: Engine, policy: Policy, folder: Path, progress: Progress = lambda _: None) -> Retained:
    """Do all that the policy asks for. Raises KeepingElsewhereError; and whatever stops it, with all done so far kept."""
    started, done = time.monotonic(), Retained()
    _check_folder(folder)
    with alone(engine):
        refresh(engine)
        now = database_now(engine)
        for month in sorted({part.month for part in archiving.pending(engine)}):
            _take_out(engine, month, done, progress)
        for month in due_months(engine, policy, now):
            _archive(
                engine,
                _Month(month, policy, folder, now, frozenset(held_destinations(engine))),
                done,
                progress,
            )
            _take_out(engine, month, done, progress)
        delete_replaced(engine)
        for part in [*expiring.expired(engine, policy, now), *expiring.left_over(engine)]:
            expiring.expire(engine, part)
            done.expired.append(part.file)
        for table, age in _ages(policy):
            while count := expiring.drop_old(engine, table, age):
                done.rows[table] = done.rows.get(table, 0) + count
                progress(f"{table}: {done.rows[table]} dropped")
    done.took_s = time.monotonic() - started
    return done


def foresee(engine: Engine, policy: Policy) -> Retained:
    """What ``retain`` would do now. Changes nothing but what the legal holds were found to match."""
    refresh(engine)
    done, now = Retained(), database_now(engine)
    held = frozenset(held_destinations(engine))
    for month in due_months(engine, policy, now):
        for head in _leaving(engine, _Month(month, policy, Path(), now, held), done):
            key = month, head.destination
            done.archived[key] = done.archived.get(key, 0) + 1
    done.expired = [part.file for part in expiring.expired(engine, policy, now)]
    done.rows = {
        table: count for table, age in _ages(policy) if (count := expiring.count_old(engine, table, age))
    }
    return done


def due_months(engine: Engine, policy: Policy, now: datetime) -> list[date]:
    """Months that are past what at least one destination keeps, oldest first."""
    ages = [policy.keeping.evidence, *policy.by_destination.values()]
    with engine.connect() as connection:
        return [month for month in months(connection) if any(is_past(month, age, now) for age in ages)]


def _ages(policy: Policy) -> Iterator[tuple[str, timedelta]]:
    for table in keeping.TABLES:
        age = getattr(policy.keeping, table)
        if age is not None:
            yield table, age


@dataclass(frozen=True, slots=True)
class _Month:
    """A month, and what decides over it."""

    month: date
    policy: Policy
    folder: Path
    now: datetime
    held: frozenset[str]


def _leaving(engine: Engine, of: _Month, done: Retained) -> Iterator[Head]:
    """Attempts and checks of a month that may leave and are in no archive yet, by id."""
    ranges: dict[str, list[range]] = defaultdict(list)
    for part in archiving.pending(engine, of.month):
        ranges[part.destination].append(range(part.first_attempt, part.last_attempt + 1))
    after = 0
    while True:
        heads = archiving.heads(engine, of.month, after)
        for head in heads:
            if not is_past(of.month, of.policy.keep(head.destination), of.now):
                continue
            if head.held or head.destination in of.held:
                done.stay_held += 1
            elif head.open:
                done.stay_open += 1
            elif not any(head.id in each for each in ranges[head.destination]):
                yield head
        if len(heads) < WINDOW:
            return
        after = heads[-1].id


def _archive(engine: Engine, of: _Month, done: Retained, progress: Progress) -> None:
    """Write all that may leave a month into parts, one open file a destination."""
    columns = archiving.columns(engine)
    files: dict[str, _Filing] = {}
    try:
        for head in _leaving(engine, of, done):
            filing = files.get(head.destination)
            if filing is None:
                filing = files[head.destination] = _Filing(engine, of, head.destination, columns)
            filing.add(head)
            if filing.count >= PER_PART:
                files.pop(head.destination).finish(done, progress)
        for filing in files.values():
            filing.finish(done, progress)
    finally:
        for filing in files.values():
            filing.writer.__exit__(None, None, None)


class _Filing:
    """One part being written."""

    def __init__(self, engine: Engine, of: _Month, destination: str, columns: Columns) -> None:
        self._engine, self._of, self._destination = engine, of, destination
        self._part = archiving.next_part(engine, of.month, destination)
        name = f"{of.month:%Y-%m}.{destination}.{self._part}.ndjson.gz"
        about = {
            "month": f"{of.month:%Y-%m}",
            "destination": destination,
            "part": self._part,
            "written_at": of.now,
        }
        self.writer = ArchiveWriter(of.folder / name, about, columns)
        self._heads: list[Head] = []
        self._ids: list[int] = []
        self._by_postback: dict[int, Leaving] = defaultdict(Leaving)

    @property
    def count(self) -> int:
        return len(self._ids) + len(self._heads)

    def add(self, head: Head) -> None:
        self._heads.append(head)
        if len(self._heads) == PER_BLOCK:
            self._flush()

    def _flush(self) -> None:
        if not self._heads:
            return
        ids = [head.id for head in self._heads]
        rows = archiving.rows(self._engine, self._of.month, ids)
        self.writer.add([(head.id, head.postback_id) for head in self._heads], rows)
        for row in rows["attempts"]:
            self._by_postback[row["postback_id"]].add_attempt(row)
        for row in rows["checks"]:
            self._by_postback[row["postback_id"]].checks += 1
        self._ids += ids
        self._heads = []

    def finish(self, done: Retained, progress: Progress) -> None:
        """Give the file its name, read it back, and record it: from here on its rows may leave the tables."""
        self._flush()
        written = self.writer.finish()
        counts = verify(written.path, written.sha256)
        wanted = {table: written.directory.rows(table) for table in TABLES}
        if counts != wanted:
            raise ArchiveMismatchError(f"{written.path.name} was read back with {counts} rows, not {wanted}")
        archiving.record(
            self._engine,
            Filed(
                self._of.month, self._destination, self._part, written, self._ids, self._by_postback,
                self._of.policy.keeping.archive,
            ),
        )  # fmt: skip
        key = self._of.month, self._destination
        done.archived[key] = done.archived.get(key, 0) + len(self._ids)
        done.bytes += written.bytes
        log.info("archive.written", file=written.path.name, attempts=len(self._ids), bytes=written.bytes)
        progress(f"{written.path.name}: {len(self._ids)} attempts, {written.bytes / 1e6:.1f} MB")


def _take_out(engine: Engine, month: date, done: Retained, progress: Progress) -> None:
    """Take what is archived of a month out of the tables: the month as a whole if nothing else is in it."""
    for part in archiving.pending(engine, month):
        check_there(part)
    if drop_month(engine, month):
        done.dropped.append(month)
        log.info("month.dropped", month=f"{month:%Y-%m}")
        progress(f"{month:%Y-%m}: dropped")
        return
    for part in archiving.pending(engine, month):
        _take_part_out(engine, part)
        progress(f"{part.file}: its rows are out of the tables")


def check_there(part: Part) -> None:
    """Nothing leaves the tables for a file that is not there. Raises ArchiveMismatchError."""
    size = part.path.stat().st_size if part.path.exists() else None
    if size != part.bytes:
        state = "is not there" if size is None else f"has {size} bytes, not {part.bytes}"
        raise ArchiveMismatchError(
            f"{part.path} {state}: its rows stay in the tables; put the file back, then run `holdfire retain` again"
        )


def _take_part_out(engine: Engine, part: Part) -> None:
    with ArchiveReader(part.path) as reader:
        for number, block in enumerate(reader.directory.blocks):
            if number >= part.blocks_gone:
                archiving.remove_block(engine, part, number, block, reader.rows(block))
