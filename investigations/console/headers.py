"""The headers of every response, whatever made it, and the hosts that are answered at all."""

from __future__ import annotations

import re
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CSP = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",  # the live tail's stream
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # To other sites nothing is told. Not no-referrer: that has browsers send `Origin: null` with our own forms.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "x-robots-tag": "noindex, nofollow",
}
HSTS = "max-age=31536000"
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class Guarded:
    """Wraps the application: adds the headers, and answers only to its own host names."""

    def __init__(self, app: ASGIApp, *, hosts: tuple[str, ...], secure: bool) -> None:
        self._app = app
        self._hosts = hosts
        self._secure = secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
                if self._secure:
                    headers["strict-transport-security"] = HSTS
            await send(message)

        if self._hosts and not self._known(scope) and scope["path"] != "/healthz":
            refusal = PlainTextResponse(
                "This console does not answer to that host name; [console] hosts in holdfire.toml lists its own.\n",
                status_code=421,
            )
            await refusal(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    def _known(self, scope: Scope) -> bool:
        headers: list[tuple[Any, Any]] = scope["headers"]
        given = [value.decode("latin-1").lower() for name, value in headers if name == b"host"]
        if len(given) != 1:
            return False
        host = re.sub(r":[0-9]+$", "", given[0])
        return any(
            host == each or (each.startswith("*.") and host.endswith(each[1:]) and host != each[1:])
            for each in self._hosts
        )
