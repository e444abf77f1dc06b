"""Who asks: the session cookie, the tokens of forms, and where a request came from."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from investigations.console.settings import settings_of

VISITOR = "holdfire_visitor"
"""Of a browser that is not signed in: what its login form is bound to."""
CSRF_FIELD = "csrf"


def session_token(request: Request) -> str | None:
    return request.cookies.get(settings_of(request).cookie) or None


def set_session(request: Request, response: Response, token: str) -> None:
    """Give the browser its session, and take the visitor's cookie away: nothing from before a login goes on."""
    settings = settings_of(request)
    response.set_cookie(
        settings.cookie, token, path="/", httponly=True, secure=settings.secure, samesite="strict"
    )
    response.delete_cookie(VISITOR, path="/login", httponly=True, secure=settings.secure, samesite="strict")


def drop_session(request: Request, response: Response) -> None:
    settings = settings_of(request)
    response.delete_cookie(
        settings.cookie, path="/", httponly=True, secure=settings.secure, samesite="strict"
    )


def csrf_token(secret: str, purpose: str = "forms") -> str:
    """The token that forms of this session carry: made from the session's own, so nothing has to be kept."""
    return hmac.new(secret.encode(), f"holdfire {purpose}".encode(), hashlib.sha256).hexdigest()


def is_token(given: object, secret: str | None, purpose: str = "forms") -> bool:
    return (
        isinstance(given, str)
        and secret is not None
        and hmac.compare_digest(given.encode("utf-8", "replace"), csrf_token(secret, purpose).encode())
    )


def new_visitor() -> str:
    return secrets.token_urlsafe(32)


def is_from_here(request: Request) -> bool:
    """Whether a request that changes something comes from one of our own pages, as far as the browser says.

    Every browser sends ``Origin`` with a form; one that sends neither header is not a browser, and has no business here.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None and site != "same-origin":
        return False
    if origin is None:
        return site is not None
    parts = urlsplit(origin)
    schemes = {"https"} if settings_of(request).secure else {"http", "https"}
    return parts.scheme in schemes and parts.netloc.lower() == request.headers.get("host", "").lower()


def inside(path: object, otherwise: str = "/") -> str:
    """``path`` if it is one of this console, else ``otherwise``: nobody is sent elsewhere after a login."""
    if not isinstance(path, str) or not path.startswith("/") or len(path) > 4096:
        return otherwise
    if path.startswith(("//", "/\\")) or not path.isprintable() or "\\" in path:
        return otherwise
    try:
        parts = urlsplit(path)
    except ValueError:
        return otherwise
    return path if not parts.scheme and not parts.netloc else otherwise
