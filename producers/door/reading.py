"""Reading a request: its body under limits, decompressed, and split into entries that are not validated yet."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from producers.door.problems import RefusedError
from schemas.problem import Problem

MAX_BODY_BYTES: Final = 4_000_000
"""As it comes, and again once decompressed."""
BODY_DEADLINE_S: Final = 30.0
"""A sender that trickles must not hold a place for ever."""
MAX_EVENTS: Final = 1_000
MAX_DEPTH: Final = 16
"""Of arrays and objects inside each other; an event has three."""

Receive = Callable[[], Awaitable[dict[str, Any]]]
_LINES: Final = {"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"}
_JSON: Final = {"", "application/json", "text/json", "application/octet-stream"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One event as it came, or why it cannot be read."""

    value: object = None
    problem: Problem | None = None


async def read_body(
    receive: Receive, headers: dict[bytes, bytes], *, within_s: float = BODY_DEADLINE_S
) -> bytes:
    """The body as it came.

    Raises RefusedError: 413 if it is larger than the limit, 408 if it takes too long, 400 if the sender went away.
    """
    try:
        async with asyncio.timeout(within_s):
            return await _read(receive, headers)
    except TimeoutError:
        detail = f"the body did not come within {within_s:g} s. Send it again"
        raise RefusedError(408, "too_slow", detail, ((b"connection", b"close"),)) from None


async def _read(receive: Receive, headers: dict[bytes, bytes]) -> bytes:
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise _too_large()
    message = await receive()
    if not message.get("more_body"):
        body: bytes = message.get("body", b"")
        return _within_limit(body)
    parts = [message.get("body", b"")]
    size = len(parts[0])
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RefusedError(400, "incomplete", "the request ended before its body did. Send it again")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            raise _too_large()
    return b"".join(parts)


def decompress(body: bytes, encoding: bytes) -> bytes:
    """The body without its content coding. Raises RefusedError for another coding than gzip, or a broken one."""
    match encoding.strip().lower():
        case b"" | b"identity":
            return body
        case b"gzip" | b"x-gzip":
            decompressor = zlib.decompressobj(16 + zlib.MAX_WBITS)
        case b"deflate":
            decompressor = zlib.decompressobj()
        case _:
            raise RefusedError(
                415, "content_encoding", "only gzip and deflate are read. Send the body so, or uncompressed"
            )
    try:
        plain = decompressor.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise RefusedError(400, "content_encoding", f"the body cannot be decompressed ({error})") from None
    if len(plain) > MAX_BODY_BYTES:
        raise _too_large("once decompressed")
    if not decompressor.eof:
        raise RefusedError(400, "content_encoding", "the compressed body ends too early. Send it again")
    return plain


def split(body: bytes, content_type: bytes) -> list[Entry]:
    """The entries of a JSON object, a JSON array, or NDJSON. Raises RefusedError where no entry can be told."""
    media_type = content_type.split(b";", 1)[0].strip().lower().decode("latin-1")
    if media_type in _LINES:
        entries = [_line(line) for line in body.splitlines() if line.strip()]
    elif media_type in _JSON or media_type.endswith("+json"):
        entries = _entries(body)
    else:
        raise RefusedError(
            415,
            "content_type",
            f"{media_type} is not read. Send application/json, or application/x-ndjson with one event a line",
        )
    if not entries:
        raise RefusedError(400, "empty", "there is no event in the body. Send one, or a list of up to 1,000")
    if len(entries) > MAX_EVENTS:
        raise RefusedError(
            413, "too_many", f"{len(entries)} events, and at most {MAX_EVENTS} are taken at once. Split them"
        )
    return entries


def _entries(body: bytes) -> list[Entry]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RefusedError(400, "malformed", f"the body is no JSON ({error})") from None
    return [_entry(each) for each in (value if isinstance(value, list) else [value])]


def _line(line: bytes) -> Entry:
    try:
        return _entry(orjson.loads(line))
    except orjson.JSONDecodeError as error:
        return Entry(problem=Problem("malformed", "event", f"is no JSON ({error})", "Send one object a line"))


def _entry(value: object) -> Entry:
    if _deeper(value, MAX_DEPTH):
        return Entry(
            problem=Problem("too_deep", "event", f"is nested more than {MAX_DEPTH} deep", "Flatten it")
        )
    return Entry(value)


def _deeper(value: object, limit: int) -> bool:
    level: list[object] = [value]
    for _ in range(limit):
        level = [child for each in level for child in _children(each)]
        if not level:
            return False
    return True


def _children(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return (child for child in value.values() if isinstance(child, dict | list))
    if isinstance(value, list):
        return (child for child in value if isinstance(child, dict | list))
    return ()


def _within_limit(body: bytes) -> bytes:
    if len(body) > MAX_BODY_BYTES:
        raise _too_large()
    return body


def _too_large(when: str = "") -> RefusedError:
    detail = f"the body is larger than {MAX_BODY_BYTES:,} bytes{f' {when}' if when else ''}. Send fewer events at once"
    return RefusedError(413, "too_large", detail)
