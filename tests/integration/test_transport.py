"""The evidence transport against servers that misbehave, byte for byte on both ends of the wire."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from infra.http import EgressGuard, EvidenceTransport, fetch
from schemas.exchange import Answer, FailureKind, FetchLimits, Hop, OutboundRequest

CERTS = Path(__file__).parent / "certs"
LIMITS = FetchLimits(allow_private=True, allow_http=True)
HURRIED = replace(LIMITS, deadline_s=0.2)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"

Run = Callable[[Coroutine[Any, Any, Any]], Any]
Script = Callable[["Peer"], Awaitable[None]]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine on each of the event loops that firing may use."""
    return asyncio.run if request.param == "asyncio" else uvloop.run


class Peer:
    """The server's end of one connection. ``requests`` holds what its server read, raw, over all of them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server) -> None:
        self.reader = reader
        self.writer = writer
        self.server = server

    async def read(self) -> bytes:
        """Read one request whole; EOFError once the client has closed."""
        raw = await self.reader.readuntil(b"\r\n\r\n")
        for line in raw.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                raw += await self.reader.readexactly(int(line.partition(b":")[2]))
        self.server.requests.append(raw)
        return raw

    async def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    def reset(self) -> None:
        """Close with RST, as a crashed process or a load balancer does."""
        sock = self.writer.get_extra_info("socket")
        # Set through a duplicate: uvloop's own socket object does not take options of this kind.
        with socket.socket(fileno=socket.dup(sock.fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def client_closed(self) -> None:
        """Wait until the client has closed its end."""
        while await self.reader.read(65_536):
            pass


class Server:
    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.port = 0
        self.name_indication: list[str | None] = []

    def url(self, path: str = "/", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


@asynccontextmanager
async def serving(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Serve ``script`` once a connection; what it raises when the client goes away is nobody's concern."""
    server = Server()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            await script(Peer(reader, writer, server))
        except (EOFError, ConnectionError):
            pass
        finally:
            writer.close()

    if tls is not None:
        tls.sni_callback = lambda _socket, name, _context: server.name_indication.append(name)
    listener = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


