"""What goes wrong, said on a page: what it was, and what to do. Nothing of the inside is shown."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from urllib.parse import urlencode

import structlog
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from infra.filters import AskingError
from investigations.console import frame

log = structlog.get_logger()

_CANCELLED = "57014"
_NO_TABLE = ("42P01", "42703")


class BadRequestError(ValueError):
    """What was asked cannot be read: why, in words for a person."""


class TooLargeError(ValueError):
    """A body beyond what its form takes."""

    def __init__(self, largest: int) -> None:
        super().__init__(f"That is too large: at most {largest:,} bytes are taken here.")


_SAID: dict[type[Exception], tuple[int, str]] = {
    frame.NotFoundError: (404, "Not here"),
    frame.ForbiddenError: (403, "Not for you"),
    BadRequestError: (400, "That cannot be read"),
    AskingError: (400, "That cannot be read"),
    TooLargeError: (413, "Too large"),
}
"""Errors whose text is for the person who caused them."""


async def caught(request: Request, answer: Callable[[], Awaitable[Response]]) -> Response:
    """The answer, or the page that says what went wrong."""
    try:
        return await answer()
    except ClientDisconnect:
        raise
    except Exception as error:
        return page_of(request, error)


def page_of(request: Request, error: Exception) -> Response:
    """The page for an error. Only one that nobody foresaw is logged with its traceback, under a number the page shows."""
    if isinstance(error, HTTPException):
        return _http(request, error)
    if isinstance(error, DBAPIError | PoolTimeoutError) and _is_away(error):
        return _unavailable(request, error)
    for kind, (status, title) in _SAID.items():
        if isinstance(error, kind):
            return show(request, status, title, str(error))
    number = secrets.token_hex(4)
    log.error("console.failed", number=number, path=request.url.path, exc_info=error)
    return show(
        request,
        500,
        "That went wrong",
        f"The console failed at this page. Its log says why, under the number {number}.",
    )


def not_found(request: Request, error: Exception) -> Response:
    """For the framework: a path without a route, or a method that its route does not take."""
    assert isinstance(error, HTTPException)
    return _http(request, error)


def _http(request: Request, error: HTTPException) -> Response:
    if error.status_code == 404:
        return show(request, 404, "Not here", "There is no page at this address.")
    phrase = HTTPStatus(error.status_code).phrase
    response = show(request, error.status_code, phrase, f"{phrase}.")
    response.headers.update(error.headers or {})
    return response


def _is_away(error: DBAPIError | PoolTimeoutError) -> bool:
    if isinstance(error, ProgrammingError):
        return getattr(error.orig, "pgcode", None) in _NO_TABLE
    return isinstance(error, OperationalError | InterfaceError | PoolTimeoutError)


def _unavailable(request: Request, error: DBAPIError | PoolTimeoutError) -> Response:
    code = getattr(getattr(error, "orig", None), "pgcode", None)
    log.warning("console.unavailable", path=request.url.path, pgcode=code, kind=type(error).__name__)
    if code == _CANCELLED:
        words = "This took longer than a page may. Narrow what you look for: a shorter time, one destination."
    elif code in _NO_TABLE:
        words = "The database does not have the tables of this version. Run `holdfire migrate`."
    else:
        words = "The database does not answer. `holdfire doctor` says more; this page is worth another try in a moment."
    response = show(request, 503, "Not right now", words)
    response.headers["retry-after"] = "5"
    return response


def show(request: Request, status: int, title: str, words: str) -> Response:
    """A page that says one thing. It needs no database."""
    if not hasattr(request.state, "session"):
        request.state.session = None
    return frame.render(request, "error.html", status, title=title, words=words, code=status)


def bounce(request: Request) -> Response:
    """A page that asks for itself again, from here."""
    return frame.render(request, "bounce.html")


def next_query(path: str) -> str:
    """``next=…`` for the login, which comes back to ``path``."""
    return urlencode({"next": path})
