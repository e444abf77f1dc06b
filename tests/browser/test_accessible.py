"""No page has a serious or critical barrier by axe-core's rules, in light and in dark, wide and narrow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import NARROW, Visitor
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
UNFOLD = "all => all.filter(e => !e.closest('.attempts > li ~ li')).forEach(e => { e.open = true })"
RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "resultTypes": ["violations"],
}


def barriers(page: Any) -> list[str]:
    """What axe finds, as lines that say where."""
    found = Axe().run(page, options=RULES).response["violations"]
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


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_barrier(visitor: Visitor, signed_in: dict[str, Any], stage: Stage, name: str) -> None:
    """Wide and light, narrow and dark; unfolded, since what is hidden is not looked at; of attempts made alike, one.

    Without motion: a colour that is on its way from one scheme to the other is none of either.
    """
    tab = visitor(storage_state=signed_in, color_scheme="light", reduced_motion="reduce")
    page = tab.open(PAGES[name](stage))
    page.locator("main details").evaluate_all(UNFOLD)
    assert barriers(page) == []
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size(NARROW)
    assert barriers(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_way_in_has_no_barrier(visitor: Visitor, scheme: str) -> None:
    page = visitor(color_scheme=scheme).open("/login")
    assert barriers(page) == []


def test_the_rules_find_a_barrier_where_there_is_one(visitor: Visitor) -> None:
    """A field without a name: were it not found, the tests above would say nothing."""
    page = visitor().open("/login")
    page.locator("label").evaluate_all("all => all.forEach(each => each.remove())")
    assert any(line.startswith("label (critical)") for line in barriers(page))