def answering(*pieces: bytes, then: Callable[[Peer], Awaitable[None] | None] | None = None) -> Script:
    """Answer every request with ``pieces``, one write each; ``then`` ends the connection its own way."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.read()
            await peer.say(*pieces)
            if then is not None:
                ending = then(peer)
                if ending is not None:
                    await ending
                return

    return script


def hang_up(peer: Peer) -> None:
    peer.writer.close()


def get(url: str, *headers: tuple[bytes, bytes]) -> OutboundRequest:
    return OutboundRequest("GET", url, headers)


def ask(run: Run, script: Script, limits: FetchLimits = LIMITS, method: str = "GET") -> tuple[Answer, Server]:
    """Send one request to a server that follows ``script``."""

    async def main() -> tuple[Answer, Server]:
        async with serving(script) as server, EvidenceTransport() as transport:
            return await fetch(transport, OutboundRequest(method, server.url()), limits), server

    answer, server = run(main())
    return answer, server


def only(answer: Answer) -> Hop:
    (hop,) = answer.hops
    return hop


# What is sent


@pytest.mark.parametrize(
    "target",
    [
        "/a%2Bb+c?x=%2B+~%7E",
        "/trailing.",
        "/trailing?",
        "/?sspdata=nym1CJjYiJ3oq6LkMxACGIHey7vM0vGDRyIJMTAuMS4xMi42KAE.",
        "/%3a%3A%c3%A9%zz%",
        "//double//slashes/",
        "/a/../b/./c/..",
        '/px?a=1|2&b={}&c=[x]&d=^`\\"<>',
        "/px?empty=&=value&novalue&&",
        "/px?q=a?b/c:d@e;f,g!h$i'j(k)*l",
    ],
)
def test_the_request_target_is_on_the_wire_as_it_was_rendered(run: Run, target: str) -> None:
    """No escape, dot segment, empty value or odd character is touched between URL and socket."""

    async def main() -> list[bytes]:
        async with serving(answering(OK)) as server, EvidenceTransport() as transport:
            await fetch(transport, get(server.url(target)), LIMITS)
            return server.requests

    (raw,) = run(main())
    assert raw.partition(b"\r\n")[0] == f"GET {target} HTTP/1.1".encode()


def test_the_recorded_request_is_what_the_peer_read(run: Run) -> None:
    """Head and body are recorded byte for byte: order, case, repeats, and nothing nobody asked for."""
    headers = (
        (b"user-AGENT", b"Holdfire/1"),
        (b"X-Two", b"1"),
        (b"Accept", b"*/*"),
        (b"x-two", b"caf\xc3\xa9"),
    )

    async def main() -> tuple[Answer, Server]:
        async with serving(answering(OK)) as server, EvidenceTransport() as transport:
            request = OutboundRequest("POST", server.url("/px?a=b"), headers, b'{"a": "\x00\r\n\r\n"}')
            return await fetch(transport, request, LIMITS), server

    answer, server = run(main())
    hop = only(answer)
    assert server.requests == [hop.request_head + b"\r\n" + hop.request_body]
    assert hop.request_head == (
        b"POST /px?a=b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nuser-AGENT: Holdfire/1\r\nX-Two: 1\r\n"
        b"Accept: */*\r\nx-two: caf\xc3\xa9\r\nContent-Length: 14\r\n" % server.port
    )


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (OutboundRequest("GET", "http://127.0.0.1:{}/", ((b"X", b"a\r\nY: b"),)), "cannot be sent"),
        (OutboundRequest("GET", "http://127.0.0.1:{}/", ((b"X Y", b"a"),)), "cannot be sent"),
        (OutboundRequest("GET / HTTP/1.1\r\nX:", "http://127.0.0.1:{}/"), "method"),
        (OutboundRequest("POST", "http://127.0.0.1:{}/", ((b"content-length", b"3"),), b"ab"), "length"),
        (OutboundRequest("GET", "http://127.0.0.1:{}/", ((b"Transfer-Encoding", b"chunked"),)), "length"),
        (OutboundRequest("GET", "http://127.0.0.1:{}/a b"), "percent-encode"),
        (OutboundRequest("GET", "http://user:pw@127.0.0.1:{}/"), "user name"),
    ],
)
def test_a_request_that_would_break_its_framing_is_not_sent(
    run: Run, request_: OutboundRequest, words: str
) -> None:
    """It is refused before a connection is made, and the message names the part."""

    async def main() -> tuple[Answer, Server]:
        async with serving(answering(OK)) as server, EvidenceTransport() as transport:
            url = request_.url.replace("{}", str(server.port))
            return await fetch(transport, replace(request_, url=url), LIMITS), server

    answer, server = run(main())
    assert answer.failure is not None
    assert (answer.failure.kind, answer.failure.sent) == (FailureKind.REFUSED_BY_GUARD, False)
    assert words in answer.failure.message
    assert server.connections == 0


# What came back


def test_the_response_head_is_kept_as_received(run: Run) -> None:
    """Spacing, case, order, repeats and the reason phrase are the server's own."""
    head = b"HTTP/1.1 200 All  quite fine\r\nSet-Cookie: a=1\r\nX-ODD:   spaced \t\r\nset-cookie: b=2\r\nContent-Length:0\r\n"
    answer, _ = ask(run, answering(head + b"\r\n"))
    assert only(answer).response_head == head
    assert answer.response_headers == (
        (b"Set-Cookie", b"a=1"),
        (b"X-ODD", b"spaced"),
        (b"set-cookie", b"b=2"),
        (b"Content-Length", b"0"),
    )


def test_a_head_in_many_pieces_after_interim_answers_is_the_final_one(run: Run) -> None:
    """100 and 103 are not the answer, however the bytes are cut."""
    whole = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK
    hop = only(ask(run, answering(*(whole[i : i + 5] for i in range(0, len(whole), 5))))[0])
    assert (hop.status_code, hop.response_head, hop.body) == (
        200,
        OK.partition(b"\r\n\r\n")[0] + b"\r\n",
        b"OK",
    )


def test_lines_ended_by_a_bare_newline_are_still_an_answer(run: Run) -> None:
    """Some trackers are that old; the head is then written down as understood."""
    hop = only(ask(run, answering(b"HTTP/1.0 200 OK\nX: y\nContent-Length: 2\n\nOK"))[0])
    assert (hop.status_code, hop.body) == (200, b"OK")
    assert hop.response_head == b"HTTP/1.0 200 OK\r\nX: y\r\nContent-Length: 2\r\n"


