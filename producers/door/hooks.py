"""``POST`` and ``GET /hooks/{source}``: deliveries of other services, kept verbatim, their events on their way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import structlog
from fastapi import FastAPI, Path, Request
from fastapi.responses import Response
from starlette.datastructures import Headers

from producers.door.committing import Committer
from producers.door.document import problem
from producers.door.events import shown_headers, target_of
from producers.door.problems import RefusedError, unavailable
from producers.door.reading import read_body
from producers.hooks.hook import Delivery
from producers.hooks.pipeline import understand, verify
from producers.hooks.sources import Opened
from schemas.arrival import Arrival

log = structlog.get_logger()

PATH = "/hooks/{source}"
COMMIT_WITHIN_S = 4.0
"""The shortest deadline of any sender is 5 s (Shopify's); one that is told to repeat does."""


class Hooks:
    """Takes deliveries. One an application; ``committer`` is there while the application runs."""

    def __init__(self, sources: Mapping[str, Opened]) -> None:
        self._sources = sources
        self._refused: Counter[str] = Counter()
        self.committer: Committer | None = None

    def mount(self, api: FastAPI) -> None:
        """Add the routes and what the document says of them."""
        for method, body in (("POST", _FREE_FORM), ("GET", None)):
            api.add_api_route(
                PATH,
                self.take,
                methods=[method],
                name=f"hook_{method.lower()}",
                operation_id=f"hook_{method.lower()}",
                tags=["hooks"],
                summary="Take a delivery of another service",
                description="What it looks like, how it is signed and what it is answered is its sender's business.",
                response_class=Response,
                responses=_RESPONSES,
                openapi_extra={} if body is None else {"requestBody": body},
            )

    async def take(self, request: Request, source: Annotated[str, Path(max_length=64)]) -> Response:
        """Verify, map and commit one delivery. Raises RefusedError, which the application answers with."""
        opened = self._sources.get(source)
        if opened is None:
            raise RefusedError(
                404,
                "unknown_source",
                "there is no such source. Add its table to holdfire.toml, and start the door anew",
            )
        if request.method not in opened.hook.methods:
            allowed = ", ".join(opened.hook.methods)
            raise RefusedError(
                405, "method", f"this source is sent by {allowed}", ((b"allow", allowed.encode()),)
            )
        body = await read_body(request.receive, dict(request.scope["headers"]))  # type: ignore[arg-type] # ASGI's own types are wider
        delivery = _delivery(request, opened, body)
        if opened.hook.ping(delivery):
            return _answer(opened)
        self._admit(opened, delivery)
        await self._commit(_arrival(request, opened, delivery))
        return _answer(opened)

    def _admit(self, source: Opened, delivery: Delivery) -> None:
        reason = verify(source, delivery)
        if reason is None:
            return
        self._refused[source.name] += 1
        count = self._refused[source.name]
        log.warning("hook.refused", source=source.name, reason=reason, peer=delivery.peer, count=count)
        raise RefusedError(
            401, "not_genuine", f"{reason}. Check the secret and what is between us and the sender"
        )

    async def _commit(self, arrival: Arrival) -> None:
        if self.committer is None:
            raise unavailable("the door is not open")
        try:
            receipt = await asyncio.wait_for(self.committer.commit(arrival), COMMIT_WITHIN_S)
        except TimeoutError:
            # It may be committed yet; then the repetition is known by its dedupe id.
            raise unavailable("the database takes too long. Send it again") from None
        answer = receipt.answer
        log.info(
            "hook.taken",
            source=arrival.source,
            request_id=answer["request_id"],
            accepted=answer["accepted"],
            duplicates=len(answer["duplicates"]),
            rejected=len(answer["rejected"]),
            ignored=arrival.ignored,
            repeats=answer.get("repeats"),
        )


def _delivery(request: Request, source: Opened, body: bytes) -> Delivery:
    query = request.url.query
    url = str(request.url)
    if source.public_url is not None:
        url = source.public_url + (f"?{query}" if query else "")
    return Delivery(
        method=request.method,
        url=url,
        headers=_joined(request.headers),
        body=body,
        received_at=datetime.now(UTC),
        peer=None if request.client is None else request.client.host,
    )


def _joined(headers: Headers) -> dict[str, str]:
    """Header values by lower-case name; repeated ones are one list (RFC 9110, section 5.3)."""
    return {name: ", ".join(headers.getlist(name)) for name in headers}


def _arrival(request: Request, source: Opened, delivery: Delivery) -> Arrival:
    understood = understand(source, delivery, delivery.received_at)
    redactor = source.redactor
    client = request.client
    return Arrival(
        kind="hook",
        source=source.name,
        method=delivery.method,
        target=redactor.in_text(target_of(dict(request.scope))),
        headers=[(name, redactor.in_text(value)) for name, value in shown_headers(request.scope["headers"])],
        body=source.hook.conceal(delivery.body),
        peer=None if client is None else f"{client.host}:{client.port}",
        candidates=understood.candidates,
        refused=understood.refused,
        dedupe_id=understood.dedupe_id,
        status_code=source.hook.answer.status,
        ignored=understood.ignored,
    )


def _answer(source: Opened) -> Response:
    answer = source.hook.answer
    return Response(answer.body, answer.status, media_type=answer.media_type if answer.body else None)


_FREE_FORM: dict[str, Any] = {
    "description": "As the sender writes it: it is kept verbatim",
    "required": False,
    "content": {"*/*": {"schema": {}}},
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "Committed, in the form that the sender wants", "content": {"*/*": {"schema": {}}}},
    "2XX": {
        "description": "Committed, where the sender wants another status",
        "content": {"*/*": {"schema": {}}},
    },
    400: problem("The request ended before its body did"),
    401: problem("It is not signed by the source's sender"),
    404: problem("There is no such source"),
    405: problem("The source's sender uses another method"),
    413: problem("The body is too large"),
    422: problem("The source's name cannot be one"),
    503: problem("Nothing was taken; send it again", retry_after=True),
}
