"""Acting from the pages: a replay from its dry run to its end, and what is in doubt settled."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import expect

from tests.browser.conftest import OPERATOR, Tab, Visitor
from tests.browser.stage import Stage


def test_a_replay_is_looked_at_before_it_is_begun(tab: Tab, stage: Stage) -> None:
    """Dry run with count and sample, a reason, the button; then the run's page follows it by itself."""
    postback = stage.postback("refused")
    page = tab.open(f"/conversions/{stage.cv['refused']}")
    page.get_by_role("link", name=f"Replay {postback}").click()
    expect(page.get_by_role("heading", name="What would happen")).to_be_visible()
    expect(page.get_by_text("Would fire 1 again")).to_be_visible()
    expect(page.get_by_role("row", name=postback)).to_contain_text("fire again")
    page.get_by_label("Why").fill("their endpoint was mended")
    page.get_by_role("button", name="Show what would happen").click()
    assert stage.ground.postback(stage.events["refused"]).state == "rejected"
    page.get_by_role("button", name="Fire 1 again now").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("replay")
    expect(page.get_by_role("heading", name="Firing")).to_be_visible()
    with stage.ground.firing() as gun:
        gun.fire()
    expect(page.get_by_role("heading", name="Done")).to_be_visible()
    page.get_by_role("link", name="Replays").click()
    expect(page.get_by_role("row", name="their endpoint was mended")).to_contain_text(f"console:{OPERATOR}")


def test_what_would_count_twice_is_refused_with_the_reason(tab: Tab, stage: Stage) -> None:
    page = tab.open(f"/replays/new?postback={stage.postback('unsure')}")
    expect(page.get_by_text("Nothing would fire.")).to_be_visible()
    expect(page.get_by_text("Would refuse 1")).to_be_visible()
    assert page.get_by_role("button", name="again now").count() == 0


def test_dead_letters_lead_to_a_replay_of_their_cause(tab: Tab, stage: Stage) -> None:
    page = tab.open("/dead")
    row = page.get_by_role("row", name="busy-it")
    row.get_by_role("link", name="Replay 1").click()
    expect(page.get_by_text("Would fire 1 again")).to_be_visible()


def test_what_is_in_doubt_is_settled_with_the_keyboard(
    visitor: Visitor, signed_in: dict[str, Any], stage: Stage
) -> None:
    tab = visitor(storage_state=signed_in)
    page = tab.open(f"/settle?postback={stage.postback('unsure')}")
    page.get_by_label("The network has it").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.type("ticket 4711: their support found it")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Settle 1 postback now")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("1 postback settled as delivered")
    expect(page.locator(".fates")).to_contain_text("delivered")
