"""Settling at a network of our own: tokens that come into being on the way, and bodies that echo what they got."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from sqlalchemy import Engine

from schemas.redaction import mask
from tests.integration.ground import Ground, Gun, cleared, contract, conversion
from tests.integration.test_firing import dump

CLIENT_SECRET = "client-s3cret-value"
KEY = "k3y-in-a-header+/="


@dataclass
class Network:
    """A small network: ``/token`` gives tokens, everything else is answered by ``answer`` with status, headers, body."""

    answer: Callable[[BaseHTTPRequestHandler], tuple[int, dict[str, str], bytes]]
    tokens_given: int = 0
    tokens_refused_from: int = 1_000_000
    """From this token on the endpoint gives none."""
    seen: list[str] = field(default_factory=list)
    url: str = ""
    """The Authorization fields of the postbacks it got."""

    def token(self) -> tuple[int, dict[str, str], bytes]:
        if self.tokens_given + 1 >= self.tokens_refused_from:
            return 503, {}, b""
        self.tokens_given += 1
        return 200, {}, b'{"access_token": "access-token-%d", "expires_in": 300}' % self.tokens_given


@pytest.fixture
def network() -> Iterator[Network]:
    network = Network(lambda _: (200, {}, b"OK"))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path == "/token":
                status, headers, body = network.token()
            else:
                network.seen.append(self.headers.get("Authorization", ""))
                status, headers, body = network.answer(self)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _answer  # noqa: N815 — the names that http.server asks for

        def log_message(self, *_: Any) -> None:
            """The tests look at what came, not at lines."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    network.url = f"http://127.0.0.1:{server.server_port}"
    yield network
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def ground(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Ground:
    monkeypatch.setenv("HF_TEST_CLIENT_SECRET", CLIENT_SECRET)
    monkeypatch.setenv("HF_TEST_KEY", KEY)
    return cleared(engine)


@pytest.fixture
def gun(ground: Ground) -> Iterator[Gun]:
    with ground.firing() as gun:
        yield gun


def by_token(network: Network) -> dict[str, Any]:
    return {
        "kind": "client_credentials",
        "token_url": f"{network.url}/token",
        "client_id": "holdfire",
        "client_secret": {"env": "HF_TEST_CLIENT_SECRET"},
    }


def refusing(*refused: str) -> Callable[[BaseHTTPRequestHandler], tuple[int, dict[str, str], bytes]]:
    """A network that does not know these tokens, and echoes the one it got."""

    def answer(handler: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        token = handler.headers.get("Authorization", "")
        return 401 if token.removeprefix("Bearer ") in refused else 200, {}, f"you sent {token}".encode()

    return answer


# Tokens --------------------------------------------------------------------------------------------


def test_a_token_is_fetched_once_and_masked_wherever_it_stands(
    ground: Ground, gun: Gun, network: Network
) -> None:
    """Thirty postbacks, one token; it is in no row, not even where the network echoed it."""
    network.answer = refusing()
    ground.apply(contract("d", f"{network.url}/p?c={{click_id}}", auth=by_token(network)))
    ground.take(*(conversion(f"e{number}") for number in range(30)))
    gun.fire()
    assert ground.states() == {"delivered": 30}
    assert (network.tokens_given, set(network.seen)) == (1, {"Bearer access-token-1"})
    rows = dump(ground)
    assert "access-token" not in rows
    assert CLIENT_SECRET not in rows
    assert mask("access-token-1") in bytes(ground.hops("e0")[0].body).decode()


def test_a_token_the_network_forgot_is_renewed_within_the_attempt(
    ground: Ground, gun: Gun, network: Network
) -> None:
    """A 401 has counted nothing: one attempt, two hops, the second with a new token; both are masked."""
    network.answer = refusing("access-token-1")
    ground.apply(contract("d", f"{network.url}/p?c={{click_id}}", auth=by_token(network)))
    ground.take(conversion("e"))
    gun.fire()
    (attempt,) = ground.attempts("e")
    assert (attempt.verdict, attempt.number, attempt.status_code) == ("delivered", 1, 200)
    assert [(hop.number, hop.status_code) for hop in ground.hops("e")] == [(1, 401), (2, 200)]
    assert "access-token" not in dump(ground)


def test_a_token_that_cannot_be_renewed_keeps_the_refusal_as_evidence(
    ground: Ground, gun: Gun, network: Network
) -> None:
    """Nothing was counted, so it is tried again later; the 401 is on record, its token masked."""
    network.answer, network.tokens_refused_from = refusing("access-token-1"), 2
    ground.apply(contract("d", f"{network.url}/p?c={{click_id}}", auth=by_token(network)))
    ground.take(conversion("e"))
    gun.fire()
    (attempt,), (hop,) = ground.attempts("e"), ground.hops("e")
    assert (ground.postback("e").state, attempt.verdict, attempt.error_class) == (
        "retrying",
        "retry",
        "TokenError",
    )
    assert "answered 503" in attempt.error_message
    assert hop.status_code == 401
    assert "access-token" not in dump(ground)


def test_a_token_endpoint_that_gives_none_sends_nothing(ground: Ground, gun: Gun, network: Network) -> None:
    """Even at a network that counts twice this is certain: no postback left."""
    network.tokens_refused_from = 1
    ground.apply(contract("d", f"{network.url}/p?c={{click_id}}", auth=by_token(network)))
    ground.take(conversion("e"))
    gun.fire()
    assert (ground.postback("e").state, ground.postback("e").had_unknown) == ("retrying", False)
    assert network.seen == []


# Bodies --------------------------------------------------------------------------------------------


def echo_gzipped(handler: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
    told = f"{handler.path}\n{handler.headers}".encode()
    return 200, {"Content-Encoding": "gzip", "X-Echo": handler.headers["X-Key"]}, gzip.compress(told)


def test_a_compressed_echo_of_a_secret_is_kept_decoded_and_masked(
    ground: Ground, gun: Gun, network: Network
) -> None:
    """A secret inside gzip cannot be seen, so the body is kept decoded; the hop says so, and the click id stays."""
    network.answer = echo_gzipped
    auth = {"kind": "header", "name": "X-Key", "value": {"env": "HF_TEST_KEY"}}
    ground.apply(contract("d", f"{network.url}/p?c={{click_id}}", auth=auth))
    ground.take(conversion("e"))
    gun.fire()
    (hop,) = ground.hops("e")
    assert conversion("e")["click_ids"]["generic"].encode() in bytes(hop.body)
    assert mask(KEY).encode() in bytes(hop.body)
    assert mask(KEY).encode() in bytes(hop.response_head)
    assert "kept decoded" in hop.body_error
    assert "k3y-in" not in dump(ground)


@pytest.mark.parametrize("cut", [0, 10])
def test_a_body_rule_reads_what_a_compressed_body_says(
    cut: int, ground: Ground, gun: Gun, network: Network
) -> None:
    """A 200 whose gzip says success=false is a refusal, whole or cut short; the kept body is as it came."""
    whole = gzip.compress(b"success=false " * 3 + bytes(range(200)))
    body = whole[: len(whole) - cut]
    network.answer = lambda _: (200, {"Content-Encoding": "gzip"}, body)
    rules = {"answer": {"body": [{"regex": "^success=false", "verdict": "rejected"}]}}
    ground.apply(contract("d", f"{network.url}/p?c={{click_id}}", rules=rules))
    ground.take(conversion("e"))
    gun.fire()
    assert ground.postback("e").state == "rejected"
    assert bytes(ground.hops("e")[0].body) == body


def test_bytes_that_are_no_text_are_evidence_all_the_same(ground: Ground, gun: Gun, network: Network) -> None:
    """NUL, invalid UTF-8 and tabs in headers and body are kept byte for byte and break no write."""
    odd = bytes(range(256))
    network.answer = lambda _: (200, {"X-Odd": "tab\there, caf\xe9, back\\slash"}, odd)
    ground.apply(contract("d", f"{network.url}/p?c={{click_id}}"))
    ground.take(conversion("e"))
    gun.fire()
    (hop,) = ground.hops("e")
    assert bytes(hop.body) == odd
    assert b"X-Odd: tab\there, caf\xe9, back\\slash\r\n" in bytes(hop.response_head)


def test_a_redirect_to_odd_places_is_told_and_breaks_no_write(
    ground: Ground, gun: Gun, network: Network
) -> None:
    """A Location with a tab, a quote and bytes beyond ASCII, which a refused redirect quotes in its reason."""
    network.answer = lambda _: (302, {"Location": 'http://10.0.0.1/\t"caf\xe9\\'}, b"")
    rules = {"redirects": "follow", "allowed_hosts": []}
    ground.apply(contract("d", f"{network.url}/p?c={{click_id}}", rules=rules, limits={"connect": "300ms"}))
    ground.take(conversion("e"))
    gun.fire()
    assert ground.attempts("e")[0].verdict in {"retry", "unknown", "rejected"}
    assert ground.hops("e")[0].status_code == 302


def test_close_waits_for_what_is_on_the_wire(ground: Ground, network: Network) -> None:
    """A process that is told to end settles the attempts it has made first."""
    started, go_on = threading.Event(), threading.Event()

    def slow(_: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        started.set()
        go_on.wait(10)
        return 200, {}, b"OK"

    network.answer = slow
    ground.apply(contract("d", f"{network.url}/p?c={{click_id}}"))
    ground.take(conversion("e"))
    with ground.firing() as gun:
        gun.fire_due()
        assert started.wait(10)
        threading.Timer(0.3, go_on.set).start()
    assert ground.postback("e").state == "delivered"
