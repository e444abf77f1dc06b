"""The flight recorder of one exchange: what the connection saw, as it saw it.

`RecordingProtocol` is aiohttp's response parser with a tap on the bytes: the response head is kept as
received (the parser hands out only names and values), and the ends of the connection are read once, when
it is made. `Recording` gathers one hop and turns it into the value that is kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import select
import time
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

from aiohttp import ClientPayloadError
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_parser import RawResponseMessage

from schemas.exchange import Failure, FailureKind, Hop, OutboundRequest

_HEAD_CAP_BYTES = 262_144
"""A head longer than this is not kept raw; the parser refuses it long before."""
_STATUS_LINE = re.compile(rb"HTTP/\d\.\d (\d{3})(?: [^\r\n]*)?\r\n")
_PEER_HUNG_UP = getattr(select, "POLLRDHUP", 0) | getattr(select, "POLLHUP", 0)


def _endpoint(address: Any) -> str | None:
    if not isinstance(address, tuple):
        return None
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class RecordingProtocol(ResponseHandler):
    """One connection, from dial to close; exchanges follow one another on it, one at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.peer: str | None = None
        self.local: str | None = None
        self.tls_version: str | None = None
        self.exchanges = 0
        self.raw = b""
        """Bytes of the answer from its status line on, until the head is complete."""
        self.head_end = 0
        """Where in ``raw`` the head ends, its blank line included; 0 while it is not complete."""
        self.first_byte_at: float | None = None
        self.lost: BaseException | None = None
        self._listening = False
        self._poll: select.poll | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.peer = _endpoint(transport.get_extra_info("peername"))
        self.local = _endpoint(transport.get_extra_info("sockname"))
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self.tls_version = tls.version()
        self._watch(transport, unread_is_stale=tls is None)

    def _watch(self, transport: asyncio.BaseTransport, *, unread_is_stale: bool) -> None:
        """Prepare the check of `is_stale`. Under TLS unread bytes may be session tickets, which are fine."""
        sock = transport.get_extra_info("socket")
        if sock is None or not _PEER_HUNG_UP:  # a platform without poll(): the event loop's view must do
            return
        self._poll = select.poll()
        self._poll.register(sock.fileno(), _PEER_HUNG_UP | (select.POLLIN if unread_is_stale else 0))

    def is_stale(self) -> bool:
        """Whether the peer has already hung up, or spoken out of turn, though the loop has not read it yet.

        Without this look at the socket a request is written into a connection that was closed a moment ago,
        and its outcome is in doubt for no reason.
        """
        return not self.is_connected() or (self._poll is not None and bool(self._poll.poll(0)))

    def begin(self) -> None:
        """An exchange starts: from here on bytes are an answer."""
        self.exchanges += 1
        self.raw = b""
        self.head_end = 0
        self.first_byte_at = None
        self._listening = True

    def end(self) -> None:
        """The exchange is over: bytes that come now belong to nobody."""
        self._listening = False
        self.raw = b""

    def data_received(self, data: bytes) -> None:
        if not self._listening:
            # A second answer nobody asked for, or a 408 into an idle connection. Left in the queue it would
            # be taken for the answer to the next request.
            self.abort()
            return
        if self.first_byte_at is None and data:
            self.first_byte_at = time.perf_counter()
        if not self.head_end and len(self.raw) < _HEAD_CAP_BYTES:
            self._keep_head(data)
        super().data_received(data)
        failed = self.exception()
        if failed is not None and self._payload is not None and not self._payload.is_eof():
            # The parser gives up on a broken chunk without telling the body's reader, which would wait on.
            self._payload.set_exception(ClientPayloadError(f"Response body cannot be parsed: {failed}"))

    def _keep_head(self, data: bytes) -> None:
        self.raw = self.raw + data if self.raw else data
        while (end := self.raw.find(b"\r\n\r\n")) >= 0:
            interim = self.raw[9:10] == b"1" and self.raw[9:12] != b"101"
            if not interim:
                self.head_end = end + 4
                return
            self.raw = self.raw[end + 4 :]  # 100 and 103 come before the answer and are not it

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost = exc
        self._poll = None  # the descriptor may soon be another connection's
        super().connection_lost(exc)


class Stage(IntEnum):
    """How far an exchange came. From ``WRITTEN`` on the request may have been read by the peer."""

    RESOLVING = 0
    CONNECTING = 1
    WRITTEN = 2
    ANSWERED = 3


