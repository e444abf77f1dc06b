"""``POST /v1/clicks`` and the pixel ``GET /v1/clicks.gif``: landing pages register which click ids came with whom."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, unquote_plus

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import Response
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from infra.catalogue import load_catalogue
from infra.store.destinations import Destinations
from producers.door.callers import Caller, Gatekeeper
from producers.door.committing import Committer
from producers.door.document import ENTRY_PROBLEM, problem
from producers.door.events import idempotency_key, peer_of, shown_headers, target_of
from producers.door.problems import RefusedError, unavailable
from producers.door.reading import decompress, read_body
from schemas.arrival import Arrival, Receipt, Refused
from schemas.click import CLICK, KEYS, Click, ClickRequest, Parameters, parameters_of, read_click
from schemas.problem import Problem

PATH = "/v1/clicks"
PIXEL_PATH = "/v1/clicks.gif"
GIF = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c000000000100010000020144003b")
"""One transparent pixel."""
REFRESH_S = 5.0
"""How long a destination's own click parameters may be out of date here."""

# A pixel carries no credentials, for a browser can keep none; so it has narrow limits of its own, in each process.
PIXEL_QUERY_MAX = 16_000
PIXEL_URL_MAX = 4_000
"""Of the landing page's URL, before it is percent-encoded: with any characters it still fits into a request line."""
PIXELS_PER_S = 500
PIXELS_WAITING_MAX = 300
_IGNORED = frozenset({"_", "cb"})
"""What pages add so that no cache answers."""
_VERBATIM = ("url", "clicked_at", "click_ids.")
"""Parameters in which a plus is a plus; in a key it is a space, as forms write it."""


class Clicks:
    """Takes clicks. One an application; it is open while the application runs."""

    def __init__(self, gatekeeper: Gatekeeper) -> None:
        self._gatekeeper = gatekeeper
        self._committer: Committer | None = None
        self._destinations: Destinations | None = None
        self._parameters: Parameters | None = None
        self._stale_at = 0.0
        self._waiting = 0
        self.pixels_per_s = float(PIXELS_PER_S)
        self._room = float(PIXELS_PER_S)
        self._refilled_at = 0.0

    def open(self, committer: Committer, engine: Engine) -> None:
        """Called once, before the first request."""
        self._committer = committer
        self._destinations = Destinations(engine)

    def close(self) -> None:
        """Called once; what comes later is refused."""
        self._committer = None

    def mount(self, api: FastAPI) -> None:
        """Add the routes and what the document says of them."""
        api.add_api_route(
            PATH,
            self.post,
            methods=["POST"],
            status_code=202,
            tags=["clicks"],
            summary="Register a click",
            description="Links the click ids in a landing page's URL to the keys that a conversion will carry. 202 means "
            "committed; `rejected` says which tokens were left out and why.",
            response_class=Response,
            responses=_RESPONSES,
            openapi_extra=_REQUEST,
        )
        api.add_api_route(
            PIXEL_PATH,
            self.pixel,
            methods=["GET"],
            tags=["clicks"],
            summary="Register a click from a page, without credentials",
            description="The same as parameters, each value percent-encoded once; answered with an image of one pixel.",
            response_class=Response,
            responses=_PIXEL_RESPONSES,
            openapi_extra={"parameters": _PIXEL_PARAMETERS},
        )

    async def post(self, request: Request) -> Response:
        """Take one click as JSON. Raises RefusedError, which the application answers with."""
        headers = dict(request.scope["headers"])
        body = await read_body(request.receive, headers)  # type: ignore[arg-type] # ASGI's own types are wider
        caller = self._gatekeeper.admit(headers, body)
        key = idempotency_key(headers)
        try:
            raw = orjson.loads(decompress(body, headers.get(b"content-encoding", b"")))
        except orjson.JSONDecodeError as error:
            raise RefusedError(400, "malformed", f"the body is no JSON ({error}). Send one object") from None
        click, problems = read_click(raw, await self._known(), datetime.now(UTC))
        if click is not None:
            click, problems = _within_scope(click, problems, caller)
        arrival = _arrival(request, body, click, problems)
        arrival = replace(arrival, key_id=caller.key_id or None, idempotency_key=key)
        receipt = await self._commit(arrival)
        replayed = {"idempotent-replayed": "true"} if receipt.replayed else {}
        return Response(
            orjson.dumps(receipt.answer), receipt.status_code, replayed, media_type="application/json"
        )

    async def pixel(self, request: Request) -> Response:
        """Take one click as parameters, answered with a pixel. Raises RefusedError."""
        query: bytes = request.scope.get("query_string", b"")
        if len(query) > PIXEL_QUERY_MAX:
            raise RefusedError(
                414, "too_long", f"more than {PIXEL_QUERY_MAX:,} characters. Use POST {PATH} instead"
            )
        self._spend()
        raw = pixel_fields(query.decode("latin-1"))
        click, problems = read_click(raw, await self._known(), datetime.now(UTC))
        self._waiting += 1
        try:
            await self._commit(_arrival(request, b"", click, problems))
        finally:
            self._waiting -= 1
        return Response(GIF, media_type="image/gif", headers={"cache-control": "no-store"})

    def _spend(self) -> None:
        """Raises RefusedError when pixels come faster than they may: they must not crowd out events."""
        now = time.monotonic()
        refilled = self._room + (now - self._refilled_at) * self.pixels_per_s
        self._room = min(max(1.0, self.pixels_per_s), refilled)
        self._refilled_at = now
        if self._room < 1 or self._waiting >= PIXELS_WAITING_MAX:
            said = f"more than {self.pixels_per_s:g} pixels a second. Use POST {PATH} from a server"
            raise RefusedError(429, "too_many", said, ((b"retry-after", b"1"),))
        self._room -= 1

    async def _known(self) -> Parameters:
        """Where click ids stand, as of a few seconds ago."""
        now = time.monotonic()
        if self._parameters is None or now > self._stale_at:
            self._stale_at = now + REFRESH_S
            self._parameters = await run_in_threadpool(self._read)
        return self._parameters

    def _read(self) -> Parameters:
        if self._destinations is None:
            raise unavailable("the door is not open")
        try:
            return parameters_of(load_catalogue().values(), self._destinations.current())
        except SQLAlchemyError:
            self._stale_at = 0.0
            raise unavailable("the database does not answer. Nothing was taken; send it again") from None

    async def _commit(self, arrival: Arrival) -> Receipt:
        if self._committer is None:
            raise unavailable("the door is not open")
        receipt = await self._committer.commit(arrival)
        if receipt.conflict:
            said = "this Idempotency-Key was used before for another body. Send each request under a key of its own"
            raise RefusedError(422, "idempotency_conflict", said)
        if receipt.status_code == 422:
            said = "no click was registered; `rejected` says why, each with its remedy"
            raise RefusedError(422, "nothing_accepted", said, more=receipt.answer)
        return receipt


