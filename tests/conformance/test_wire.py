"""Every example of every network, as a raw socket sees it: the request target is the rendered one, byte for byte."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import pytest

from infra.catalogue import load_catalogue
from infra.http.fetch import fetch
from infra.http.transport import EvidenceTransport
from schemas.exchange import Answer, FetchLimits, OutboundRequest
from schemas.macros import render
from schemas.network import Example, Network

LOOPBACK = FetchLimits(deadline_s=10, allow_private=True, allow_http=True)
EXAMPLES = [
    pytest.param(network, example, id=f"{network.slug}-{number}")
    for network in load_catalogue().values()
    for number, example in enumerate(network.examples, 1)
]


async def _send(request: OutboundRequest, length: int) -> tuple[Answer, bytes]:
    """Send ``request`` with its scheme and authority replaced by a loopback socket's; give what the socket read.

    Path and query are cut out of the URL as text, so that no parser touches them on the way.
    """
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(length)
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        received.set_result(head + body)

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    authority = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    target = request.url.removeprefix(f"{urlsplit(request.url).scheme}://").partition("/")[2]
    local = OutboundRequest(request.method, f"http://{authority}/{target}", request.headers, request.body)
    async with server, EvidenceTransport() as transport:
        answer = await fetch(transport, local, LOOPBACK)
        assert answer.failure is None, answer.failure
        return answer, await received


def _request(network: Network, example: Example) -> OutboundRequest:
    defaults = {f"settings.{name}": setting.default for name, setting in network.settings.items()}
    given = {f"settings.{name}": text for name, text in example.settings.items()}
    rendered = render(network.template((), example.headers), defaults | given | example.event)
    headers = tuple((name.encode(), text.encode()) for name, text in rendered.headers)
    return OutboundRequest(rendered.method, rendered.url, headers, rendered.body.encode())


@pytest.mark.parametrize(("network", "example"), EXAMPLES)
def test_the_request_target_on_the_wire_is_the_examples(network: Network, example: Example) -> None:
    """Nothing between rendering and the socket re-encodes, decodes or reorders the target or the body."""
    request = _request(network, example)
    target = "/" + example.url.partition("://")[2].partition("/")[2]
    _, raw = asyncio.run(_send(request, len(request.body)))
    head, _, body = raw.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == f"{example.method} {target} HTTP/1.1".encode()
    assert body == example.body.encode()


@pytest.mark.parametrize(
    "target",
    [
        "/sspx?id=1&sspdata=a.",
        "/sspx?id=1&sspdata=%7e%2E%2d",
        "/a%2fb//c/./../d?x=%20+&&=&y",
        "/x?",
        "/x?q='()*!$,;:@",
        "/%C3%A9?%e2%82%ac",
    ],
)
def test_a_target_that_parsers_like_to_tidy_goes_out_untouched(target: str) -> None:
    """Escapes of unreserved characters, lower-case escapes, dot segments and empty queries all stay."""
    answer, raw = asyncio.run(_send(OutboundRequest("GET", f"https://network.example{target}"), 0))
    assert raw.split(b"\r\n")[0] == f"GET {target} HTTP/1.1".encode()
    assert answer.hops[0].request_head.split(b"\r\n")[0] == f"GET {target} HTTP/1.1".encode()