def test_cookies_are_never_sent_back(run: Run) -> None:
    """A postback has no session: what a network sets is evidence, not state."""

    async def main() -> list[bytes]:
        script = answering(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/\r\nContent-Length: 0\r\n\r\n")
        async with serving(script) as server, EvidenceTransport() as transport:
            for _ in range(2):
                await fetch(transport, get(server.url()), LIMITS)
            return server.requests

    first, second = run(main())
    assert first == second


def test_both_ends_reuse_and_times_are_recorded(run: Run) -> None:
    """The second exchange goes over the first one's connection and says so."""

    async def main() -> tuple[Hop, Hop, int]:
        async with serving(answering(OK)) as server, EvidenceTransport() as transport:
            hops = [only(await fetch(transport, get(server.url(host="localhost")), LIMITS)) for _ in range(2)]
            return hops[0], hops[1], server.port

    first, second, port = run(main())
    assert first.peer == second.peer == f"127.0.0.1:{port}"
    assert first.local == second.local != first.peer
    assert (first.reused, second.reused) == (False, True)
    assert "127.0.0.1" in first.addresses
    assert first.dns_ms is not None
    assert first.connect_ms is not None
    assert first.first_byte_ms is not None
    assert first.total_ms is not None
    assert first.dns_ms + first.connect_ms <= first.first_byte_ms <= first.total_ms
    assert (second.dns_ms, second.connect_ms) == (None, None)


def test_a_body_is_kept_as_it_came_even_if_its_compression_is_cut(run: Run) -> None:
    """A truncated gzip stream is bytes like any others."""
    half = gzip.compress(b"converted " * 100)[:20]
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 20\r\n\r\n"
    hop = only(ask(run, answering(head + half))[0])
    assert (hop.body, hop.body_length, hop.body_error, hop.truncated) == (half, 20, None, False)
    assert hop.body_sha256 == hashlib.sha256(half).hexdigest()


def test_a_chunked_body_is_kept_without_its_framing(run: Run) -> None:
    """The framing is the transfer's, the bytes between are the body's."""
    answer, _ = ask(
        run,
        answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"),
    )
    assert only(answer).body == b"abcde"


def test_reading_a_huge_body_stops_a_little_past_the_cap(run: Run) -> None:
    """Of 50 MB only what the cap asks for is kept, the rest is left unread and the connection is closed."""
    size = 50_000_000
    finished: list[bool] = []

    async def script(peer: Peer) -> None:
        await peer.read()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // 100_000):
            await peer.say(b"x" * 100_000)
        finished.append(True)

    hop = only(ask(run, script)[0])
    assert (hop.status_code, hop.truncated, hop.body) == (200, True, b"x" * LIMITS.body_cap_bytes)
    assert LIMITS.body_cap_bytes < hop.body_length < 1_000_000
    assert hop.body_sha256 == hashlib.sha256(b"x" * hop.body_length).hexdigest()
    assert not finished


def test_a_body_of_exactly_the_cap_is_whole(run: Run) -> None:
    """The cap is the last size that is kept whole."""
    cap = LIMITS.body_cap_bytes
    hop = only(ask(run, answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % cap + b"x" * cap))[0])
    assert (hop.body_length, hop.truncated) == (cap, False)


# Answers that go wrong after their status


def test_a_body_that_drips_past_the_deadline_leaves_the_status_standing(run: Run) -> None:
    """What came is kept, and the record says why the rest is missing."""

    async def script(peer: Peer) -> None:
        await peer.read()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not peer.reader.at_eof():
            await peer.say(b"x")
            await asyncio.sleep(0.01)

    answer, _ = ask(run, script, HURRIED)
    hop = only(answer)
    assert (answer.failure, hop.failure, hop.status_code) == (None, None, 200)
    assert hop.body_error == "TimeoutError: not complete within 0.2 s"
    assert 0 < hop.body_length < 1000
    assert hop.body == b"x" * hop.body_length


