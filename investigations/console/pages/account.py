"""One's own account: the password, the sessions, and light or dark."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from infra.store import audit
from infra.store.console import accounts
from infra.store.console import sessions as store
from investigations.console.errors import BadRequestError
from investigations.console.frame import (
    NotFoundError,
    address_of,
    engine_of,
    form_of,
    redirect,
    render,
    session_of,
    set_theme,
    settings_of,
    signed_in,
    who_of,
)
from investigations.console.routing import Access, act, page
from schemas.accounts import SHORTEST_PASSWORD


def _show(request: Request, *, status: int = 200, wrong: str | None = None) -> Response:
    policy = settings_of(request).policy
    return render(
        request,
        "account.html",
        status,
        session=session_of(request),
        sessions=store.of_account(engine_of(request), signed_in(request).id, idle=policy.session_idle),
        policy=policy,
        shortest=SHORTEST_PASSWORD,
        wrong=wrong,
    )


def _page(request: Request) -> Response:
    return _show(request)


def _password(request: Request) -> Response:
    form, account, engine = form_of(request), signed_in(request), engine_of(request)
    given, new, again = (str(form.get(name, "")) for name in ("password", "new", "again"))
    if new != again:
        return _show(request, status=400, wrong="The new password was not typed the same twice.")
    if not accounts.confirm(engine, account, given[:2048], address=address_of(request)):
        return _show(
            request, status=403, wrong="The present password is wrong, or too many were tried just now."
        )
    try:
        ended = accounts.set_password(
            engine, account.name, new, who=who_of(request), keep_session=session_of(request).id
        )
    except accounts.AccountError as error:
        return _show(request, status=400, wrong=f"{str(error)[:1].upper()}{str(error)[1:]}.")
    others = f" {ended} other session{'s' * (ended != 1)} ended." if ended else ""
    return redirect(request, "/account", f"The password was changed.{others}")


def _end_session(request: Request) -> Response:
    try:
        number = int(str(form_of(request).get("session", "")))
    except ValueError:
        raise BadRequestError("There is no such session.") from None
    if not store.end(engine_of(request), number, signed_in(request).id):
        raise NotFoundError("There is no such session of yours; it may have ended by itself.")
    audit.record(engine_of(request), who=who_of(request), action="session.end", detail={"session": number})
    return redirect(request, "/account", "The session was ended.")


def _end_others(request: Request) -> Response:
    ended = store.end_others(engine_of(request), signed_in(request).id, but=session_of(request).id)
    audit.record(
        engine_of(request), who=who_of(request), action="session.end_others", detail={"ended": ended}
    )
    return redirect(request, "/account", f"{ended} other session{'s' * (ended != 1)} ended.")


def _theme(request: Request) -> Response:
    form = form_of(request)
    response = redirect(request, str(form.get("next", "/account")))
    set_theme(request, response, str(form.get("theme", "auto")))
    return response


routes = [
    page("/account", _page),
    act("/account/password", _password, access=Access.VIEWER),
    act("/account/sessions/end", _end_session, access=Access.VIEWER),
    act("/account/sessions/end-others", _end_others, access=Access.VIEWER),
    act("/account/theme", _theme, access=Access.VIEWER),
]
