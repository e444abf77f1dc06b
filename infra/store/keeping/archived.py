"""Reading evidence that has left the tables: rows of archives, as the tables had them, and what cannot be read of it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, text

from infra.archives.form import TABLES, DamagedArchiveError, Values
from infra.archives.reading import ArchiveReader, id_of
from infra.store.keeping.archiving import PART_COLUMNS, Part, part_of

FOLDER_VARIABLE = "HOLDFIRE_ARCHIVE_DIR"
"""Where archives are looked for on this machine, if not in the folder that they were written to."""


@dataclass(frozen=True, slots=True)
class Gap:
    """An archive that some of a postback's evidence may be in, and cannot be read: why, in words."""

    file: str
    why: str
    first_postback: int
    last_postback: int


@dataclass(slots=True)
class Archived:
    """Rows by table, the files they come from by attempt, and what cannot be read."""

    rows: dict[str, list[Values]] = field(default_factory=lambda: {table: [] for table in TABLES})
    files: dict[int, str] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)


_OF_POSTBACKS = text(f"""
    SELECT {PART_COLUMNS}, first_postback, last_postback FROM archives a
    WHERE EXISTS (SELECT FROM unnest(CAST(:ids AS bigint[])) p WHERE p BETWEEN a.first_postback AND a.last_postback)
    ORDER BY month, id""")  # noqa: S608 — our own words

_OF_ATTEMPT = text(f"""
    SELECT {PART_COLUMNS} FROM archives
    WHERE :id BETWEEN first_attempt AND last_attempt AND expired_at IS NULL ORDER BY id""")  # noqa: S608 — our own words


def read_archived(connection: Connection, counts: Mapping[int, int]) -> Archived:
    """What archives have of postbacks, given with how many of their attempts and checks are in archives."""
    found = Archived()
    ids = [number for number, count in counts.items() if count]
    if not ids:
        return found
    for row in connection.execute(_OF_POSTBACKS, {"ids": ids}).all():
        part = part_of(row)
        why = _read(part, ids, found)
        if why is not None:
            found.gaps.append(Gap(part.file, why, row.first_postback, row.last_postback))
    missing = dict(counts)
    for table in ("attempts", "checks"):
        for each in found.rows[table]:
            missing[each["postback_id"]] -= 1
    # A file that cannot be read matters only to what is not found elsewhere.
    found.gaps = [
        gap
        for gap in found.gaps
        if any(
            left > 0 and gap.first_postback <= number <= gap.last_postback for number, left in missing.items()
        )
    ]
    return found


def postback_of_archived(connection: Connection, attempt_id: int) -> int | None:
    """The postback of an attempt or check that is in an archive. One that cannot be read has none."""
    for row in connection.execute(_OF_ATTEMPT, {"id": attempt_id}).all():
        try:
            with ArchiveReader(place_of(part_of(row))) as reader:
                rows = reader.rows_of([attempt_id])
        except (OSError, DamagedArchiveError):
            continue
        for table in ("attempts", "checks", "intents"):
            for each in rows.get(table, ()):
                number: int = each["postback_id"]
                return number
    return None


def place_of(part: Part) -> Path:
    """Where a file is looked for."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return Path(folder) / part.file if folder else part.path


def _read(part: Part, postback_ids: Sequence[int], found: Archived) -> str | None:
    """Add what the file has of these postbacks; or say why it cannot be read."""
    if part.expired_at is not None:
        return f"was deleted on {part.expired_at:%Y-%m-%d}, as the retention asks"
    path = place_of(part)
    try:
        with ArchiveReader(path) as reader:
            attempts = reader.attempts_of(postback_ids)
            rows = reader.rows_of(attempts) if attempts else defaultdict(list)
    except FileNotFoundError:
        return f"is not there: {path}"
    except OSError as error:
        return f"cannot be read: {path}: {error.strerror}"
    except DamagedArchiveError as error:
        return f"is damaged: {path}: {error}"
    for table in TABLES:
        for row in rows[table]:
            found.rows[table].append(row)
            found.files[id_of(table, row)] = part.file
    return None
