"""What people did, newest first; also as CSV."""

from __future__ import annotations

from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response

from infra.store import audit
from infra.store.audit import Sought
from investigations.console import asked
from investigations.console.downloads import csv_response
from investigations.console.drawing import told
from investigations.console.frame import Link, engine_of, long_engine_of, masking_of, render
from investigations.console.routing import page
from investigations.words import clock
from schemas.ids import show

HEADER = ("id", "at (UTC)", "who", "action", "postback", "detail")


def _sought(request: Request) -> Sought:
    return Sought(
        who=asked.field(request, "who"),
        action=asked.field(request, "action"),
        since=asked.instant(request, "since"),
        until=asked.instant(request, "until"),
        subject=asked.field(request, "subject"),
    )


def _list(request: Request) -> Response:
    before = asked.before(request)
    found = audit.find(engine_of(request), _sought(request), before=before, limit=asked.PAGE + 1)
    return render(
        request,
        "audit.html",
        rows=found[: asked.PAGE],
        more=len(found) > asked.PAGE,
        before=before,
        asked=asked.asked(request),
        actions=audit.actions(engine_of(request)),
    )


def _csv(request: Request) -> Response:
    sought, hidden = _sought(request), masking_of(request).on

    def rows() -> Iterator[tuple[str, ...]]:
        for each in audit.walk(long_engine_of(request), sought):
            postback = "" if each.postback_id is None else show("pb", each.postback_id)
            detail = "; ".join(f"{name}={value}" for name, value in told(each, hidden=hidden))
            yield str(each.id), clock(each.at), each.who, each.action, postback, detail

    return csv_response(request, "holdfire-audit", HEADER, rows())


routes = [page("/audit", _list), page("/audit.csv", _csv)]
menu = [Link(90, "/audit", "Audit")]
