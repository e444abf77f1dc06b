"""HTTP/1.1 requests read off a connection without changing a byte of them.

The framing follows RFC 9112: Content-Length and chunked bodies, several requests in one read, one
request over many reads. The parser keeps what it read, because the sink's record is evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

import orjson

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 8 * 1024 * 1024
_HEAD_END = b"\r\n\r\n"


class MalformedRequestError(Exception):
    """Bytes that are no HTTP/1.1 request; ``raw`` is what arrived, ``status_code`` what to answer."""

    def __init__(self, reason: str, raw: bytes, status_code: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.raw = raw
        self.status_code = status_code


def decode_component(text: str) -> str:
    """One query component as a form reader sees it: ``+`` is a space, then percent-decoding as UTF-8.

    Bytes that are not UTF-8 come out as ``\\xNN`` so that two different values never look the same.
    """
    if "+" in text:
        text = text.replace("+", " ")
    if "%" not in text:
        return text
    return unquote_to_bytes(text).decode("utf-8", "backslashreplace")


@dataclass(slots=True)
class Request:
    """One request: ``raw`` exactly as received, the rest read from it."""

    raw: bytes
    method: str
    target: str
    """The request target as sent (origin form expected; an absolute form keeps only its path and query)."""
    http_1_0: bool
    head_length: int
    """Bytes of request line and header fields, the blank line included."""
    body: bytes = b""
    """The body with chunked framing taken off."""
    _pairs: list[tuple[str, str]] | None = None

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Decoded query parameters in wire order, repeats kept; then those of a form or flat JSON body."""
        if self._pairs is None:
            pairs: list[tuple[str, str]] = []
            for part in self.query.split("&"):
                if part:
                    name, _, value = part.partition("=")
                    pairs.append((decode_component(name), decode_component(value)))
            if self.body:
                pairs.extend(self._body_pairs())
            self._pairs = pairs
        return self._pairs

    def _body_pairs(self) -> list[tuple[str, str]]:
        kind = self.header("content-type").partition(";")[0].strip().lower()
        if kind == "application/x-www-form-urlencoded":
            parts = (part.partition("=") for part in self.body.decode("latin-1").split("&") if part)
            return [(decode_component(name), decode_component(value)) for name, _, value in parts]
        if kind == "application/json":
            try:
                found = orjson.loads(self.body)
            except orjson.JSONDecodeError:
                return []
            if isinstance(found, dict):
                return [(str(name), str(value)) for name, value in found.items()]
        return []

    def first(self, *names: str) -> str:
        """The value of the first of ``names`` that is present, or an empty string."""
        for wanted in names:
            for name, value in self.pairs:
                if name == wanted:
                    return value
        return ""

    def header(self, name: str) -> str:
        """The first header field called ``name`` (any case), or an empty string."""
        wanted = b"\r\n" + name.lower().encode("latin-1") + b":"
        head = self.raw[: self.head_length]
        at = head.lower().find(wanted)
        if at < 0:
            return ""
        start = at + len(wanted)
        return head[start : head.index(b"\r\n", start)].strip().decode("latin-1")

    @property
    def keeps_alive(self) -> bool:
        asked = self.header("connection").lower()
        return "keep-alive" in asked if self.http_1_0 else "close" not in asked

    def at(self, target: str) -> Request:
        """The same request seen at another target (below a ``/bad/…`` prefix); ``raw`` stays what came."""
        return Request(self.raw, self.method, target, self.http_1_0, self.head_length, self.body)


