"""Networks' reports: what they came to, bucket by bucket and cause by cause, down to each conversion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from infra.store.reports import reports
from infra.store.reports.reports import FindingRecord, ReportRecord
from investigations.console.downloads import csv_response, zip_response
from investigations.console.errors import BadRequestError
from investigations.console.frame import (
    ForbiddenError,
    Link,
    NotFoundError,
    engine_of,
    long_engine_of,
    masking_of,
    render,
    signed_in,
    who_of,
)
from investigations.console.reading import number_of
from investigations.console.report_view import chart
from investigations.console.routing import Access, page
from investigations.reconcile.pages import (
    FINDING_FIELDS,
    SIDES,
    amounts,
    bucket_name,
    days_of,
    finding_json,
    percent,
    read_as,
)
from investigations.reconcile.support import write_support
from schemas.accounts import Role
from schemas.ids import show
from schemas.reconciling.findings import CAUSES, Bucket, Cause, Side

WORDS: dict[str, Any] = {
    "bucket_name": bucket_name,
    "percent": percent,
    "amounts": amounts,
    "sides": SIDES,
    "causes": CAUSES,
    "Bucket": Bucket,
}
"""What templates say of buckets, shares and sums, as the command line does."""


def _list(request: Request) -> Response:
    wanted = request.query_params.get("destination") or None
    return render(
        request,
        "reports.html",
        reports=reports.reports(engine_of(request), destination=wanted),
        destination=wanted,
        operator=signed_in(request).role is Role.OPERATOR,
        **WORDS,
    )


def _report(request: Request) -> ReportRecord:
    number = number_of(request.path_params["id"], "rp")
    found = reports.report(engine_of(request), number)
    if found is None:
        raise NotFoundError(f"There is no report {show('rp', number)}.")
    return found


def _one(request: Request) -> Response:
    report = _report(request)
    return render(
        request,
        "report.html",
        report=report,
        name=show("rp", report.id),
        chart=None if report.summary is None else chart(report.summary),
        days=days_of(report),
        read_as=read_as(report),
        operator=signed_in(request).role is Role.OPERATOR,
        disputes=sum(
            each.count
            for each in (report.summary.causes if report.summary else ())
            if each.side is Side.NETWORK
        ),
        **WORDS,
    )


def _narrowed(request: Request) -> dict[str, Any]:
    """``bucket``, ``cause`` and ``side`` of the address. Raises BadRequestError for one that is none."""
    known = {"bucket": Bucket, "cause": Cause, "side": Side}
    narrowed: dict[str, Any] = {name: request.query_params.get(name) or None for name in known}
    for name, text in narrowed.items():
        if text is not None and text not in list(known[name]):
            raise BadRequestError(f"{text} is no {name}; there are: {', '.join(known[name])}.")
    return narrowed


def _findings(request: Request) -> Response:
    report, narrowed = _report(request), _narrowed(request)
    text = request.query_params.get("after", "0")
    if not text.isdigit() or len(text) > 18:
        raise BadRequestError(f"after={text} is no place in a listing; begin from the first page.")
    found = reports.findings(engine_of(request), report.id, **narrowed, after=int(text))
    masking = masking_of(request)
    return render(
        request,
        "findings.html",
        report=report,
        name=show("rp", report.id),
        found=found,
        after=int(text),
        asked=narrowed,
        seen=lambda each, words: masking.text(words, _click_ids(each)),
        **WORDS,
    )


def _click_ids(found: FindingRecord) -> list[str]:
    return [each for each in (found.our_click_id, found.their_click_id) if each]


def _csv(request: Request) -> Response:
    report, narrowed = _report(request), _narrowed(request)
    if masking_of(request).on:
        raise ForbiddenError("This file has click ids, which this account sees masked by policy.")
    return csv_response(request, show("rp", report.id), FINDING_FIELDS, _cells(request, report, narrowed))


def _cells(request: Request, report: ReportRecord, narrowed: dict[str, Any]) -> Iterator[list[str]]:
    for each in reports.all_findings(long_engine_of(request), report.id, **narrowed):
        told = finding_json(each)
        yield ["" if told[name] is None else str(told[name]) for name in FINDING_FIELDS]


def _bad_rows(request: Request) -> Response:
    report = _report(request)
    if masking_of(request).on:
        raise ForbiddenError("These rows may have click ids, which this account sees masked by policy.")
    text = request.query_params.get("after", "0")
    after = int(text) if text.isdigit() and len(text) < 18 else 0
    rows = reports.bad_rows(engine_of(request), report.id, after=after)
    more = len(rows) == reports.PER_PAGE
    return render(
        request, "bad_rows.html", report=report, name=show("rp", report.id), rows=rows, after=after, more=more
    )


def _support(request: Request) -> Response:
    report = _report(request)
    name = f"{show('rp', report.id)}-{report.network}.zip"
    return zip_response(
        name, lambda target: write_support(long_engine_of(request), report, target, who=who_of(request))
    )


routes = [
    page("/reports", _list),
    page("/reports/{id}", _one),
    page("/reports/{id}/findings", _findings),
    page("/reports/{id}/findings.csv", _csv),
    page("/reports/{id}/bad-rows", _bad_rows),
    page("/reports/{id}/support.zip", _support, access=Access.OPERATOR),
]
menu = [Link(30, "/reports", "Reports")]
