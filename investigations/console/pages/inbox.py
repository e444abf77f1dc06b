"""What came in over HTTP: the list, and one request as it came, with what was answered and what was made of it since."""

from __future__ import annotations

import orjson
from starlette.requests import Request
from starlette.responses import Response

from infra.store import arrivals, deliveries
from infra.store.searching import listings
from investigations.bodies import readable
from investigations.console import asked
from investigations.console.frame import (
    Link,
    NotFoundError,
    engine_of,
    masking_of,
    note_evidence,
    render,
)
from investigations.console.leaves import leaves_of_request
from investigations.console.routing import page

KINDS = ("events", "hook", "click")


def _list(request: Request) -> Response:
    sifted = asked.sifted(request)
    before = asked.before(request, "in")
    found = listings.requests(engine_of(request), sifted, before=before, limit=asked.PAGE + 1)
    return render(
        request,
        "inbox.html",
        rows=found[: asked.PAGE],
        more=len(found) > asked.PAGE,
        before=before,
        asked=asked.asked(request),
        kinds=KINDS,
        hidden=masking_of(request).on,
    )


def _one(request: Request) -> Response:
    number = asked.number(request, "in")
    kept = deliveries.read(engine_of(request), number)
    if kept is None:
        raise NotFoundError(f"There is no request in_{number}.")
    note_evidence(request, f"in_{number}")
    head = "".join(f"{name}: {value}\r\n" for name, value in kept.headers).encode("utf-8", "replace")
    masking = masking_of(request)
    return render(
        request,
        "inbox_request.html",
        kept=kept,
        body=readable(head, kept.body),
        hidden=masking.on,
        leaves=leaves_of_request(kept.target, kept.body) if masking.on else frozenset(),
        answer=orjson.dumps(kept.answer, option=orjson.OPT_INDENT_2).decode(),
        problems=_problems,
        brought=arrivals.came_of(engine_of(request), kept),
    )


def _problems(answer: dict[str, object]) -> list[dict[str, str]]:
    """Every reason in what was answered."""
    refused = answer.get("rejected", [])
    assert isinstance(refused, list)
    return [problem for each in refused for problem in each.get("problems", [each])]


routes = [page("/inbox", _list), page("/inbox/{id}", _one)]
menu = [Link(50, "/inbox", "Inbox")]
