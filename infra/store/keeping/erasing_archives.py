"""Erasing in archives: each file that has some of it is written anew, recorded, and the old one deleted."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, Engine, text

from infra.archives.form import DamagedArchiveError, Values
from infra.archives.reading import ArchiveReader
from infra.archives.rewriting import rewrite
from infra.store.keeping.archived import place_of
from infra.store.keeping.archiving import PART_COLUMNS, Part, part_of
from infra.store.keeping.erasing import NotErasableError
from infra.store.keeping.reach import Reach
from schemas.erasing import bare_row


def concerned(engine: Engine, reach: Reach) -> list[tuple[Part, list[int]]]:
    """Archives with any of it, each with the attempts and checks in question.

    Raises NotErasableError for one that cannot be read: what cannot be read cannot be erased.
    """
    query = text(f"""
        SELECT {PART_COLUMNS} FROM archives a WHERE expired_at IS NULL AND EXISTS (
            SELECT FROM postbacks p WHERE p.id = ANY(:ids) AND p.archived + p.archived_checks > 0
                AND p.id BETWEEN a.first_postback AND a.last_postback) ORDER BY id""")  # noqa: S608 — our own words
    with engine.connect() as connection:
        parts = [part_of(row) for row in connection.execute(query, {"ids": reach.postbacks})]
    found = []
    for part in parts:
        try:
            with ArchiveReader(place_of(part)) as reader:
                attempts = reader.attempts_of(reach.postbacks)
        except (OSError, DamagedArchiveError) as error:
            raise NotErasableError(
                f"the archive {place_of(part)} cannot be read ({error}), and may have some of it; put it back first"
            ) from error
        if attempts:
            found.append((part, attempts))
    return found


def erase_in(engine: Engine, part: Part, attempts: list[int], at: datetime) -> None:
    """Write a part anew, record it, and delete the file that it replaces."""
    source = place_of(part)
    target = source.with_name(_next_name(part.file))
    written = rewrite(source, target, attempts, _bare, at)
    with engine.begin() as connection:
        connection.execute(
            text("""
            UPDATE archives SET file = :file, bytes = :bytes, sha256 = :sha256, replaced = :old
            WHERE id = :id AND file = :old"""),
            {
                "id": part.id,
                "file": target.name,
                "bytes": written.bytes,
                "sha256": written.sha256,
                "old": part.file,
            },
        )
    delete_replaced(engine)


def delete_replaced(engine: Engine) -> int:
    """Delete the files that were written anew, also those that an interruption left. How many there were."""
    with engine.connect() as connection:
        rows = connection.execute(
            text(f"SELECT {PART_COLUMNS}, replaced FROM archives WHERE replaced IS NOT NULL")  # noqa: S608 — our own words
        ).all()
    for row in rows:
        part = part_of(row)
        (place_of(part).parent / row.replaced).unlink(missing_ok=True)
        with engine.begin() as connection:
            _forget_replaced(connection, part, row.replaced)
    return len(rows)


def _forget_replaced(connection: Connection, part: Part, name: str) -> None:
    connection.execute(
        text("UPDATE archives SET replaced = NULL WHERE id = :id AND replaced = :name"),
        {"id": part.id, "name": name},
    )


def _bare(table: str, row: Values) -> Values:
    return bare_row(table, row)


def _next_name(file: str) -> str:
    """``2025-08.push.1.ndjson.gz`` becomes ``2025-08.push.1.e1.ndjson.gz``, and that ``….e2….``"""
    stem = Path(file).name.removesuffix(".ndjson.gz")
    found = re.fullmatch(r"(.*)\.e([0-9]+)", stem)
    base, number = (found[1], int(found[2]) + 1) if found else (stem, 1)
    return f"{base}.e{number}.ndjson.gz"
