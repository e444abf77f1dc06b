"""The evidence transport: one HTTP exchange over aiohttp's connections, with everything that crossed the wire.

httpx is the interface, aiohttp the engine. `EvidenceTransport.exchange` is the way in for firing: one
`Hop` for one request, and never an exception for what the network did. `handle_async_request` is the same
for httpx clients.

aiohttp's pool, TLS and parser are used; its session is not. The session would send an idempotent request a
second time when a kept-alive connection turns out closed, unseen by any log, and would rebuild head and
URL its own way. Here the bytes that are recorded are the bytes that are written, once.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import time
from types import TracebackType
from typing import Self, cast

import httpx
from aiohttp import (
    ClientConnectorDNSError,
    ClientError,
    ClientRequest,
    ClientSSLError,
    ClientTimeout,
    TCPConnector,
)
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from infra.http.egress import EgressGuard, EgressRefused, PinningResolver
from infra.http.framing import BadRequestHeadError, request_head
from infra.http.recorder import Recording, RecordingProtocol, Stage, describe
from infra.http.urls import BadUrlError, Origin, split_url
from schemas.exchange import FailureKind, FetchLimits, Hop, OutboundRequest, header_fields

CONNECTIONS_MAX = 512
KEEPALIVE_S = 15.0
"""Shorter than what common servers keep (nginx: 75 s), so that we hang up first and no write meets a close."""
_READ_BUFFER_BYTES = 65_536
_LINE_MAX_BYTES = 65_536
_ORIGINS_MAX = 1024


class _Connector(TCPConnector):
    """aiohttp's pool, making connections that record."""

    def __init__(self, resolver: PinningResolver, tls: ssl.SSLContext) -> None:
        super().__init__(
            resolver=resolver,
            use_dns_cache=False,  # the guard remembers, and only what it has judged
            ssl=tls,
            limit=CONNECTIONS_MAX,
            limit_per_host=0,
            keepalive_timeout=KEEPALIVE_S,
        )
        # mypy knows the factory by the exact class it makes by default; ours is a subclass.
        self._factory = functools.partial(RecordingProtocol, loop=self._loop)  # type: ignore[assignment]


