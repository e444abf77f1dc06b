"""OAuth client credentials (RFC 6749 §4.4): one token an account, cached, renewed before it ends."""

from __future__ import annotations

import asyncio
import re
import time
from base64 import b64encode
from dataclasses import dataclass, replace
from urllib.parse import quote_plus, urlencode

import orjson

from infra.http.fetch import Exchanger, fetch
from schemas.auth import ClientCredentialsAuth
from schemas.exchange import FetchLimits, OutboundRequest
from schemas.redaction import SHORTEST_SECRET
from workers.rendering import Account

RENEW_BEFORE_END_S = 30.0
DEFAULT_LIFE_S = 300.0
_SENDABLE = re.compile(r"[!-~]+")
"""RFC 6750 §2.1 allows less still; anything else could end the header it is put in."""


class TokenError(RuntimeError):
    """The token endpoint gave no token. Carries no secret."""


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    ends_at: float


class Tokens:
    """Tokens by destination version and the key that names the credentials. Belongs to one event loop; concurrent askers share one request."""

    def __init__(self, transport: Exchanger) -> None:
        self._transport = transport
        self._tokens: dict[tuple[int, str], _Token] = {}
        self._locks: dict[tuple[int, str], asyncio.Lock] = {}

    async def token(
        self,
        account: Account,
        auth: ClientCredentialsAuth,
        place: str = "auth",
        limits: FetchLimits | None = None,
    ) -> str:
        """A token that is good for at least ``RENEW_BEFORE_END_S``. Raises ``TokenError``."""
        key = account.version.id, place
        async with self._locks.setdefault(key, asyncio.Lock()):
            known = self._tokens.get(key)
            if known is None or known.ends_at - RENEW_BEFORE_END_S < time.monotonic():
                limits = limits or account.version.contract.fetch_limits
                known = self._tokens[key] = await self._fetch(
                    auth, account.secrets[f"{place}.client_secret"], limits
                )
            return known.value

    def forget(self, account: Account, token: str, place: str = "auth") -> None:
        """The network refused ``token``: the next asker gets a new one."""
        key = account.version.id, place
        known = self._tokens.get(key)
        if known is not None and known.value == token:
            del self._tokens[key]

    async def _fetch(self, auth: ClientCredentialsAuth, client_secret: str, limits: FetchLimits) -> _Token:
        form = {"grant_type": "client_credentials"} | ({"scope": auth.scope} if auth.scope else {})
        request = OutboundRequest(
            "POST",
            auth.token_url,
            (
                (b"Accept", b"application/json"),
                (b"Content-Type", b"application/x-www-form-urlencoded"),
                (b"Authorization", _basic(auth.client_id, client_secret)),
            ),
            urlencode(form).encode(),
        )
        limits = replace(limits, follow_redirects=False, allowed_hosts=())
        answer = await fetch(self._transport, request, limits)
        last = answer.last
        if answer.failure is not None or last is None:
            raise TokenError(f"token endpoint {auth.token_url}: {answer.failure and answer.failure.message}")
        if last.status_code != 200:
            raise TokenError(f"token endpoint {auth.token_url} answered {last.status_code}")
        try:
            body = orjson.loads(last.body)
            value, life = str(body["access_token"]), float(body.get("expires_in", DEFAULT_LIFE_S))
        except (ValueError, KeyError, TypeError):
            raise TokenError(f"token endpoint {auth.token_url} answered without an access_token") from None
        if len(value) < SHORTEST_SECRET or not _SENDABLE.fullmatch(value):
            raise TokenError(
                f"token endpoint {auth.token_url} gave a token that cannot be sent or masked safely"
            )
        return _Token(value, time.monotonic() + max(life, RENEW_BEFORE_END_S * 2))


def _basic(client_id: str, client_secret: str) -> bytes:
    """RFC 6749 §2.3.1: both form-encoded, then RFC 7617 basic."""
    pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
    return b"Basic " + b64encode(pair.encode())
