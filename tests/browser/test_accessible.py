"""No page has a serious or critical barrier by axe-core's rules, in light and in dark, wide and narrow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import NARROW, WIDE, Visitor
from tests.browser.stage import Stage

Where = Callable[[Stage], str]

PAGES: dict[str, Where] = {
    "overview": lambda stage: "/",
    "search": lambda stage: "/search?q=state%3Adelivered",
    "inbox": lambda stage: "/inbox",
    "rejects": lambda stage: "/rejects",
    "audit": lambda stage: "/audit",
    "live": lambda stage: "/live",
    "account": lambda stage: "/account",
    "delivered": lambda stage: f"/conversions/{stage.cv['delivered']}",
    "held": lambda stage: f"/conversions/{stage.cv['held']}",
    "long": lambda stage: f"/conversions/{stage.cv['busy']}",
    "unrouted": lambda stage: f"/conversions/{stage.cv['nowhere']}",
    "attempt": lambda stage: f"/attempts/{stage.attempts('redirected')[0]}",
    "comparison": lambda stage: "/compare?a={}&b={}".format(*stage.attempts("delivered")[1:]),
    "replay": lambda stage: f"/replays/new?postback={stage.postback('busy')}",
    "settling": lambda stage: f"/settle?postback={stage.postback('unsure')}",
    "reports": lambda stage: "/reports",
    "a report": lambda stage: "/reports/rp_1",
    "findings": lambda stage: "/reports/rp_1/findings",
    "a new report": lambda stage: "/reports/new",
    "replays": lambda stage: "/replays",
    "dead letters": lambda stage: "/dead",
    "by hand": lambda stage: f"/by-hand/extend?postback={stage.postback('held')}",
}
SERIOUS = {"serious", "critical"}


def barriers(page: Any) -> list[str]:
    """What axe finds, as lines that say where."""
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']} ({each['impact']}): {node['html'][:160]} {node.get('failureSummary', '')[:200]}"
        for each in found
        if each["impact"] in SERIOUS
        for node in each["nodes"]
    ]


def test_no_page_scrolls_sideways_on_a_narrow_screen(
    visitor: Visitor, signed_in: dict[str, Any], stage: Stage
) -> None:
    """320 pixels: what is wider scrolls within itself."""
    tab = visitor(storage_state=signed_in, viewport=NARROW)
    wide = {}
    for name, where in PAGES.items():
        page = tab.open(where(stage))
        page.locator("main details").evaluate_all("all => all.forEach(each => { each.open = true })")
        if (width := page.evaluate("document.documentElement.scrollWidth")) > NARROW["width"]:
            wide[name] = width
    assert wide == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_barrier(
    visitor: Visitor, signed_in: dict[str, Any], stage: Stage, scheme: str
) -> None:
    """Everything unfolded: what is hidden is not looked at by the rules. Narrow is looked at in one of the colours."""
    tab = visitor(storage_state=signed_in, color_scheme=scheme)
    found = {}
    for name, where in PAGES.items():
        page = tab.open(where(stage))
        for size in (WIDE, NARROW) if scheme == "dark" else (WIDE,):
            page.set_viewport_size(size)
            page.locator("main details").evaluate_all("all => all.forEach(each => { each.open = true })")
            if lines := barriers(page):
                found[f"{name}, {size['width']} wide"] = lines
    assert found == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_way_in_has_no_barrier(visitor: Visitor, scheme: str) -> None:
    page = visitor(color_scheme=scheme).open("/login")
    assert barriers(page) == []


def test_the_rules_find_a_barrier_where_there_is_one(visitor: Visitor) -> None:
    """A field without a name: were it not found, the tests above would say nothing."""
    page = visitor().open("/login")
    page.locator("label").evaluate_all("all => all.forEach(each => each.remove())")
    assert any(line.startswith("label (critical)") for line in barriers(page))