class Recording:
    """What is known of one hop so far. Instants are `time.perf_counter` seconds."""

    def __init__(self, request: OutboundRequest, number: int, body_cap_bytes: int) -> None:
        self.stage = Stage.RESOLVING
        self.addresses: tuple[str, ...] = ()
        self.dns_s: float | None = None
        self.connect_s: float | None = None
        self.truncated = False
        self.body_error: str | None = None
        self.failure: Failure | None = None
        self._request = request
        self._number = number
        self._cap = body_cap_bytes
        self._started_at = datetime.now(UTC)
        self._started = time.perf_counter()
        self._request_head = b""
        self._status_code: int | None = None
        self._response_head = b""
        self._chunks: list[bytes] = []
        self._length = 0
        self._first_byte_at: float | None = None
        self._peer: str | None = None
        self._local: str | None = None
        self._tls_version: str | None = None
        self._reused: bool | None = None

    def connected(self, protocol: RecordingProtocol) -> None:
        self._peer, self._local = protocol.peer, protocol.local
        self._tls_version = protocol.tls_version
        self._reused = protocol.exchanges > 0

    def written(self, head: bytes) -> None:
        """Called in the breath in which the bytes are handed to the kernel: from now on, in doubt."""
        self.stage = Stage.WRITTEN
        self._request_head = head

    def answered(self, message: RawResponseMessage, protocol: RecordingProtocol) -> None:
        self.stage = Stage.ANSWERED
        self._status_code = message.code
        self._first_byte_at = protocol.first_byte_at
        if protocol.head_end:
            self._response_head = protocol.raw[: protocol.head_end - 2]
        else:  # lines ended by a bare LF: write down what the parser understood
            line = f"HTTP/{message.version.major}.{message.version.minor} {message.code} {message.reason}"
            fields = [b"%b: %b" % field for field in message.raw_headers]
            head = [line.encode("utf-8", "surrogateescape"), *fields, b""]
            self._response_head = b"\r\n".join(head)

    def heard(self, protocol: RecordingProtocol) -> None:
        """Keep what came of an answer that did not get as far as its headers' end."""
        self._first_byte_at = protocol.first_byte_at
        self._response_head = protocol.raw[: self._cap]

    def salvage(self, protocol: RecordingProtocol, error: BaseException) -> bool:
        """Take the status from a whole head that the parser dropped along with what followed it.

        A server that sends more than its Content-Length has still answered. What came after the head is
        kept as it came. False if there is no such head.
        """
        self.heard(protocol)
        line = _STATUS_LINE.match(protocol.raw)
        if line is None or not protocol.head_end:
            return False
        self.stage = Stage.ANSWERED
        self._status_code = int(line[1])
        self._response_head = protocol.raw[: protocol.head_end - 2]
        self.take(protocol.raw[protocol.head_end :])
        self.body_error = f"{describe(error)}; what follows the head is kept unparsed"
        return True

    def take(self, chunk: bytes) -> bool:
        """Keep a piece of the body; False once there is more than the cap, and reading should stop."""
        if chunk:
            self._chunks.append(chunk)
            self._length += len(chunk)
        self.truncated = self._length > self._cap
        return not self.truncated

    def fail(self, kind: FailureKind, error: BaseException, message: str | None = None) -> None:
        """End the hop. After the status line nothing is a failure any more: the answer only lacks its rest."""
        if self.stage is Stage.ANSWERED:
            self.body_error = message or describe(error)
            return
        self.failure = Failure(
            kind=kind,
            sent=self.stage >= Stage.WRITTEN,
            error_class=type(error).__name__,
            message=message or str(error) or type(error).__name__,
        )

    def hop(self) -> Hop:
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        started = self._started
        first_byte_at = self._first_byte_at
        return Hop(
            number=self._number,
            url=self._request.url,
            method=self._request.method,
            started_at=self._started_at,
            request_head=self._request_head,
            request_body=self._request.body if self._request_head else b"",
            addresses=self.addresses,
            peer=self._peer,
            local=self._local,
            tls_version=self._tls_version,
            reused=self._reused,
            dns_ms=_ms(self.dns_s),
            connect_ms=_ms(self.connect_s),
            first_byte_ms=None if first_byte_at is None else _ms(first_byte_at - started),
            total_ms=_ms(time.perf_counter() - started),
            status_code=self._status_code,
            response_head=self._response_head,
            body=body if len(body) <= self._cap else body[: self._cap],
            body_length=self._length,
            body_sha256=None if self._status_code is None else hashlib.sha256(body).hexdigest(),
            truncated=self.truncated,
            body_error=self.body_error,
            failure=self.failure,
        )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def describe(error: BaseException) -> str:
    """An error as evidence names it: ``ClassName: its words``."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
