"""Who may: every route of the console is asked, none is forgotten."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import Engine, text
from starlette.routing import Route

from infra.store.console import accounts
from investigations.console import app as console_app
from investigations.console import pages
from investigations.console.app import collect
from investigations.console.routing import Access, ConsoleRoute
from investigations.console.sessions import inside
from schemas.accounts import ConsolePolicy, Role
from tests.integration.console import OPERATOR, PASSWORD, VIEWER, ConsoleThread, Visitor

ROUTES = [route for route in collect()[0] if isinstance(route, ConsoleRoute)]
READ = [route for route in ROUTES if not route.acts]
ACTS = [route for route in ROUTES if route.acts]
OWN = [route for route in ACTS if route.access is Access.VIEWER]
OPERATORS = [route for route in ROUTES if route.access is Access.OPERATOR]
PUBLIC = {"/healthz", "/static/{name}", "/login"}
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@pytest.fixture(scope="module")
def console(engine: Engine) -> Iterator[ConsoleThread]:
    with ConsoleThread(engine) as running:
        yield running


@pytest.fixture(autouse=True)
def _patient(engine: Engine) -> None:
    """What one test got wrong does not make the next one wait."""
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM login_failures"))


def _path(route: ConsoleRoute) -> str:
    """A path of the route. What its placeholders name need not exist: who may not is refused before that is known."""
    return re.sub(r"\{[^}]*\}", "1", route.path)


def _ids(route: object) -> str:
    assert isinstance(route, ConsoleRoute)
    return str(route.name)


def test_every_route_was_made_where_sessions_are_checked() -> None:
    """The application takes no other, and has some of each kind."""
    routes = collect()[0]
    assert all(isinstance(route, ConsoleRoute) for route in routes)
    assert len(READ) > 8
    assert len(ACTS) > 4


def test_a_route_of_another_make_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page module that brings a plain route does not get into the application."""

    class Careless:
        __name__ = "careless"
        routes = (Route("/open", lambda _: None),)

    monkeypatch.setattr(console_app.pages, "MODULES", (*pages.MODULES, Careless))
    with pytest.raises(TypeError, match="open to everyone"):
        collect()


def test_only_the_login_and_what_it_needs_is_public() -> None:
    assert {route.path for route in ROUTES if route.access is Access.PUBLIC} == PUBLIC


@pytest.mark.parametrize("route", [each for each in READ if each.path not in PUBLIC], ids=_ids)
def test_who_is_not_signed_in_is_sent_to_the_login(console: ConsoleThread, route: ConsoleRoute) -> None:
    answer = console.visitor().get(_path(route))
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login?next=%2F")
    assert answer.content == b""


@pytest.mark.parametrize("route", [each for each in ACTS if each.path not in PUBLIC], ids=_ids)
def test_who_is_not_signed_in_can_do_nothing(console: ConsoleThread, route: ConsoleRoute) -> None:
    answer = console.visitor().post(_path(route), data={"csrf": "0" * 64})
    assert answer.status_code == 403


@pytest.mark.parametrize("route", OPERATORS, ids=_ids)
def test_a_viewer_is_refused_what_an_operator_does(console: ConsoleThread, route: ConsoleRoute) -> None:
    viewer = console.signed_in(VIEWER)
    answer = viewer.request(
        "POST" if route.acts else "GET",
        _path(route),
        data={"csrf": viewer.csrf, "reason": "because"} if route.acts else None,
    )
    assert answer.status_code == 403
    assert "takes an operator" in answer.text


@pytest.mark.parametrize("route", ACTS, ids=_ids)
@pytest.mark.parametrize("token", ["", "0" * 64, "another session's", "the login's"])
def test_a_form_without_its_sessions_token_is_refused(
    console: ConsoleThread, route: ConsoleRoute, token: str
) -> None:
    operator = console.signed_in(OPERATOR)
    given = {
        "another session's": lambda: console.signed_in(OPERATOR).csrf,
        "the login's": lambda: console.visitor().hidden("/login", "/login")["csrf"],
    }.get(token, lambda: token)()
    answer = operator.post(_path(route), data={"csrf": given, "name": OPERATOR, "password": PASSWORD})
    assert answer.status_code == 403
    assert "not of your session" in answer.text


