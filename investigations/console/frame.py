"""What every page of the console is made with: who asks, what they may, and how a page is drawn.

A page module in ``pages/`` has ``routes``, made by ``page`` and ``act`` of ``routing``; its handlers are plain functions
``(request) -> Response`` that run in a thread, with the session checked, the form read and its token proven before.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from infra.store import audit
from infra.store.console.accounts import Account, console_who
from infra.store.console.sessions import Session
from investigations.console import drawing
from investigations.console.masking import Masking
from investigations.console.sessions import csrf_token, inside, session_token
from investigations.console.settings import engine_of, long_engine_of, settings_of
from schemas.accounts import Role

__all__ = [
    "Account",
    "ForbiddenError",
    "Link",
    "NotFoundError",
    "csrf_of",
    "engine_of",
    "form_of",
    "here",
    "inside",
    "long_engine_of",
    "masking_of",
    "note_evidence",
    "redirect",
    "render",
    "require_operator",
    "session_of",
    "settings_of",
    "signed_in",
    "who_of",
]

SAID = "holdfire_said"
THEME = "holdfire_theme"
THEMES = ("auto", "light", "dark")


class Link(NamedTuple):
    """One entry of the console's menu; ``order`` places it."""

    order: int
    path: str
    label: str


class NotFoundError(LookupError):
    """There is no such thing: which, in words for a person."""


class ForbiddenError(PermissionError):
    """This account may not do that: what, in words for a person."""


def session_of(request: Request) -> Session:
    """The session of whoever asks; only for routes that need one, where it was checked before."""
    session: Session = request.state.session
    return session


def signed_in(request: Request) -> Account:
    """The account of whoever asks."""
    return session_of(request).account


def require_operator(request: Request) -> Account:
    """The operator who asks. Raises ForbiddenError for a viewer, which becomes a 403 page."""
    account = signed_in(request)
    if account.role is not Role.OPERATOR:
        raise ForbiddenError(
            f"{account.name} is a viewer; this takes an operator. `holdfire users role {account.name} operator` makes one."
        )
    return account


def address_of(request: Request) -> str:
    """Where the request comes from; behind a proxy that is believed, what it says."""
    return request.client.host if request.client else "unknown"


def who_of(request: Request) -> str:
    """Who acts, for the audit: ``console:alice@192.0.2.7``."""
    return console_who(signed_in(request).name, address_of(request))


def form_of(request: Request) -> FormData:
    """The fields of a POST, read and proven before the handler runs."""
    form: FormData = request.state.form
    return form


def csrf_of(request: Request) -> str:
    """What a form's hidden field ``csrf`` holds; ``{{ csrf_field() }}`` of macros.html writes it."""
    token = session_token(request)
    return "" if token is None else csrf_token(token)


def masking_of(request: Request) -> Masking:
    """How click ids are shown to whoever asks; to somebody who is not signed in, masked."""
    session = getattr(request.state, "session", None)
    if session is None:
        return Masking(on=True)
    return Masking(on=settings_of(request).policy.masks_click_ids(session.account.role))


def note_evidence(request: Request, subject: str) -> None:
    """Write down who looks at a raw exchange, where the policy asks for it (``audit_evidence``)."""
    if settings_of(request).policy.audit_evidence:
        audit.record(
            engine_of(request), who=who_of(request), action="evidence.view", detail={"subject": subject}
        )


def here(request: Request) -> str:
    """The path and query of this page, for a form to come back to."""
    return f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path


def render(request: Request, template: str, status: int = 200, **context: Any) -> HTMLResponse:
    """Draw a page. Templates see ``account``, ``csrf``, ``now`` and the filters of ``drawing``; everything is escaped."""
    session = getattr(request.state, "session", None)
    said = _said(request) if session is not None else []
    whole: Mapping[str, Any] = {
        "request": request,
        "account": session.account if session is not None else None,
        "csrf": csrf_of(request),
        "menu": request.app.state.menu,
        "path": request.url.path,
        "here": here(request) if request.method in {"GET", "HEAD"} else "/",
        "theme": theme_of(request),
        "masking": masking_of(request),
        "said": said,
        "now": datetime.now(UTC),
        **context,
    }
    response = HTMLResponse(drawing.environment().get_template(template).render(whole), status)
    if said:
        response.delete_cookie(SAID, httponly=True, secure=settings_of(request).secure, samesite="strict")
    return response


def redirect(request: Request, path: str, said: str | None = None, *, kind: str = "done") -> RedirectResponse:
    """Send the browser to a page of this console after a form, which says ``said`` once. ``kind``: done or failed."""
    response = RedirectResponse(inside(path), 303)
    token = session_token(request)
    if said is not None and token is not None:
        text = base64.urlsafe_b64encode(f"{kind}:{said[:1500]}".encode()).decode()
        response.set_cookie(
            SAID,
            f"{text}.{_seal(token, text)}",
            max_age=60,
            httponly=True,
            secure=settings_of(request).secure,
            samesite="strict",
        )
    return response


def theme_of(request: Request) -> str:
    theme = request.cookies.get(THEME, "auto")
    return theme if theme in THEMES else "auto"


def set_theme(request: Request, response: Response, theme: str) -> None:
    response.set_cookie(
        THEME,
        theme if theme in THEMES else "auto",
        max_age=365 * 86_400,
        httponly=True,
        secure=settings_of(request).secure,
        samesite="strict",
    )


def _said(request: Request) -> list[tuple[str, str]]:
    """What the page before had to say: kind and text. Only what we sealed for this session is believed."""
    text, _, seal = request.cookies.get(SAID, "").partition(".")
    token = session_token(request)
    if not text or token is None or not hmac.compare_digest(seal.encode(), _seal(token, text).encode()):
        return []
    kind, _, words = base64.urlsafe_b64decode(text).decode("utf-8", "replace").partition(":")
    return [(kind, words)]


def _seal(token: str, text: str) -> str:
    return csrf_token(token, f"said {text}")
