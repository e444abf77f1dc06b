"""Looking for attempts in archives: each file is read through, for they have no index by what an attempt came to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date

from sqlalchemy import Engine, text

from infra.archives.form import DamagedArchiveError, Values
from infra.archives.reading import ArchiveReader, Rows
from infra.store.keeping.archived import place_of
from infra.store.keeping.archiving import PART_COLUMNS, Part, part_of
from infra.store.searching.criteria import (
    ATTEMPT_CRITERIA,
    Criteria,
    bound,
    failure_kind,
    postback_conditions,
    run,
)

OF_ATTEMPTS = frozenset(ATTEMPT_CRITERIA)
_BYTES = ("request_head", "body", "response_head", "request_body")


@dataclass(slots=True)
class InArchives:
    """Postbacks by id, newest first, and files that could not be looked into."""

    postbacks: list[int] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    files: int = 0


def asks_about_attempts(criteria: Criteria) -> bool:
    return bool(criteria.given() & OF_ATTEMPTS)


def tables_begin(engine: Engine) -> date | None:
    """The first month after the last that left the tables: attempts before it may be in archives alone."""
    query = text("SELECT (max(month) + interval '1 month')::date FROM archives WHERE gone_attempts > 0")
    with engine.connect() as connection:
        found: date | None = connection.execute(query).scalar_one()
        return found


def find_in_archives(
    engine: Engine, criteria: Criteria, progress: Callable[[str], None] = lambda _: None
) -> InArchives:
    """Postbacks with an archived attempt that matches, and of which the rest of the criteria holds; those that the
    tables find too are left out."""
    found, ids = InArchives(), set[int]()
    query = text(f"SELECT {PART_COLUMNS} FROM archives WHERE gone_attempts > 0 ORDER BY month DESC, id")  # noqa: S608 — our own words
    with engine.connect() as connection:
        parts = [part_of(row) for row in connection.execute(query)]
    for part in parts:
        if criteria.destination not in {None, part.destination}:
            continue
        progress(part.file)
        found.files += 1
        why = _look(part, criteria, ids)
        if why is not None:
            found.unreadable.append(f"{part.file} {why}")
    found.postbacks = _holding(engine, criteria, ids)
    return found


def _look(part: Part, criteria: Criteria, ids: set[int]) -> str | None:
    if part.expired_at is not None:
        return "was deleted, as the retention asks"
    try:
        with ArchiveReader(place_of(part)) as reader:
            for block in reader.directory.blocks:
                ids |= matching(reader.rows(block), criteria)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except DamagedArchiveError as error:
        return f"is damaged: {error}"
    return None


def matching(rows: Rows, criteria: Criteria) -> set[int]:
    """Postbacks that have an attempt among the rows of which everything holds that is asked about attempts.

    The same as ``ATTEMPT_CRITERIA`` say in SQL.
    """
    hops: dict[int, list[Values]] = defaultdict(list)
    for hop in rows["hops"]:
        hops[hop["attempt_id"]].append(hop)
    return {row["postback_id"] for row in rows["attempts"] if _holds(row, hops[row["id"]], criteria)}


def _holds(row: Values, hops: list[Values], criteria: Criteria) -> bool:
    if criteria.verdict is not None and row["verdict"] != criteria.verdict:
        return False
    if criteria.status_codes is not None:
        lowest, highest = criteria.status_codes
        codes = [row["status_code"], *(hop["status_code"] for hop in hops)]
        if not any(code is not None and lowest <= code <= highest for code in codes):
            return False
    if criteria.error is not None:
        error = criteria.error.lower()
        kind = row["rule"].split(" ", 1)[0]
        if row["error_class"] is None or (
            row["error_class"].lower() != error and kind != failure_kind(error)
        ):
            return False
    if criteria.text is not None:
        raw = criteria.text.encode()
        if not any(criteria.text in hop["url"] or any(raw in hop[name] for name in _BYTES) for hop in hops):
            return False
    return True


def _holding(engine: Engine, criteria: Criteria, ids: set[int]) -> list[int]:
    if not ids:
        return []
    rest = replace(criteria, verdict=None, status_codes=None, error=None, text=None)
    where, _ = postback_conditions(rest)
    there, _ = postback_conditions(criteria)
    tables = "FROM postbacks p JOIN conversions c ON c.id = p.conversion_id WHERE p.id = ANY(:ids)"
    statement = f"""
        SELECT p.id {tables} AND {where} AND p.id NOT IN (SELECT p.id {tables} AND {there}) ORDER BY p.id DESC"""
    with engine.connect() as connection:
        return [row.id for row in run(connection, statement, bound(criteria) | {"ids": sorted(ids)})]
