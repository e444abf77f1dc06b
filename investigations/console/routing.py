"""The one way a page gets a route: nobody reaches a handler without the session, the role and the token it asks for."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, cast

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from infra.store.console import sessions as store
from investigations.console import errors
from investigations.console.frame import ForbiddenError, here, require_operator
from investigations.console.sessions import CSRF_FIELD, VISITOR, is_from_here, is_token, session_token
from investigations.console.settings import engine_of, settings_of
from schemas.accounts import Role

Handler = Callable[[Request], Response] | Callable[[Request], Awaitable[Response]]
LARGEST_FORM = 1_000_000
"""Bytes; an upload says its own limit."""
MOST_FIELDS = 2_000


class Access(Enum):
    PUBLIC = "public"
    """Anybody: the login itself, and whether the process lives."""
    VIEWER = "viewer"
    OPERATOR = "operator"


class ConsoleRoute(Route):
    """A route that was made here. The application takes no other."""

    access: Access
    acts: bool


def page(path: str, handler: Handler, *, access: Access = Access.VIEWER) -> ConsoleRoute:
    """A page to read (GET). A sync handler runs in a thread; an async one must not block."""
    return _route(path, handler, "GET", access, LARGEST_FORM)


def act(
    path: str, handler: Handler, *, access: Access = Access.OPERATOR, largest: int = LARGEST_FORM
) -> ConsoleRoute:
    """A form that does something (POST); an operator's unless said otherwise. ``largest``: bytes of its body."""
    return _route(path, handler, "POST", access, largest)


def _route(path: str, handler: Handler, method: str, access: Access, largest: int) -> ConsoleRoute:
    async def endpoint(request: Request) -> Response:
        return await errors.caught(request, lambda: _answer(request, handler, access, largest))

    route = ConsoleRoute(path, endpoint, methods=[method], name=f"{method} {path}")
    route.access = access
    route.acts = method == "POST"
    return route


async def _answer(request: Request, handler: Handler, access: Access, largest: int) -> Response:
    """Session, role, origin, form, token, in this order: a stranger's body is never read."""
    token = session_token(request)
    request.state.session = None
    if access is not Access.PUBLIC:
        idle = settings_of(request).policy.session_idle
        if token is not None:
            request.state.session = await run_in_threadpool(
                store.of_token, engine_of(request), token, idle=idle
            )
        if request.state.session is None:
            return _to_login(request)
    if access is Access.OPERATOR:
        require_operator(request)
    if request.method == "POST":
        if not is_from_here(request):
            raise ForbiddenError(
                "This did not come from a page of this console. Open the page, and do it there."
            )
        request.state.form = await _form(request, largest)
        secret, purpose = (
            (token, "forms") if request.state.session else (request.cookies.get(VISITOR), "login")
        )
        if not is_token(request.state.form.get(CSRF_FIELD), secret, purpose):
            await request.state.form.close()
            raise ForbiddenError(
                "This form is not of your session, or too old. Go back, reload, and do it again."
            )
    try:
        if inspect.iscoroutinefunction(handler):
            return cast("Response", await handler(request))
        return cast("Response", await run_in_threadpool(cast("Callable[[Request], Any]", handler), request))
    finally:
        if request.method == "POST":
            await request.state.form.close()


def _to_login(request: Request) -> Response:
    if request.method != "GET":
        raise ForbiddenError("Your session has ended. Sign in again, and do it once more.")
    if request.headers.get("sec-fetch-site") == "cross-site":
        # A strict cookie is not sent along a link from elsewhere. Asked again from here, it is.
        return errors.bounce(request)
    return RedirectResponse(f"/login?{errors.next_query(here(request))}", 303)


async def _form(request: Request, largest: int) -> FormData:
    """The form, read up to ``largest`` bytes. Raises TooLargeError beyond, and BadRequestError for what is no form."""
    receive, taken = request.receive, 0
    stated = request.headers.get("content-length", "0")
    if stated.isdigit() and int(stated) > largest:
        raise errors.TooLargeError(largest)

    async def counted() -> Any:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > largest:
            raise errors.TooLargeError(largest)
        return message

    request._receive = counted
    try:
        return await request.form(max_files=4, max_fields=MOST_FIELDS, max_part_size=LARGEST_FORM)
    except MultiPartException as error:
        raise errors.BadRequestError(f"The form cannot be read: {error.message}") from None


def role_of(access: Access) -> Role | None:
    """The role that a route takes; None for a public one."""
    return None if access is Access.PUBLIC else Role(access.value)