class RequestReader:
    """Cuts a stream of bytes into requests. One reader a connection."""

    __slots__ = ("_told_to_continue", "_unread")

    def __init__(self) -> None:
        self._unread = b""
        self._told_to_continue = False

    @property
    def is_idle(self) -> bool:
        """True when no part of a request is waiting for the rest of it."""
        return not self._unread

    def feed(self, data: bytes) -> list[Request]:
        """Every request completed by ``data``, in order. Raises MalformedRequestError."""
        buffer = self._unread + data if self._unread else data
        requests: list[Request] = []
        position = 0
        while position < len(buffer):
            # RFC 9112, 2.2: an empty line before a request line is skipped.
            if buffer.startswith(b"\r\n", position):
                position += 2
                continue
            found = _read_one(buffer, position)
            if found is None:
                break
            request, position = found
            self._told_to_continue = False
            requests.append(request)
        self._unread = buffer[position:]
        return requests

    def take_continue(self) -> bool:
        """True once for a request whose head asks for ``100 Continue`` and whose body has not come."""
        if self._told_to_continue or _HEAD_END not in self._unread:
            return False
        head = self._unread[: self._unread.index(_HEAD_END) + 2].lower()
        self._told_to_continue = b"\r\nexpect: 100-continue\r\n" in head
        return self._told_to_continue


def _read_one(buffer: bytes, start: int) -> tuple[Request, int] | None:
    """The request that begins at ``start`` and where it ends; None while it is incomplete."""
    end = buffer.find(_HEAD_END, start)
    if end < 0:
        if len(buffer) - start > MAX_HEAD_BYTES:
            raise MalformedRequestError("request head longer than 64 KiB", buffer[start:], 431)
        return None
    after_head = end + 4
    head = buffer[start:after_head]
    line = head[: head.index(b"\r\n")]
    try:
        method, target, version = line.decode("latin-1").split(" ")
    except ValueError:
        raise MalformedRequestError("request line is not 'METHOD target HTTP/1.1'", buffer[start:]) from None
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise MalformedRequestError(f"version {version!r} is not HTTP/1.1", buffer[start:], 505)
    if not target.startswith("/"):
        target = "/" + target.split("://", 1)[-1].partition("/")[2]
    request = Request(head, method, target, version == "HTTP/1.0", len(head))
    framed = _read_body(request, buffer, start, after_head)
    if framed is None:
        return None
    request.body, after_body = framed
    if after_body != after_head:
        request.raw = buffer[start:after_body]
    return request, after_body


def _read_body(request: Request, buffer: bytes, start: int, after_head: int) -> tuple[bytes, int] | None:
    lower = request.raw.lower()
    chunked = b"\r\ntransfer-encoding:" in lower
    if b"\r\ncontent-length:" in lower:
        if chunked:
            raise MalformedRequestError("both Content-Length and Transfer-Encoding", buffer[start:])
        told = request.header("content-length")
        if not (told.isascii() and told.isdigit()):
            raise MalformedRequestError(f"Content-Length {told!r} is not a number", buffer[start:])
        if int(told) > MAX_BODY_BYTES:
            raise MalformedRequestError("body longer than 8 MiB", buffer[start:], 413)
        end = after_head + int(told)
        return (buffer[after_head:end], end) if len(buffer) >= end else None
    if chunked:
        return _read_chunks(buffer, start, after_head)
    return b"", after_head


def _read_chunks(buffer: bytes, start: int, position: int) -> tuple[bytes, int] | None:
    pieces: list[bytes] = []
    total = 0
    while True:
        line_end = buffer.find(b"\r\n", position)
        if line_end < 0:
            return None
        try:
            size = int(buffer[position:line_end].partition(b";")[0], 16)
        except ValueError:
            raise MalformedRequestError("chunk size is not hexadecimal", buffer[start:]) from None
        total += size
        if total > MAX_BODY_BYTES:
            raise MalformedRequestError("body longer than 8 MiB", buffer[start:], 413)
        position = line_end + 2
        if size == 0:
            # Trailer fields, if any, end with an empty line like a head does.
            if buffer.startswith(b"\r\n", position):
                return b"".join(pieces), position + 2
            trailer_end = buffer.find(_HEAD_END, position)
            return None if trailer_end < 0 else (b"".join(pieces), trailer_end + 4)
        if len(buffer) < position + size + 2:
            return None
        if not buffer.startswith(b"\r\n", position + size):
            raise MalformedRequestError("chunk is longer than its size says", buffer[start:])
        pieces.append(buffer[position : position + size])
        position += size + 2
