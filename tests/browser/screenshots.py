"""Pictures of the console's pages, to be looked at: ``python -m tests.browser.screenshots FOLDER``.

Every page, light and dark, wide and narrow. With ``--readme`` only the one in the README is made anew:
``python -m tests.browser.screenshots --readme docs/images/console.png``.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from playwright.sync_api import Browser, Page, sync_playwright

from infra.db.engine import open_engine
from infra.db.migrate import migrate
from infra.embedded.use import use_engines
from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.browser.stage import SECRET, SECRET_VARIABLE, Stage, staged
from tests.integration.console import OPERATOR, PASSWORD, ConsoleThread

README_SIZE = {"width": 1280, "height": 1222}


def pages(stage: Stage) -> dict[str, str]:
    attempts = stage.attempts("delivered")
    return {
        "overview": "/",
        "search": "/search?q=source%3Ashop",
        "conversion": f"/conversions/{stage.cv['delivered']}",
        "redirected": f"/conversions/{stage.cv['redirected']}",
        "held": f"/conversions/{stage.cv['held']}",
        "long": f"/conversions/{stage.cv['busy']}",
        "doubt": f"/conversions/{stage.cv['unsure']}",
        "attempt": f"/attempts/{attempts[0]}",
        "compare": f"/compare?a={attempts[1]}&b={attempts[2]}",
        "extend": f"/by-hand/extend?postback={stage.postback('held')}",
        "replay": f"/replays/new?postback={stage.postback('refused')}",
        "settle": f"/settle?postback={stage.postback('unsure')}",
        "dead": "/dead",
        "reports": "/reports",
        "report": "/reports/rp_1",
        "findings": "/reports/rp_1/findings",
        "upload": "/reports/new",
    }


@contextmanager
def opened(browser: Browser, console: ConsoleThread, scheme: str, size: dict[str, int]) -> Iterator[Page]:
    """A tab of the operator's."""
    context = browser.new_context(color_scheme=scheme, viewport=size, device_scale_factor=1)  # type: ignore[arg-type]  # names of ours
    page = context.new_page()
    page.goto(f"{console.url}/login")
    page.get_by_label("Name").fill(OPERATOR)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    yield page
    context.close()


def take_all(browser: Browser, console: ConsoleThread, stage: Stage, folder: Path, only: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for scheme, size in (
        ("light", {"width": 1280, "height": 900}),
        ("dark", {"width": 1280, "height": 900}),
        ("dark", {"width": 360, "height": 720}),
    ):
        with opened(browser, console, scheme, size) as page:
            for name, path in pages(stage).items():
                if only and name not in only:
                    continue
                page.goto(f"{console.url}{path}")
                _unfold_first(page)
                page.screenshot(path=folder / f"{name}-{scheme}-{size['width']}.png", full_page=True)


def _unfold_first(page: Page) -> None:
    page.locator(".attempts details").first.evaluate_all(
        "all => all.slice(0, 1).forEach(each => { each.open = true })"
    )


def take_readme(browser: Browser, console: ConsoleThread, stage: Stage, target: Path) -> None:
    """The page of a conversion that was refunded in part, retried, and delivered; in the size it is shown at."""
    with opened(browser, console, "light", README_SIZE) as page:
        page.goto(f"{console.url}/conversions/{stage.cv['delivered']}")
        target.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=target)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", type=Path, help="a folder; with --readme a file")
    parser.add_argument("only", nargs="*", help="names of pages; all if none is given")
    parser.add_argument("--readme", action="store_true")
    given = parser.parse_args()
    os.environ[SECRET_VARIABLE] = SECRET
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder, use_engines(Path(folder) / "engines") as engines:
        engine = open_engine(engines.database_url)
        migrate(engine)
        with (
            staged(engine) as stage,
            ConsoleThread(engine, data_dir=Path(folder)) as console,
            sync_playwright() as playwright,
        ):
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
            if given.readme:
                take_readme(browser, console, stage, given.target)
            else:
                take_all(browser, console, stage, given.target, given.only)
            browser.close()
        engine.dispose()


if __name__ == "__main__":
    main()
