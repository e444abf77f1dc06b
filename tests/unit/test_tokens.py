"""OAuth tokens: asked for once, shared, renewed in time, and refused when they could not be sent or masked."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from infra.catalogue import load_catalogue
from schemas.auth import ClientCredentialsAuth
from schemas.destination import Destination, DestinationVersion, join
from schemas.exchange import Failure, FailureKind, FetchLimits, Hop, OutboundRequest
from workers import tokens
from workers.rendering import Account, open_account
from workers.tokens import TokenError, Tokens


@dataclass
class Endpoint:
    """A token endpoint without a socket: the transport's seam, answered by ``answer``."""

    answer: Callable[[int], tuple[int, Any]]
    asked: list[OutboundRequest] = field(default_factory=list)

    async def exchange(
        self,
        request: OutboundRequest,
        limits: FetchLimits,
        number: int = 1,
        deadline: float | None = None,
        interrupted: list[Hop] | None = None,
    ) -> Hop:
        self.asked.append(request)
        await asyncio.sleep(0)
        status, body = self.answer(len(self.asked))
        failure = Failure(FailureKind.CONNECT, False, "Refused", "refused") if status == 0 else None
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        return Hop(
            number=1,
            url=request.url,
            method=request.method,
            started_at=datetime.now(UTC),
            request_head=b"",
            status_code=status or None,
            body=raw,
            body_length=len(raw),
            failure=failure,
        )


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Account:
    monkeypatch.setenv("HF_TEST_CLIENT_SECRET", "s3cret value+/")
    destination = Destination.model_validate(
        {
            "network": "generic",
            "events": ["purchase"],
            "settings": {"url": "https://network.example/p"},
            "auth": {
                "kind": "client_credentials",
                "token_url": "https://network.example/token",
                "client_id": "holdfire client",
                "client_secret": {"env": "HF_TEST_CLIENT_SECRET"},
                "scope": "postback",
            },
        }
    )
    return open_account(DestinationVersion(1, 1, join("d", destination, load_catalogue()["generic"])))


def auth_of(account: Account) -> ClientCredentialsAuth:
    auth = account.version.contract.destination.auth
    assert isinstance(auth, ClientCredentialsAuth)
    return auth


def ask(endpoint: Endpoint, account: Account, times: int = 1) -> list[str]:
    """Ask ``times`` at once."""

    async def run() -> list[str]:
        held = Tokens(endpoint)
        return list(await asyncio.gather(*(held.token(account, auth_of(account)) for _ in range(times))))

    return asyncio.run(run())


def test_askers_at_once_share_one_request(account: Account) -> None:
    """Twenty attempts that need a token make one request for it."""
    endpoint = Endpoint(lambda number: (200, {"access_token": f"token-{number:04}", "expires_in": 300}))
    assert ask(endpoint, account, 20) == ["token-0001"] * 20
    assert len(endpoint.asked) == 1


def test_the_request_is_as_the_rfc_has_it(account: Account) -> None:
    """A form with grant type and scope; id and secret form-encoded, then as basic credentials."""
    endpoint = Endpoint(lambda _: (200, {"access_token": "token-0001"}))
    ask(endpoint, account)
    (request,) = endpoint.asked
    headers = dict(request.headers)
    assert (request.method, request.body) == ("POST", b"grant_type=client_credentials&scope=postback")
    assert headers[b"Content-Type"] == b"application/x-www-form-urlencoded"
    assert (
        b64decode(headers[b"Authorization"].removeprefix(b"Basic ")) == b"holdfire+client:s3cret+value%2B%2F"
    )


def test_a_token_is_renewed_before_it_ends(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """Good until thirty seconds before its end, then the next asker gets a new one."""
    endpoint = Endpoint(lambda number: (200, {"access_token": f"token-{number:04}", "expires_in": 300}))
    now = 1000.0
    monkeypatch.setattr(tokens.time, "monotonic", lambda: now)

    async def run() -> list[str]:
        nonlocal now
        held, found = Tokens(endpoint), []
        for instant in (1000.0, 1269.0, 1271.0):
            now = instant
            found.append(await held.token(account, auth_of(account)))
        return found

    assert asyncio.run(run()) == ["token-0001", "token-0001", "token-0002"]


def test_a_refused_token_is_forgotten_once(account: Account) -> None:
    """Two attempts that saw the same token refused do not throw the renewed one away."""
    endpoint = Endpoint(lambda number: (200, {"access_token": f"token-{number:04}"}))

    async def run() -> str:
        held, auth = Tokens(endpoint), auth_of(account)
        old = await held.token(account, auth)
        held.forget(account, old)
        await held.token(account, auth)
        held.forget(account, old)
        return await held.token(account, auth)

    assert asyncio.run(run()) == "token-0002"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (0, b"", "refused"),
        (401, {}, "answered 401"),
        (302, {}, "answered 302"),
        (200, b"<html>", "without an access_token"),
        (200, {"token": "x"}, "without an access_token"),
        (200, [], "without an access_token"),
        (200, {"access_token": "token-0001", "expires_in": "soon"}, "without an access_token"),
        (200, {"access_token": "short"}, "cannot be sent or masked"),
        (200, {"access_token": "two\r\nX-Lines: 1"}, "cannot be sent or masked"),
    ],
)
def test_no_token_says_why_and_never_the_secret(status: int, body: Any, said: str, account: Account) -> None:
    """The error names the endpoint and what it did."""
    with pytest.raises(TokenError, match=said) as raised:
        ask(Endpoint(lambda _: (status, body)), account)
    assert "s3cret" not in str(raised.value)
