"""Downloads that are made while they are sent: however many rows there are, they take no memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import BinaryIO

import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import StreamingResponse

from infra.store import audit
from investigations.console.frame import engine_of, who_of
from investigations.export.cells import BOM, csv_line

log = structlog.get_logger()
LINES_A_CHUNK = 200
PART_BYTES = 65_536


def csv_response(
    request: Request, name: str, header: Sequence[str], rows: Iterable[Sequence[str]]
) -> StreamingResponse:
    """A CSV whose cells no spreadsheet runs, sent as it is made. That it was taken is audited, with what was asked."""
    asked = dict(request.query_params)
    audit.record(
        engine_of(request), who=who_of(request), action="export.csv", detail={"name": name, "asked": asked}
    )
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return StreamingResponse(
        _chunks(name, header, rows),
        media_type="text/csv; charset=utf-8",
        headers={"content-disposition": f'attachment; filename="{name}-{stamp}.csv"'},
    )


def _chunks(name: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield BOM + csv_line(header)
    lines = map(csv_line, rows)
    try:
        while chunk := "".join(islice(lines, LINES_A_CHUNK)):
            yield chunk
    except SQLAlchemyError as error:
        # The status is long sent: what is broken off must not look whole.
        log.warning("export.broken_off", name=name, kind=type(error).__name__)
        yield csv_line(["# broken off: the database did not answer; this file is not whole"])
        raise


def zip_response(name: str, write: Callable[[BinaryIO], object]) -> StreamingResponse:
    """A zip that ``write`` makes into a temporary file, and that is sent once it is whole: nobody gets half of one."""
    target = tempfile.TemporaryFile()  # noqa: SIM115 — closed once it is sent
    try:
        write(target)
    except BaseException:
        target.close()
        raise
    length = target.tell()
    target.seek(0)
    return StreamingResponse(
        _parts(target),
        media_type="application/zip",
        headers={"content-disposition": f'attachment; filename="{name}"', "content-length": str(length)},
    )


def _parts(source: BinaryIO) -> Iterator[bytes]:
    with source:
        while part := source.read(PART_BYTES):
            yield part
