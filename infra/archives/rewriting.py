"""Writing an archive anew without what is erased in it: blocks that are not concerned are copied as they stand."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path

from infra.archives.form import TABLES, Values
from infra.archives.reading import ArchiveReader, id_of, verify
from infra.archives.writing import ArchiveWriter, Written


def rewrite(
    source: Path,
    target: Path,
    attempt_ids: Collection[int],
    change: Callable[[str, Values], Values],
    at: datetime,
) -> Written:
    """Write ``target`` as ``source`` is, but for the rows of some attempts, which ``change`` gives; then read it back."""
    wanted = set(attempt_ids)
    with ArchiveReader(source) as reader:
        heads = sorted((attempt, postback) for postback, attempt in reader.postbacks())
        header = {
            key: value
            for key, value in reader.directory.header.items()
            if key not in {"tables", "holdfire_archive"}
        }
        with ArchiveWriter(
            target, header | {"erased_at": at.isoformat()}, reader.directory.columns
        ) as writer:
            place = 0
            for block in reader.directory.blocks:
                start = place
                while place < len(heads) and heads[place][0] <= block.last_attempt:
                    place += 1
                some = heads[start:place]
                if not any(attempt in wanted for attempt, _ in some):
                    writer.add_packed(some, reader.packed(block), block.rows)
                    continue
                rows = reader.rows(block)
                changed = {
                    table: [
                        {**row, **change(table, row)} if id_of(table, row) in wanted else row
                        for row in rows[table]
                    ]
                    for table in TABLES
                }
                writer.add(some, changed)
            written = writer.finish()
    verify(written.path, written.sha256)
    return written