@pytest.mark.parametrize("route", ACTS, ids=_ids)
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://elsewhere.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "", "sec-fetch-site": ""},
    ],
    ids=["other origin", "no origin to tell", "cross-site", "same-site", "neither"],
)
def test_a_form_from_elsewhere_is_refused_even_with_its_token(
    console: ConsoleThread, route: ConsoleRoute, headers: dict[str, str]
) -> None:
    operator = console.signed_in(OPERATOR)
    token = operator.csrf
    for name in ("origin", "sec-fetch-site"):
        if headers.get(name) == "":
            del operator.headers[name]
    sent = {name: value for name, value in headers.items() if value}
    answer = operator.post(_path(route), data={"csrf": token}, headers=sent)
    assert answer.status_code == 403
    assert "did not come from a page of this console" in answer.text


def test_the_body_of_a_stranger_is_never_read(console: ConsoleThread) -> None:
    """Who may not is refused before a form of any size is taken in."""
    answer = console.visitor().post("/account/password", content=b"a" * 5_000_000)
    assert answer.status_code == 403


def test_a_form_that_is_too_large_is_refused(console: ConsoleThread) -> None:
    viewer = console.signed_in()
    answer = viewer.post("/account/theme", data={"csrf": viewer.csrf, "theme": "x" * 2_000_000})
    assert answer.status_code == 413


@pytest.mark.parametrize("name", [VIEWER, OPERATOR])
def test_every_page_carries_the_headers(console: ConsoleThread, name: str) -> None:
    client = console.signed_in(name)
    for path in ("/", "/account", "/audit", "/inbox", "/no-such-page", "/conversions/cv_999", "/rejects/1"):
        _check_headers(client.get(path))


def test_errors_files_and_refusals_carry_the_headers(console: ConsoleThread) -> None:
    visitor = console.visitor()
    answers = [visitor.get(path) for path in ("/", "/login", "/nothing", "/static/console.css", "/healthz")]
    answers += [visitor.post("/login", data={}), visitor.put("/login"), visitor.post("/audit")]
    assert {answer.status_code for answer in answers} == {200, 303, 403, 404, 405}
    for answer in answers:
        _check_headers(answer)


def _check_headers(answer: httpx.Response) -> None:
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "base-uri 'none'" in policy
    assert "form-action 'self'" in policy
    assert "unsafe" not in policy
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "camera=()" in answer.headers["permissions-policy"]
    assert answer.headers["cache-control"] == "no-store" or answer.url.path.startswith("/static/")
    assert "strict-transport-security" not in answer.headers


def test_behind_https_browsers_are_told_to_stay_there(engine: Engine) -> None:
    with ConsoleThread(engine, secure=True) as console:
        assert "max-age" in console.visitor().get("/login").headers["strict-transport-security"]


@pytest.mark.parametrize("path", ["/", "/account", "/audit", "/inbox", "/live", "/rejects", "/no-such-page"])
def test_no_page_has_a_script_or_a_style_of_its_own(console: ConsoleThread, path: str) -> None:
    """What the policy would refuse is not there either: nothing inline, and nothing from elsewhere."""
    page = console.signed_in(OPERATOR).get(path).text
    assert re.search(r"<script(?![^>]*\bsrc=)", page) is None
    assert re.search(r"<style|\bstyle=|\bon[a-z]+=|javascript:", page) is None
    assert re.search(r"(?:src|href)=\"(?:https?:)?//", page) is None


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://elsewhere.example/",
        "//elsewhere.example/",
        "/\\elsewhere.example",
        "\\\\elsewhere.example",
        "javascript:alert(1)",
        "/\n//elsewhere.example",
        "/\t/elsewhere.example",
        " https://elsewhere.example",
        "http:elsewhere.example",
    ],
)
def test_nobody_is_sent_elsewhere_after_signing_in(console: ConsoleThread, elsewhere: str) -> None:
    assert inside(elsewhere) == "/"
    answer = console.visitor().sign_in(OPERATOR, next=elsewhere)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_one_comes_back_to_the_page_that_asked(console: ConsoleThread) -> None:
    visitor = console.visitor()
    to_login = visitor.get("/audit?who=otto&since=2h").headers["location"]
    fields = visitor.hidden(to_login, "/login")
    answer = visitor.post("/login", data={**fields, "name": VIEWER, "password": PASSWORD})
    assert answer.headers["location"].replace("&amp;", "&") == "/audit?who=otto&since=2h"


