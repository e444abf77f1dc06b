"""Signing in and out."""

from __future__ import annotations

import math

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from infra.store import audit
from infra.store.console import accounts
from infra.store.console import sessions as store
from infra.store.console.accounts import Refused
from investigations.console.frame import (
    address_of,
    engine_of,
    form_of,
    inside,
    render,
    session_of,
    settings_of,
    who_of,
)
from investigations.console.routing import Access, act, page
from investigations.console.sessions import (
    VISITOR,
    csrf_token,
    drop_session,
    new_visitor,
    session_token,
    set_session,
)


def _form(request: Request) -> Response:
    token = session_token(request)
    idle = settings_of(request).policy.session_idle
    to = inside(request.query_params.get("next"))
    if token is not None and store.of_token(engine_of(request), token, idle=idle) is not None:
        return RedirectResponse(to, 303)
    return _show(request, to)


def _show(
    request: Request, to: str, *, status: int = 200, wrong: str | None = None, name: str = ""
) -> Response:
    visitor = request.cookies.get(VISITOR) or new_visitor()
    response = render(
        request,
        "login.html",
        status,
        login_csrf=csrf_token(visitor, "login"),
        next=to,
        wrong=wrong,
        name=name,
        anybody=accounts.any_there(engine_of(request)),
    )
    response.set_cookie(
        VISITOR,
        visitor,
        path="/login",
        max_age=3600,
        httponly=True,
        secure=settings_of(request).secure,
        samesite="strict",
    )
    return response


def _sign_in(request: Request) -> Response:
    form = form_of(request)
    to = inside(form.get("next"))
    name, password = str(form.get("name", "")).strip()[:64], str(form.get("password", ""))[:2048]
    found = accounts.log_in(engine_of(request), name, password, address=address_of(request))
    if isinstance(found, Refused):
        seconds = math.ceil(found.wait.total_seconds())
        wait = f" The next try is looked at in {seconds} s." if seconds else ""
        status = 429 if seconds else 401
        response = _show(
            request, to, status=status, wrong=f"Name and password do not match an account.{wait}", name=name
        )
        if seconds:
            response.headers["retry-after"] = str(seconds)
        return response
    policy = settings_of(request).policy
    old = session_token(request)
    if old is not None:
        _end(request, old)
    token = store.begin(
        engine_of(request),
        found,
        absolute=policy.session_absolute,
        address=address_of(request),
        agent=request.headers.get("user-agent", ""),
    )
    response = RedirectResponse(to, 303)
    set_session(request, response, token)
    return response


def _end(request: Request, token: str) -> None:
    """A session that the browser still had from before goes with the login that replaces it."""
    before = store.of_token(engine_of(request), token, idle=settings_of(request).policy.session_idle)
    if before is not None:
        store.end(engine_of(request), before.id, before.account.id)


def _sign_out(request: Request) -> Response:
    session = session_of(request)
    store.end(engine_of(request), session.id, session.account.id)
    audit.record(engine_of(request), who=who_of(request), action="logout", detail={})
    response = RedirectResponse("/login", 303)
    drop_session(request, response)
    response.headers["clear-site-data"] = '"cache"'
    return response


routes = [
    page("/login", _form, access=Access.PUBLIC),
    act("/login", _sign_in, access=Access.PUBLIC),
    act("/logout", _sign_out, access=Access.VIEWER),
]