@functools.cache
def default_tls() -> ssl.SSLContext:
    """One verified context for the process: making one reads the certificate store and takes milliseconds."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class EvidenceTransport(httpx.AsyncBaseTransport):
    """Sends one request at a time over pooled connections and records each exchange.

    Belongs to one event loop: connections are made on the loop of the first exchange. Close it with
    ``aclose()`` or ``async with``. ``limits`` are those of `handle_async_request` where the request's
    ``extensions["limits"]`` does not bring its own.
    """

    def __init__(
        self,
        *,
        guard: EgressGuard | None = None,
        ssl_context: ssl.SSLContext | None = None,
        limits: FetchLimits | None = None,
    ) -> None:
        self._guard = guard or EgressGuard()
        self._tls = ssl_context or default_tls()
        self._limits = limits or FetchLimits()
        # Two pools: a connection made where private addresses are allowed is never there to be reused by a
        # destination where they are not.
        self._pools: dict[bool, _Connector] = {}
        self._dials: dict[Origin, ClientRequest] = {}

    async def exchange(
        self,
        request: OutboundRequest,
        limits: FetchLimits,
        number: int = 1,
        deadline: float | None = None,
        interrupted: list[Hop] | None = None,
    ) -> Hop:
        """Send one request, follow nothing, and give what happened as hop ``number``.

        ``deadline`` is an instant of the event loop's clock; without one it is ``limits.deadline_s`` from
        now. If the task is cancelled, the hop so far is put into ``interrupted`` and the cancellation
        goes on. Raises nothing else: what failed is in ``Hop.failure``.
        """
        loop = asyncio.get_running_loop()
        if deadline is None:
            deadline = loop.time() + limits.deadline_s
        record = Recording(request, number, limits.body_cap_bytes)
        try:
            async with asyncio.timeout_at(deadline):
                await self._converse(request, limits, record, deadline)
        except (EgressRefused, BadUrlError, BadRequestHeadError) as error:
            record.fail(FailureKind.REFUSED_BY_GUARD, error)
        except TimeoutError as error:
            record.fail(
                FailureKind.TIMEOUT, error, f"TimeoutError: not complete within {limits.deadline_s:g} s"
            )
        except asyncio.CancelledError as error:
            record.fail(FailureKind.CANCELLED, error, "cancelled by the sender")
            if interrupted is not None:
                interrupted.append(record.hop())
            raise
        except (ClientError, HttpProcessingError, OSError) as error:
            record.fail(_kind(error, record.stage), error)
        return record.hop()

    async def _converse(
        self, request: OutboundRequest, limits: FetchLimits, record: Recording, deadline: float
    ) -> None:
        if deadline <= asyncio.get_running_loop().time():
            raise TimeoutError  # timeout_at acts only where a task waits, which would be after the write
        url = split_url(request.url)
        head = request_head(request, url)
        record.addresses, record.dns_s = await self._guard.admit(url.origin, limits)
        record.stage = Stage.CONNECTING
        connection = await self._connect(url.origin, limits, record)
        protocol = cast("RecordingProtocol", connection.protocol)
        try:
            complete = await _speak(protocol, head, request, record)
        except BaseException:
            connection.close()
            raise
        finally:
            protocol.end()
        if complete:
            connection.release()
        else:
            connection.close()

    async def _connect(self, origin: Origin, limits: FetchLimits, record: Recording) -> Connection:
        """Take a live connection from the pool, or make one to an address the guard has judged."""
        pool = self._pool(allow_private=limits.allow_private)
        dial = self._dial(origin)
        timeout = _connect_timeout(limits.connect_s)
        started = time.perf_counter()
        while True:
            try:
                connection = await pool.connect(dial, [], timeout)
            except TimeoutError:
                raise ConnectTimeoutError(f"no connection within {limits.connect_s:g} s") from None
            protocol = cast("RecordingProtocol", connection.protocol)
            if not protocol.exchanges:
                if not protocol.is_connected():
                    connection.close()
                    raise ConnectionResetError("closed by the peer before the request was written")
                record.connect_s = time.perf_counter() - started
                break
            if not protocol.is_stale():
                break
            connection.close()
        record.connected(protocol)
        return connection

    def _pool(self, *, allow_private: bool) -> _Connector:
        pool = self._pools.get(allow_private)
        if pool is None:
            resolver = PinningResolver(self._guard, allow_private=allow_private)
            pool = self._pools[allow_private] = _Connector(resolver, self._tls)
        return pool

    def _dial(self, origin: Origin) -> ClientRequest:
        """What the pool needs to know of an origin. It takes it as a request, which is never sent."""
        dial = self._dials.get(origin)
        if dial is None:
            if len(self._dials) >= _ORIGINS_MAX:
                self._dials.clear()
            url = URL(origin.url, encoded=True)
            dial = self._dials[origin] = ClientRequest("GET", url, loop=asyncio.get_running_loop())
        return dial

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send an httpx request as one exchange; its `Hop` is in ``response.extensions["hop"]``.

        A failure raises the httpx exception that fits, with the hop as its ``hop`` attribute.
        """
        body = await request.aread()
        headers = tuple(field for field in request.headers.raw if field[0].lower() != b"transfer-encoding")
        userinfo = b"%b@" % request.url.userinfo if request.url.userinfo else b""
        url = b"%b://%b%b%b" % (request.url.raw_scheme, userinfo, request.url.netloc, request.url.raw_path)
        limits: FetchLimits = request.extensions.get("limits", self._limits)
        outbound = OutboundRequest(request.method, url.decode("ascii"), headers, body)
        hop = await self.exchange(outbound, limits)
        if hop.failure is not None:
            raised = _HTTPX_ERRORS.get(hop.failure.kind, httpx.TransportError)
            error = raised(hop.failure.message, request=request)
            error.hop = hop  # type: ignore[attr-defined] # evidence for who catches it; httpx has no field
            raise error
        assert hop.status_code is not None
        return httpx.Response(
            hop.status_code,
            headers=list(header_fields(hop.response_head)),
            stream=httpx.ByteStream(hop.body),
            request=request,
            extensions={"http_version": b"HTTP/1.1", "hop": hop},
        )

    async def aclose(self) -> None:
        """Close all connections, idle or not."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            await pool.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()


async def _speak(
    protocol: RecordingProtocol, head: bytes, request: OutboundRequest, record: Recording
) -> bool:
    """Write the request once and read the answer. False if the connection is of no further use."""
    protocol.set_response_params(
        skip_payload=request.method == "HEAD",
        read_until_eof=True,
        auto_decompress=False,  # the body is kept as it came
        read_bufsize=_READ_BUFFER_BYTES,
        max_line_size=_LINE_MAX_BYTES,
        max_field_size=_LINE_MAX_BYTES,
    )
    protocol.begin()
    transport = protocol.transport
    assert transport is not None
    record.written(head)
    transport.write(b"%b\r\n%b" % (head, request.body))
    try:
        message, payload = await protocol.read()
        while message.code < 200 and message.code != 101:
            message, payload = await protocol.read()
    except HttpProcessingError as error:
        if not record.salvage(protocol, error):
            raise
        return False
    except BaseException:
        record.heard(protocol)
        raise
    record.answered(message, protocol)
    while (chunk := await payload.readany()) and record.take(chunk):
        pass
    if protocol.lost is not None and record.body_error is None:
        # A body that lasts until the connection closes looks whole to the parser even after a reset.
        record.body_error = describe(protocol.lost)
    return not record.truncated and not transport.get_write_buffer_size()


class ConnectTimeoutError(OSError):
    """No connection (TCP and TLS) within ``FetchLimits.connect_s``."""


@functools.lru_cache(maxsize=64)
def _connect_timeout(seconds: float) -> ClientTimeout:
    # Without the threshold aiohttp rounds timeouts above 5 s up to whole seconds.
    return ClientTimeout(total=None, connect=seconds, ceil_threshold=float("inf"))


def _kind(error: BaseException, stage: Stage) -> FailureKind:
    if stage is Stage.RESOLVING or isinstance(error, ClientConnectorDNSError):
        return FailureKind.DNS
    if stage is Stage.CONNECTING:
        return FailureKind.TLS if isinstance(error, ClientSSLError) else FailureKind.CONNECT
    return FailureKind.PROTOCOL if isinstance(error, HttpProcessingError) else FailureKind.RESET


_HTTPX_ERRORS: dict[FailureKind, type[httpx.TransportError]] = {
    FailureKind.DNS: httpx.ConnectError,
    FailureKind.CONNECT: httpx.ConnectError,
    FailureKind.TLS: httpx.ConnectError,
    FailureKind.TIMEOUT: httpx.ReadTimeout,
    FailureKind.RESET: httpx.ReadError,
    FailureKind.PROTOCOL: httpx.RemoteProtocolError,
    FailureKind.REFUSED_BY_GUARD: httpx.UnsupportedProtocol,
}
