"""Reconciling a report from the browser: send it, see how it would be read, say otherwise, and follow it to its end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from infra.filters import AskingError
from infra.report_files import UnplacedError
from infra.settings import load_settings
from infra.store import destinations
from investigations.console import reconciling, uploads
from investigations.console.frame import (
    NotFoundError,
    form_of,
    long_engine_of,
    redirect,
    render,
    settings_of,
    signed_in,
    who_of,
)
from investigations.console.report_form import FIELDS, NO_THOUSANDS, filled, options_of
from investigations.console.routing import Access, act, page
from investigations.console.uploads import Upload
from investigations.reconcile.running import ReconcileError, preview
from schemas.cells import MappingError
from schemas.ids import show
from schemas.reconciling.options import ReportOptions
from schemas.reconciling.rows import ReadRow


def _folder(request: Request) -> Path:
    given = settings_of(request).data_dir
    return Path(given if given is not None else load_settings().data_dir) / "uploads"


def _new(request: Request) -> Response:
    return _form(request)


def _form(request: Request, wrong: str | None = None) -> Response:
    return render(
        request,
        "report_new.html",
        200 if wrong is None else 400,
        destinations=destinations.names(long_engine_of(request)),
        destination=request.query_params.get("destination", ""),
        largest=uploads.LARGEST,
        wrong=wrong,
    )


def _upload(request: Request) -> Response:
    form = form_of(request)
    file, destination = form.get("file"), str(form.get("destination", ""))
    if not isinstance(file, UploadFile) or not file.filename:
        return _form(request, "Choose the report's file: CSV or XLSX, as the network gave it.")
    if destination not in destinations.names(long_engine_of(request)):
        return _form(request, "Choose the destination that the report is of.")
    account = signed_in(request).name
    kept = uploads.keep(_folder(request), file.file, file.filename, destination, account)
    return redirect(request, f"/reports/new/{kept.token}")


def _kept(request: Request) -> Upload:
    found = uploads.find(_folder(request), request.path_params["token"], signed_in(request).name)
    if found is None:
        raise NotFoundError("This file is not kept any more; send it again.")
    return found


def _preview(request: Request) -> Response:
    answer = _shown(request, _kept(request), ReportOptions())
    answer.status_code = 200  # what cannot be guessed is no fault of the file: the form asks for it
    return answer


@dataclass(frozen=True, slots=True)
class _Sent:
    """The first rows as they were sent, also where nobody can tell yet which column is which."""

    header: tuple[str, ...] = ()
    header_line: int = 1
    rows: tuple[tuple[str, ...], ...] = ()
    read: tuple[ReadRow, ...] = ()


def _shown(request: Request, upload: Upload, options: ReportOptions, wrong: str | None = None) -> Response:
    """How it would be read under these options; where it cannot be, why, and the form to say otherwise."""
    sent, decided = _Sent(), options
    try:
        found = preview(long_engine_of(request), upload.destination, upload.path, options, name=upload.name)
        sent, decided = _Sent(found.header, found.header_line, found.rows, found.read), found.options
    except UnplacedError as error:
        sent = _Sent(error.header, error.header_line, tuple(tuple(row.cells) for row in error.sample[:10]))
        wrong = wrong or str(error)
    except (MappingError, ReconcileError) as error:
        wrong = wrong or str(error)
    return render(
        request,
        "report_preview.html",
        200 if wrong is None else 400,
        upload=upload,
        sent=sent,
        fields=FIELDS,
        given=filled(decided),
        options=decided,
        zones=sorted(available_timezones()),
        no_thousands=NO_THOUSANDS,
        wrong=_for_a_form(wrong),
    )


def _for_a_form(words: str | None) -> str | None:
    """What the command line's remedy is here."""
    return words and re.sub(r"--map [a-z_]+=COLUMN", "the columns below", words)


def _step(request: Request) -> Response:
    """Look again under other options, or begin."""
    upload, form = _kept(request), form_of(request)
    try:
        options = options_of(form)
    except AskingError as error:
        return _shown(request, upload, ReportOptions(), str(error))
    if form.get("step") != "do":
        return _shown(request, upload, options)
    try:
        preview(long_engine_of(request), upload.destination, upload.path, options, upload.name)
    except (MappingError, ReconcileError):
        return _shown(request, upload, options)
    reconciling.begin(long_engine_of(request), upload, options, who_of(request))
    return redirect(request, f"/reports/new/{upload.token}/progress")


def _progress(request: Request) -> Response:
    token = request.path_params["token"]
    work = reconciling.work_on(token)
    if work is None:
        return redirect(request, f"/reports/new/{_kept(request).token}")
    if work.report_id is not None:
        return RedirectResponse(f"/reports/{show('rp', work.report_id)}", 303)
    context: dict[str, Any] = {"work": work, "token": token}
    return render(request, "report_progress.html", **context)


routes = [
    page("/reports/new", _new, access=Access.OPERATOR),
    act("/reports/new", _upload, largest=uploads.LARGEST),
    page("/reports/new/{token}", _preview, access=Access.OPERATOR),
    act("/reports/new/{token}", _step),
    page("/reports/new/{token}/progress", _progress, access=Access.OPERATOR),
]
