"""``POST /v1/events``: the hot path, straight on ASGI. What it takes and answers is what the OpenAPI document says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog

from producers.door.callers import Caller, Gatekeeper
from producers.door.committing import Committer
from producers.door.problems import MEDIA_TYPE, RefusedError
from producers.door.reading import Entry, decompress, read_body, split
from schemas.arrival import Arrival, Candidate, Receipt, Refused
from schemas.event import read_event
from schemas.problem import InvalidInputError

log = structlog.get_logger()

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

PATH = "/v1/events"
MAX_IDEMPOTENCY_KEY = 200


class Events:
    """Takes events. One an application; each request is one call."""

    def __init__(self, committer: Committer, gatekeeper: Gatekeeper) -> None:
        self._committer = committer
        self._gatekeeper = gatekeeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            receipt = await self._take(scope, receive)
        except RefusedError as refused:
            await answer(send, refused.status, refused.body(), [*refused.headers], MEDIA_TYPE)
            return
        await _answer_receipt(send, receipt)

    async def _take(self, scope: Scope, receive: Receive) -> Receipt:
        headers = dict(scope["headers"])
        body = await read_body(receive, headers)
        caller = self._gatekeeper.admit(headers, body)
        key = idempotency_key(headers)
        plain = decompress(body, headers.get(b"content-encoding", b""))
        entries = split(plain, headers.get(b"content-type", b""))
        candidates, refused = sift(entries, caller, datetime.now(UTC))
        sources = {candidate.key[0] for candidate in candidates}
        return await self._committer.commit(
            Arrival(
                kind="events",
                source=sources.pop() if len(sources) == 1 else None,
                method=scope["method"],
                target=target_of(scope),
                headers=shown_headers(scope["headers"]),
                body=body,
                peer=peer_of(scope),
                candidates=candidates,
                refused=refused,
                key_id=caller.key_id or None,
                idempotency_key=key,
            )
        )


def sift(entries: list[Entry], caller: Caller, now: datetime) -> tuple[list[Candidate], list[Refused]]:
    """Validate each entry: events that may be taken, and what may not with every reason."""
    candidates: list[Candidate] = []
    refused: list[Refused] = []
    for index, entry in enumerate(entries):
        if entry.problem is not None:
            refused.append(Refused(index, [entry.problem]))
            continue
        try:
            event = read_event(entry.value, now)
        except InvalidInputError as error:
            refused.append(Refused(index, error.problems))
            continue
        if problem := caller.may_not(event):
            refused.append(Refused(index, [problem]))
            continue
        body = event.model_dump_json(exclude_none=True).encode()
        candidates.append(Candidate(index, (event.source, event.event_id), body))
    return candidates, refused


def idempotency_key(headers: dict[bytes, bytes]) -> str | None:
    """The request's Idempotency-Key. Raises RefusedError (400) for one that is none."""
    key = headers.get(b"idempotency-key")
    if key is None:
        return None
    text = key.decode("latin-1").strip()
    if not text or len(text) > MAX_IDEMPOTENCY_KEY or not text.isprintable():
        raise RefusedError(
            400, "idempotency_key", f"Idempotency-Key must be 1 to {MAX_IDEMPOTENCY_KEY} printable characters"
        )
    return text


def target_of(scope: Scope) -> str:
    """Path and query as they came."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope.get("query_string", b"")
    return (path + b"?" + query if query else path).decode("latin-1")


def peer_of(scope: Scope) -> str | None:
    client = scope.get("client")
    return None if client is None else f"{client[0]}:{client[1]}"


_SECRET_HEADERS = frozenset({b"authorization", b"x-api-key", b"cookie", b"proxy-authorization"})


def shown_headers(headers: Headers) -> list[tuple[str, str]]:
    """The headers in the order they came, credentials masked."""
    return [
        (name.decode("latin-1"), "[secret]" if name in _SECRET_HEADERS else value.decode("latin-1"))
        for name, value in headers
    ]


async def _answer_receipt(send: Send, receipt: Receipt) -> None:
    if receipt.conflict:
        refused = RefusedError(
            422,
            "idempotency_conflict",
            "this Idempotency-Key was used before for another body. Send each request under a key of its own",
        )
        await answer(send, refused.status, refused.body(), [], MEDIA_TYPE)
        return
    headers: Headers = [(b"idempotent-replayed", b"true")] if receipt.replayed else []
    if receipt.status_code == 202:
        await answer(send, 202, receipt.answer, headers)
        return
    nothing = RefusedError(
        receipt.status_code,
        "nothing_accepted",
        "no event could be taken; `rejected` says why, each with its remedy",
        more=receipt.answer,
    )
    await answer(send, nothing.status, nothing.body(), headers, MEDIA_TYPE)


async def answer(
    send: Send, status: int, body: object, headers: Headers, media_type: bytes = b"application/json"
) -> None:
    """Send one JSON answer."""
    payload = orjson.dumps(body)
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", media_type),
                (b"content-length", str(len(payload)).encode()),
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": payload})