def pixel_fields(query: str) -> dict[str, Any]:
    """The parameters of a pixel as the JSON of a click: each decoded once, the first of those that repeat."""
    fields: dict[str, Any] = {}
    click_ids: dict[str, str] = {}
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        name = unquote_plus(name)
        if not name or name in _IGNORED:
            continue
        text = unquote(value) if name.startswith(_VERBATIM) else unquote_plus(value)
        if name.startswith("click_ids."):
            click_ids.setdefault(name.removeprefix("click_ids."), text)
        elif text:
            fields.setdefault(name, text)
    return fields | ({"click_ids": click_ids} if click_ids else {})


def _within_scope(
    click: Click, problems: list[Problem], caller: Caller
) -> tuple[Click | None, list[Problem]]:
    """The click, or why this caller may not register it."""
    if caller.events and CLICK not in caller.events:
        remedy = f"Use a key for {CLICK}, or one for every event"
        return None, [
            Problem("not_allowed", "url", f"the key {caller.name!r} may not register clicks", remedy)
        ]
    if caller.sources and click.source is None and len(caller.sources) == 1:
        return replace(click, source=next(iter(caller.sources))), problems
    if caller.sources and click.source not in caller.sources:
        reason = f"{click.source!r} is not one that the key {caller.name!r} may send for"
        remedy = f"Use {', '.join(sorted(caller.sources))}, or a key for that source"
        return None, [Problem("not_allowed", "source", reason, remedy)]
    return click, problems


def _arrival(request: Request, body: bytes, click: Click | None, problems: list[Problem]) -> Arrival:
    scope = dict(request.scope)
    return Arrival(
        kind="click",
        source=None if click is None else click.source,
        method=request.method,
        target=target_of(scope),
        headers=shown_headers(scope["headers"]),
        body=body,
        peer=peer_of(scope),
        candidates=[],
        refused=[Refused(0, problems)] if problems else [],
        click=click,
    )


_ANSWER: Mapping[str, Any] = {
    "type": "object",
    "required": ["request_id", "click_ids", "rejected"],
    "properties": {
        "request_id": {"type": "string", "pattern": "^in_[0-9]+$"},
        "click_ids": {"type": "object", "additionalProperties": {"type": "string"}},
        "rejected": {"type": "array", "items": ENTRY_PROBLEM},
    },
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "Committed: the click ids that were found, and what was left out with the reason",
        "content": {"application/json": {"schema": _ANSWER}},
    },
    400: problem("The body cannot be read"),
    401: problem("Credentials are missing or wrong"),
    408: problem("The body took too long to come"),
    413: problem("Too large"),
    415: problem("A content coding that is not read"),
    422: problem("No click id, no key, or the Idempotency-Key was used for another body"),
    429: problem("Too many requests under this key", retry_after=True),
    503: problem("Nothing was taken; send it again", retry_after=True),
}
_REQUEST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": ClickRequest.model_json_schema()}},
    },
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
        }
    ],
    "security": [{"apiKey": []}],
}
_PIXEL_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Committed; one transparent pixel, never cached",
        "content": {"image/gif": {"schema": {"type": "string", "format": "binary"}}},
    },
    414: problem("The query is too long"),
    422: problem("No click id, or no key"),
    429: problem("Too many pixels", retry_after=True),
    503: problem("Nothing was taken; send it again", retry_after=True),
}
_PIXEL_PARAMETERS = [
    {"name": name, "in": "query", "required": False, "schema": {"type": "string", "maxLength": longest}}
    for name, longest in (
        ("url", PIXEL_URL_MAX),
        *((key, 200) for key in KEYS),
        ("clicked_at", 40),
        ("source", 64),
    )
]