def test_a_link_from_elsewhere_still_opens(console: ConsoleThread) -> None:
    """A strict cookie does not come along from another site; the page asks once more, from here."""
    bounced = console.visitor().get("/audit", headers={"sec-fetch-site": "cross-site"})
    assert bounced.status_code == 200
    assert '<meta http-equiv="refresh" content="0">' in bounced.text
    assert "Audit" not in bounced.text


def test_only_its_own_names_are_answered(engine: Engine) -> None:
    """A page elsewhere whose name was made to point here gets nothing."""
    with ConsoleThread(engine, hosts=("console.example.com", "*.inner.example")) as console:
        visitor = console.visitor()
        statuses = {
            name: visitor.get("/login", headers={"host": name}).status_code
            for name in (
                "console.example.com",
                "console.example.com:8443",
                "a.inner.example",
                "inner.example",
                "elsewhere.example",
                "console.example.com.elsewhere.example",
            )
        }
    assert list(statuses.values()) == [200, 200, 200, 421, 421, 421]


def test_without_an_account_the_login_says_how_to_make_one(engine: Engine) -> None:
    """There is no password that comes with it."""
    with ConsoleThread(engine) as console:
        assert "holdfire users add" not in console.visitor().get("/login").text
        with engine.begin() as connection:
            connection.execute(text("UPDATE accounts SET disabled_at = now()"))
        try:
            page = console.visitor().get("/login").text
        finally:
            with engine.begin() as connection:
                connection.execute(text("UPDATE accounts SET disabled_at = NULL"))
        assert "holdfire users add alice --role operator" in page
    assert accounts.any_there(engine)


def test_a_database_that_is_away_is_a_page(engine: Engine) -> None:
    """It says what to do, and shows nothing of the inside."""
    from infra.db.engine import open_engine

    with ConsoleThread(engine) as console:
        away = open_engine("postgresql+psycopg2://nobody:hunter22@127.0.0.1:1/none")
        settings = console.application.app.state.console
        console.application.app.state.console = type(settings)(away, ConsolePolicy())
        answer = console.visitor().get("/audit", headers={"cookie": "holdfire=abc"})
    assert answer.status_code == 503
    assert "does not answer" in answer.text
    assert "hunter22" not in answer.text
    _check_headers(answer)


def test_what_went_wrong_inside_stays_inside(console: ConsoleThread, monkeypatch: pytest.MonkeyPatch) -> None:
    from infra.store import audit

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the secret is hunter22")

    monkeypatch.setattr(audit, "find", fail)
    answer = console.signed_in(OPERATOR).get("/audit")
    assert answer.status_code == 500
    assert "hunter22" not in answer.text
    assert "under the number" in answer.text
    _check_headers(answer)


def test_a_role_is_known_to_the_database_too(engine: Engine) -> None:
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'accounts_role_check'")
        ).scalar_one()
    assert set(re.findall(r"'(\w+)'", found)) == set(Role)


def test_a_visitor_gets_no_menu(console: ConsoleThread) -> None:
    visitor: Visitor = console.visitor()
    assert "<nav" not in visitor.get("/login").text
    assert "<nav" not in visitor.get("/no-such-page").text
