"""A browser before a console of its own process, which reads a database in which everything has happened.

``visitor`` opens a tab. Whatever a page says in the browser's own log (a script that failed, a source that the policy
forbids), every dialog and every request to elsewhere fails the test that opened it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from sqlalchemy import create_engine, make_url, text

from infra.db.engine import open_engine
from infra.embedded.use import Engines
from infra.store.console import accounts
from schemas.accounts import Role
from tests.browser.stage import SECRET, SECRET_VARIABLE, Stage, staged

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = (
    "--no-sandbox",  # tests may run as root, in a container
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
OPERATOR, VIEWER, PASSWORD = "otto", "vera", "copper lantern drifts north"
STARTS_WITHIN_S = 30.0
WIDE = {"width": 1280, "height": 900}
NARROW = {"width": 320, "height": 640}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of one module: while Playwright is there its event loop runs in this thread, and tests elsewhere run loops of their own."""
    if CHROMIUM is None:
        pytest.skip(
            "there is no Chromium here; install the distribution's package `chromium` to run these tests"
        )
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def stage(engines: Engines, migrated_template: str) -> Iterator[Stage]:
    """One database for all of these tests: they read it, or act on what is theirs alone."""
    name = "holdfire_browser"
    url = make_url(engines.database_url).set(database=name).render_as_string(hide_password=False)
    _statement(engines, f"CREATE DATABASE {name} TEMPLATE {migrated_template}")
    engine = open_engine(url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SECRET_VARIABLE, SECRET)
        with staged(engine) as made:
            for account, role in ((OPERATOR, Role.OPERATOR), (VIEWER, Role.VIEWER)):
                accounts.add(engine, account, role, PASSWORD, who="test")
            made.database_url = url
            yield made
    engine.dispose()
    _statement(engines, f"DROP DATABASE {name} WITH (FORCE)")


def _statement(engines: Engines, statement: str) -> None:
    engine = create_engine(engines.database_url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(text(statement))
    finally:
        engine.dispose()


@pytest.fixture(scope="session")
def console(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of ``holdfire serve console``, a process of its own."""
    folder: Path = tmp_path_factory.mktemp("console")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    own = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFIRE_")}
    own |= {
        "HOLDFIRE_DATABASE_URL": stage.database_url,
        "HOLDFIRE_BROKER_URL": "redis://127.0.0.1:9/0",
        "HOLDFIRE_DATA_DIR": str(folder / "data"),
        "HOLDFIRE_CONFIG": str(folder / "holdfire.toml"),
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "holdfire", "serve", "console", "--port", str(port)],
            env=own,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(url, process, folder / "log")
        yield url
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while True:
        assert process.poll() is None, log.read_text("utf-8", "replace")
        try:
            if httpx.get(f"{url}/healthz", trust_env=False, timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            assert time.monotonic() < deadline, log.read_text("utf-8", "replace")
            time.sleep(0.05)


@dataclass
class Tab:
    """A page in the browser, and what it said that no page should."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str) -> Page:
        answer = self.page.goto(f"{self.url}{path}")
        assert answer is not None
        assert answer.ok, f"{path}: {answer.status}"
        return self.page

    def sign_in(self, name: str = OPERATOR) -> Page:
        self.open("/login")
        self.page.get_by_label("Name").fill(name)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(f"{self.url}/")
        return self.page


Visitor = Callable[..., Tab]


@pytest.fixture
def visitor(browser: Browser, console: str) -> Iterator[Visitor]:
    """Opens tabs, each in a browser profile of its own; options are Playwright's of a context."""
    tabs: list[Tab] = []

    def open_tab(**options: Any) -> Tab:
        page = browser.new_context(**({"viewport": WIDE} | options)).new_page()
        page.set_default_timeout(10_000)
        tab = Tab(page, console)
        page.on(
            "console", lambda said: _note(tab, f"{said.type}: {said.text}", said.type in {"error", "warning"})
        )
        page.on("pageerror", lambda error: _note(tab, f"a script failed: {error}"))
        page.on("dialog", lambda dialog: (_note(tab, f"a dialog: {dialog.message}"), dialog.dismiss()))
        page.on(
            "request",
            lambda asked: _note(tab, f"asked {asked.url}", not asked.url.startswith((console, "data:"))),
        )
        tabs.append(tab)
        return tab

    yield open_tab
    complaints = [each for tab in tabs for each in tab.complaints]
    for tab in tabs:
        tab.page.context.close()
    assert complaints == []


def _note(tab: Tab, words: str, wrong: bool = True) -> None:
    if wrong:
        tab.complaints.append(words)


@pytest.fixture(scope="module")
def signed_in(browser: Browser, console: str) -> dict[str, Any]:
    """The state of a browser in which the operator has signed in, for tests that are about something else."""
    context = browser.new_context()
    tab = Tab(context.new_page(), console)
    tab.sign_in()
    state: dict[str, Any] = context.storage_state()  # type: ignore[assignment]  # a TypedDict
    context.close()
    return state


@pytest.fixture
def tab(visitor: Visitor, signed_in: dict[str, Any]) -> Tab:
    """A wide tab of the operator."""
    return visitor(storage_state=signed_in)


FOCUSED = """() => {
    const at = document.activeElement;
    if (!at || !at.matches('a, button, input, select, textarea, summary')) return '';
    const label = at.labels && at.labels[0];
    return [at.innerText, at.getAttribute('aria-label'), label && label.innerText].filter(Boolean).join(' ');
}"""


def tab_to(page: Page, words: str, limit: int = 120) -> None:
    """Press Tab until what has the focus says these words, as one does without a mouse."""
    for _ in range(limit):
        if words in page.evaluate(FOCUSED):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab never came to {words!r}")
