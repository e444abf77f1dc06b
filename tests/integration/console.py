"""A console for tests: the real application behind a real server and socket, in a thread of the test's own process."""

from __future__ import annotations

import re
from types import TracebackType
from typing import Any, Self

import httpx
from sqlalchemy import Engine

from infra.store.console import accounts
from investigations.console.app import create_console
from schemas.accounts import ConsolePolicy, Role
from tests.integration.served import Served

PASSWORD = "copper lantern drifts north"
VIEWER, OPERATOR = "vera", "otto"


class ConsoleThread:
    """``with ConsoleThread(engine) as console: console.signed_in(OPERATOR).get("/search")``.

    Has the accounts VIEWER and OPERATOR, both with PASSWORD. Further options go to ``ConsoleSettings``.
    """

    def __init__(self, engine: Engine, policy: ConsolePolicy | None = None, **settings: Any) -> None:
        self.engine = engine
        self.application = create_console(engine, policy=policy or ConsolePolicy(), **settings)
        self._served = Served(self.application, "console", graceful_s=5)
        self.url = self._served.url
        self._clients: list[Visitor] = []

    def __enter__(self) -> Self:
        known = {each.name for each in accounts.every(self.engine)}
        for name, role in ((VIEWER, Role.VIEWER), (OPERATOR, Role.OPERATOR)):
            if name not in known:
                accounts.add(self.engine, name, role, PASSWORD, who="test")
        self._served.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients:
            client.close()
        self._served.close()

    def visitor(self, **headers: str) -> Visitor:
        """A browser of its own that is not signed in."""
        client = Visitor(self.url, headers)
        self._clients.append(client)
        return client

    def signed_in(self, name: str = VIEWER, password: str = PASSWORD) -> Visitor:
        """A browser of its own, signed in."""
        client = self.visitor()
        answer = client.sign_in(name, password)
        assert answer.status_code == 303, answer.text
        return client


class Visitor(httpx.Client):
    """An httpx client that does with forms what a browser does: their hidden fields, and where they come from."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        super().__init__(
            base_url=url,
            timeout=30,
            trust_env=False,
            headers={"origin": url, "sec-fetch-site": "same-origin", **headers},
        )

    def sign_in(self, name: str, password: str = PASSWORD, **fields: str) -> httpx.Response:
        """Fill in the login form."""
        return self.submit("/login", "/login", name=name, password=password, **fields)

    def submit(self, page: str, action: str, /, **fields: Any) -> httpx.Response:
        """Open ``page`` and send the form with this ``action``, its hidden fields as they are but for ``fields``."""
        return self.post(action, data={**self.hidden(page, action), **fields})

    def hidden(self, page: str, action: str) -> dict[str, str]:
        """The hidden fields of a form."""
        text = self.get(page).text
        for form in re.findall(r"<form\b.*?</form>", text, re.DOTALL):
            if f'action="{action}"' in form:
                return dict(re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', form))
        raise AssertionError(f"{page} has no form for {action}")

    @property
    def csrf(self) -> str:
        """The token that this session's forms carry."""
        return self.hidden("/account", "/logout")["csrf"]