def test_a_body_shorter_than_announced_leaves_the_status_standing(run: Run) -> None:
    """The part that came before the premature close is kept."""
    answer, _ = ask(run, answering(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\npart", then=hang_up))
    hop = only(answer)
    assert (answer.failure, hop.status_code, hop.body) == (None, 200, b"part")
    assert "ClientPayloadError" in str(hop.body_error)


def test_a_body_longer_than_announced_leaves_the_status_standing(run: Run) -> None:
    """A server that cannot count has still answered; its bytes are kept as they came."""
    answer, _ = ask(run, answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK and more"))
    hop = only(answer)
    assert (answer.failure, hop.status_code, hop.body) == (None, 200, b"OK and more")
    assert hop.response_head == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
    assert "unparsed" in str(hop.body_error)


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_broken_chunk_ends_the_body_at_once_and_leaves_the_status_standing(run: Run, pieces: int) -> None:
    """Whether it comes with the head or later, nobody waits for the deadline and nothing before it is lost."""
    head, first = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nab\r\n"
    rest = b"3\r\ncde\r\nzz\r\nmore"

    async def script(peer: Peer) -> None:
        await peer.read()
        if pieces == 1:
            await peer.say(head + first + rest)
        else:
            await peer.say(head + first)
            await asyncio.sleep(0.02)  # paces the pieces apart; were they merged, the law would be the same
            await peer.say(rest)
        await peer.client_closed()

    answer, _ = ask(run, script)
    hop = only(answer)
    assert (answer.failure, hop.status_code) == (None, 200)
    assert hop.body == (first + rest if pieces == 1 else b"abcde")
    assert "TimeoutError" not in str(hop.body_error)
    assert hop.body_error is not None


def test_a_reset_ends_a_body_of_unknown_length_as_incomplete(run: Run) -> None:
    """A body that lasts until the connection closes is not whole if the close was a reset."""

    async def script(peer: Peer) -> None:
        await peer.read()
        await peer.say(b"HTTP/1.1 200 OK\r\n\r\nsome")
        await asyncio.sleep(0.02)  # a reset throws away what the peer has not read yet
        peer.reset()

    answer, _ = ask(run, script)
    assert (answer.failure, only(answer).status_code, only(answer).body) == (None, 200, b"some")
    assert "reset" in str(only(answer).body_error).lower()


def test_a_head_request_is_answered_without_a_body(run: Run) -> None:
    """The length in the head is that of a body that never comes."""
    answer, _ = ask(run, answering(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"), HURRIED, method="HEAD")
    assert (only(answer).status_code, only(answer).body_error) == (200, None)


# No answer: sent or not sent


def failed(answer: Answer) -> tuple[FailureKind, bool]:
    assert answer.failure is not None
    return answer.failure.kind, answer.failure.sent


def test_a_refused_connection_is_certainly_not_sent(run: Run) -> None:
    """Nothing left the machine, and the record shows no request head."""

    async def main() -> Answer:
        with socket.socket() as unheard:
            unheard.bind(("127.0.0.1", 0))  # bound and not listening: the port answers with a refusal
            async with EvidenceTransport() as transport:
                return await fetch(transport, get(f"http://127.0.0.1:{unheard.getsockname()[1]}/"), LIMITS)

    answer = run(main())
    assert failed(answer) == (FailureKind.CONNECT, False)
    assert (only(answer).request_head, only(answer).addresses) == (b"", ("127.0.0.1",))


def test_a_name_that_does_not_resolve_is_certainly_not_sent(run: Run) -> None:
    """The failure is the name service's."""

    async def lookup(host: str) -> tuple[str, ...]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown name")

    async def main() -> Answer:
        async with EvidenceTransport(guard=EgressGuard(lookup)) as transport:
            return await fetch(transport, get("http://network.test/"), LIMITS)

    assert failed(run(main())) == (FailureKind.DNS, False)


def test_a_name_service_that_hangs_is_given_up_after_the_connect_timeout(run: Run) -> None:
    """Resolving is part of connecting, and does not use up the whole deadline."""

    async def lookup(host: str) -> tuple[str, ...]:
        await asyncio.Event().wait()
        return ()

    async def main() -> Answer:
        async with EvidenceTransport(guard=EgressGuard(lookup)) as transport:
            return await fetch(transport, get("http://network.test/"), replace(LIMITS, connect_s=0.05))

    answer = run(main())
    assert failed(answer) == (FailureKind.DNS, False)
    assert "0.05 s" in answer.failure.message


def test_no_answer_before_the_deadline_is_a_timeout_after_sending(run: Run) -> None:
    """The request was read; whether it counted is unknown."""

    async def script(peer: Peer) -> None:
        await peer.read()
        await peer.client_closed()

    answer, server = ask(run, script, HURRIED)
    assert failed(answer) == (FailureKind.TIMEOUT, True)
    assert only(answer).request_head + b"\r\n" == server.requests[0]


def test_a_deadline_that_has_passed_sends_nothing(run: Run) -> None:
    """Not even over a connection that is ready."""

    async def main() -> tuple[Hop, int]:
        async with serving(answering(OK)) as server, EvidenceTransport() as transport:
            await fetch(transport, get(server.url()), LIMITS)
            late = asyncio.get_running_loop().time() - 1
            return await transport.exchange(get(server.url()), LIMITS, deadline=late), len(server.requests)

    hop, requests = run(main())
    assert hop.failure is not None
    assert (hop.failure.kind, hop.failure.sent, requests) == (FailureKind.TIMEOUT, False, 1)


def test_a_reset_after_the_request_is_a_reset_after_sending(run: Run) -> None:
    """The peer read everything and vanished."""

    async def script(peer: Peer) -> None:
        await peer.read()
        peer.reset()

    answer, _ = ask(run, script)
    assert failed(answer) == (FailureKind.RESET, True)


def test_what_came_of_a_head_that_was_cut_short_is_kept(run: Run) -> None:
    """The failure stands, with the bytes that came as evidence."""
    answer, _ = ask(run, answering(b"HTTP/1.1 200 OK\r\nContent-Le", then=hang_up))
    assert failed(answer) == (FailureKind.RESET, True)
    assert (only(answer).status_code, only(answer).response_head) == (None, b"HTTP/1.1 200 OK\r\nContent-Le")


def test_an_answer_that_is_not_http_is_a_protocol_failure_with_its_bytes_kept(run: Run) -> None:
    """An SSH banner on the port of a tracker."""
    answer, _ = ask(run, answering(b"SSH-2.0-OpenSSH_9.2\r\n"))
    assert failed(answer) == (FailureKind.PROTOCOL, True)
    assert only(answer).response_head == b"SSH-2.0-OpenSSH_9.2\r\n"


def test_a_kept_connection_closed_after_the_second_request_sees_exactly_one_copy(run: Run) -> None:
    """No engine below sends it again behind our back: one copy was read, and its outcome is in doubt."""

    async def script(peer: Peer) -> None:
        await peer.read()
        if len(peer.server.requests) == 1:
            await peer.say(OK)
            await peer.read()

    async def main() -> tuple[Answer, Server]:
        async with serving(script) as server, EvidenceTransport() as transport:
            assert (await fetch(transport, get(server.url("/1")), LIMITS)).failure is None
            return await fetch(transport, get(server.url("/2")), LIMITS), server

    answer, server = run(main())
    assert failed(answer) == (FailureKind.RESET, True)
    assert only(answer).reused
    assert [raw.split()[1] for raw in server.requests] == [b"/1", b"/2"]
    assert server.connections == 1


@pytest.mark.parametrize("parting", [b"", b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"])
def test_a_connection_closed_while_idle_is_not_written_into(run: Run, parting: bytes) -> None:
    """The socket is looked at before the write, for the event loop may not have read the close yet."""
    listener = socket.create_server(("127.0.0.1", 0))
    closed = threading.Event()
    requests: list[bytes] = []

    def serve() -> None:
        for farewell in (parting, b""):
            connection = listener.accept()[0]
            with connection:
                requests.append(connection.recv(65_536))
                connection.sendall(OK)
                answered.wait(5)
                connection.sendall(farewell)
            closed.set()

    async def main() -> tuple[Hop, Hop]:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        async with EvidenceTransport() as transport:
            first = only(await fetch(transport, get(url), LIMITS))
            answered.set()
            closed.wait(5)  # blocks the loop on purpose: it must not get to see the close
            return first, await transport.exchange(get(url), LIMITS)

    answered = threading.Event()
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    first, second = run(main())
    thread.join(5)
    listener.close()
    assert (first.status_code, second.status_code, second.reused) == (200, 200, False)
    assert len(requests) == 2


def test_bytes_nobody_asked_for_are_not_taken_for_the_next_answer(run: Run) -> None:
    """A second answer to the first request ends the connection instead of answering the second request."""

    async def script(peer: Peer) -> None:
        await peer.read()
        await peer.say(OK)
        if len(peer.server.requests) == 1:
            await next_turn.wait()
            await peer.say(b"HTTP/1.1 500 Late\r\nContent-Length: 0\r\n\r\n")
            await peer.client_closed()
            gone.set()

    async def main() -> tuple[Answer, Server]:
        async with serving(script) as server, EvidenceTransport() as transport:
            await fetch(transport, get(server.url()), LIMITS)
            next_turn.set()
            async with asyncio.timeout(5):
                await gone.wait()
            return await fetch(transport, get(server.url()), LIMITS), server

    next_turn, gone = asyncio.Event(), asyncio.Event()
    answer, server = run(main())
    assert (only(answer).status_code, only(answer).reused, server.connections) == (200, False, 2)


def test_a_cancelled_exchange_hands_over_what_it_knows(run: Run) -> None:
    """The cancellation goes on, and the hop says that the request was written."""

    async def script(peer: Peer) -> None:
        await peer.read()
        arrived.set()
        await peer.client_closed()

    async def main() -> list[Hop]:
        interrupted: list[Hop] = []
        async with serving(script) as server, EvidenceTransport() as transport:
            task = asyncio.create_task(fetch(transport, get(server.url()), LIMITS, interrupted))
            await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        return interrupted

    arrived = asyncio.Event()
    (hop,) = run(main())
    assert hop.failure is not None
    assert (hop.failure.kind, hop.failure.sent) == (FailureKind.CANCELLED, True)


# TLS


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTS / "sample-server.pem")
    return context


def trusting_the_sample_ca() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(CERTS / "sample-ca.pem"))


def to_loopback() -> EgressGuard:
    async def lookup(host: str) -> tuple[str, ...]:
        return ("127.0.0.1",)

    return EgressGuard(lookup)


def test_host_and_server_name_keep_the_name_while_the_connection_is_pinned(run: Run) -> None:
    """The certificate is checked for the name, and the TLS version is recorded."""

    async def main() -> tuple[Answer, Server]:
        transport = EvidenceTransport(guard=to_loopback(), ssl_context=trusting_the_sample_ca())
        async with serving(answering(OK), server_tls()) as server, transport:
            url = server.url(host="network.test", scheme="https")
            return await fetch(transport, get(url), replace(LIMITS, allow_http=False)), server

    answer, server = run(main())
    hop = only(answer)
    assert (answer.failure, hop.status_code, hop.tls_version) == (None, 200, "TLSv1.3")
    assert hop.peer == f"127.0.0.1:{server.port}"
    assert server.name_indication == ["network.test"]
    assert b"\r\nHost: network.test:%d\r\n" % server.port in server.requests[0]


@pytest.mark.parametrize("fault", ["untrusted", "another name", "not TLS"])
def test_a_failed_tls_handshake_is_certainly_not_sent(run: Run, fault: str) -> None:
    """The request is written only into a verified connection."""

    async def main() -> tuple[Answer, Server]:
        trust = None if fault == "untrusted" else trusting_the_sample_ca()
        transport = EvidenceTransport(guard=to_loopback(), ssl_context=trust)

        async def banner(peer: Peer) -> None:
            await peer.say(b"220 mail.test ESMTP\r\n")
            await peer.client_closed()

        script, tls = (banner, None) if fault == "not TLS" else (answering(OK), server_tls())
        async with serving(script, tls) as server, transport:
            host = "other.test" if fault == "another name" else "network.test"
            return await fetch(transport, get(server.url(host=host, scheme="https")), LIMITS), server

    answer, server = run(main())
    assert failed(answer) == (FailureKind.TLS, False)
    assert server.requests == []


def test_a_tls_handshake_that_hangs_is_given_up_after_the_connect_timeout(run: Run) -> None:
    """The peer accepts and then says nothing."""

    async def main() -> Answer:
        async with serving(Peer.client_closed) as server, EvidenceTransport() as transport:
            return await fetch(transport, get(server.url(scheme="https")), replace(LIMITS, connect_s=0.05))

    answer = run(main())
    assert failed(answer) == (FailureKind.CONNECT, False)
    assert "0.05 s" in answer.failure.message


# Redirects and the guard, hop by hop


def moving(routes: dict[bytes, tuple[int, str]]) -> Script:
    """Redirect the targets in ``routes`` and answer the others."""

    async def script(peer: Peer) -> None:
        while True:
            target = (await peer.read()).split()[1]
            if target in routes:
                status, location = routes[target]
                location = location.replace("{port}", str(peer.server.port))
                await peer.say(
                    b"HTTP/1.1 %d Moved\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n"
                    % (status, location.encode())
                )
            else:
                await peer.say(OK)

    return script


class FirstHopOnLoopback:
    """Lets loopback stand in for a public network on the first hop; what follows is judged as it is."""

    def __init__(self, transport: EvidenceTransport) -> None:
        self.transport = transport

    async def exchange(
        self,
        request: OutboundRequest,
        limits: FetchLimits,
        number: int = 1,
        deadline: float | None = None,
        interrupted: list[Hop] | None = None,
    ) -> Hop:
        limits = replace(limits, allow_private=True) if number == 1 else limits
        return await self.transport.exchange(request, limits, number, deadline, interrupted)


def test_a_chain_of_redirects_is_recorded_hop_by_hop(run: Run) -> None:
    """Each hop is an exchange of its own; the answer is the last one's."""
    routes = {
        b"/1": (302, "2?x=%2B"),
        b"/2?x=%2B": (307, "http://localhost:{port}/3#fragment"),
        b"/3": (303, "//127.0.0.1:{port}/4"),
    }

    async def main() -> tuple[Answer, Server]:
        async with serving(moving(routes)) as server, EvidenceTransport() as transport:
            return await fetch(transport, get(server.url("/1"), (b"X-Key", b"k")), LIMITS), server

    answer, server = run(main())
    assert [hop.status_code for hop in answer.hops] == [302, 307, 303, 200]
    assert [hop.number for hop in answer.hops] == [1, 2, 3, 4]
    assert [raw.split()[1] for raw in server.requests] == [b"/1", b"/2?x=%2B", b"/3", b"/4"]
    assert [b"X-Key" in raw for raw in server.requests] == [True, True, False, False]
    assert (answer.failure, answer.response_headers) == (None, ((b"Content-Length", b"2"),))


def test_a_redirect_is_just_an_answer_where_redirects_are_not_followed(run: Run) -> None:
    """Some networks answer a conversion with a redirect that means yes."""
    answer, _ = ask(run, moving({b"/": (302, "/2")}), replace(LIMITS, follow_redirects=False))
    assert (only(answer).status_code, answer.failure) == (302, None)


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("http://10.0.0.1/", FailureKind.REFUSED_BY_GUARD),
        ("http://127.0.0.1:{port}/stolen", FailureKind.REFUSED_BY_GUARD),
        ("http://localhost:{port}/stolen", FailureKind.REFUSED_BY_GUARD),
        ("http://[::ffff:127.0.0.1]:{port}/stolen", FailureKind.REFUSED_BY_GUARD),
        ("http://2130706433:{port}/stolen", FailureKind.REFUSED_BY_GUARD),
        ("http://169.254.169.254/latest/meta-data/", FailureKind.REFUSED_BY_GUARD),
        ("http://user:pw@127.0.0.1:{port}/stolen", FailureKind.REFUSED_BY_GUARD),
        ("gopher://127.0.0.1:{port}/stolen", FailureKind.REFUSED_BY_GUARD),
        ("/", FailureKind.REDIRECT_LOOP),
    ],
)
def test_a_redirect_that_must_not_be_followed_sends_nothing_there(
    run: Run, location: str, kind: FailureKind
) -> None:
    """The answer so far is kept, the attempt was sent, and the target saw no byte and no connection."""

    async def main() -> tuple[Answer, Server]:
        async with serving(moving({b"/": (302, location)})) as server, EvidenceTransport() as transport:
            limits = replace(LIMITS, allow_private=False)
            return await fetch(FirstHopOnLoopback(transport), get(server.url()), limits), server

    answer, server = run(main())
    assert failed(answer) == (kind, True)
    assert (only(answer).status_code, len(server.requests), server.connections) == (302, 1, 1)


def test_a_redirect_from_https_down_to_http_is_refused_even_where_http_is_allowed(run: Run) -> None:
    """A key that was sent under TLS does not follow in the clear."""

    async def main() -> tuple[Answer, Server]:
        transport = EvidenceTransport(ssl_context=trusting_the_sample_ca())
        async with serving(answering(OK)) as plain, transport:
            routes = {b"/": (302, plain.url())}
            async with serving(moving(routes), server_tls()) as secure:
                return await fetch(transport, get(secure.url(scheme="https")), LIMITS), plain

    answer, plain = run(main())
    assert failed(answer) == (FailureKind.REFUSED_BY_GUARD, True)
    assert plain.connections == 0


def test_a_redirect_outside_the_allowed_hosts_is_refused(run: Run) -> None:
    """The list holds for every hop."""

    async def main() -> tuple[Answer, Server]:
        async with (
            serving(
                moving(
                    {b"/": (302, "http://b.adnxs.com:{port}/2"), b"/2": (302, "http://localhost:{port}/3")}
                )
            ) as server,
            EvidenceTransport(guard=to_loopback()) as transport,
        ):
            limits = replace(LIMITS, allowed_hosts=("*.adnxs.com",))
            return await fetch(transport, get(server.url(host="a.adnxs.com")), limits), server

    answer, server = run(main())
    assert failed(answer) == (FailureKind.REFUSED_BY_GUARD, True)
    assert [hop.status_code for hop in answer.hops] == [302, 302]
    assert len(server.requests) == 2


def test_a_chain_longer_than_allowed_ends_at_its_last_answer(run: Run) -> None:
    """Five hops are made and a sixth is not."""
    answer, server = ask(run, moving({b"/" + b"x" * n: (302, "/" + "x" * (n + 1)) for n in range(9)}))
    assert failed(answer) == (FailureKind.TOO_MANY_REDIRECTS, True)
    assert len(answer.hops) == len(server.requests) == LIMITS.max_hops


def test_one_deadline_covers_all_hops(run: Run) -> None:
    """A chain that keeps answering in time, hop by hop, still ends."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.read()
            await asyncio.sleep(0.08)
            await peer.say(
                b"HTTP/1.1 302 Found\r\nLocation: /%d\r\nContent-Length: 0\r\n\r\n"
                % len(peer.server.requests)
            )

    answer, _ = ask(run, script, replace(HURRIED, max_hops=50))
    assert failed(answer) == (FailureKind.TIMEOUT, True)
    assert 1 < len(answer.hops) < 5


def test_a_later_hop_that_cannot_connect_leaves_the_attempt_sent(run: Run) -> None:
    """The hop itself was not sent; the attempt was, by the hop before it."""
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        answer, _ = ask(run, moving({b"/": (302, f"http://127.0.0.1:{unheard.getsockname()[1]}/")}))
    assert failed(answer) == (FailureKind.CONNECT, True)
    assert answer.hops[1].failure is not None
    assert not answer.hops[1].failure.sent


def test_a_connection_made_where_private_is_allowed_is_not_there_for_others(run: Run) -> None:
    """A kept-alive connection to loopback does not get a strict destination past the guard."""

    async def main() -> tuple[Answer, Server]:
        async with serving(answering(OK)) as server, EvidenceTransport() as transport:
            await fetch(transport, get(server.url()), LIMITS)
            return await fetch(transport, get(server.url()), replace(LIMITS, allow_private=False)), server

    answer, server = run(main())
    assert failed(answer) == (FailureKind.REFUSED_BY_GUARD, False)
    assert (answer.hops, len(server.requests)) == ((), 1)


def test_a_name_that_turned_public_is_not_reached_over_its_old_private_connection(run: Run) -> None:
    """Rebinding in reverse: the guard admits the name, and still the loopback connection is not reused."""
    loopback, public = ("127.0.0.1",), ("93.184.215.14",)
    answers = iter([loopback, loopback, public])
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 3600  # nothing stays fresh, so admission and dialling each ask again
        return now

    async def lookup(host: str) -> tuple[str, ...]:
        try:
            return next(answers)
        except StopIteration:  # asked by the dialling: keeps the test from leaving this machine
            raise socket.gaierror(socket.EAI_AGAIN, "no answer") from None

    async def main() -> tuple[Answer, Server]:
        transport = EvidenceTransport(guard=EgressGuard(lookup, clock))
        async with serving(answering(OK)) as server, transport:
            url = server.url(host="network.test")
            assert (await fetch(transport, get(url), LIMITS)).failure is None
            return await fetch(transport, get(url), replace(LIMITS, allow_private=False)), server

    answer, server = run(main())
    assert failed(answer) == (FailureKind.DNS, False)
    assert only(answer).addresses == public
    assert len(server.requests) == 1


# Behind an httpx client


def test_an_httpx_client_gets_the_hop_with_the_response(run: Run) -> None:
    """The transport is an ordinary httpx transport whose responses carry their evidence."""

    async def main() -> tuple[httpx.Response, Server]:
        packed = gzip.compress(b"hello")
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
        client = httpx.AsyncClient(transport=EvidenceTransport(limits=LIMITS))
        async with serving(answering(head + packed)) as server, client:
            return await client.post(server.url("/px?a=%2B"), content=b"body"), server

    response, server = run(main())
    hop = response.extensions["hop"]
    assert (response.status_code, response.text, response.headers["content-encoding"]) == (
        200,
        "hello",
        "gzip",
    )
    assert server.requests == [hop.request_head + b"\r\n" + b"body"]


def test_an_httpx_client_gets_its_own_exceptions_with_the_hop(run: Run) -> None:
    """Code written for httpx catches what it knows."""

    async def main() -> None:
        async with httpx.AsyncClient(transport=EvidenceTransport(limits=LIMITS)) as client:
            with socket.socket() as unheard:
                unheard.bind(("127.0.0.1", 0))
                await client.get(f"http://127.0.0.1:{unheard.getsockname()[1]}/")

    with pytest.raises(httpx.ConnectError) as caught:
        run(main())
    assert caught.value.hop.failure.kind is FailureKind.CONNECT  # type: ignore[attr-defined] # set by the transport
