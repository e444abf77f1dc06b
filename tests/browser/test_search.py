"""From what somebody holds in hand to the proof: the one box, as people use it."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.conftest import Tab
from tests.browser.stage import TOKEN, Stage


def test_an_order_leads_to_its_conversion(tab: Tab, stage: Stage) -> None:
    """With the keyboard: the box is reached by a slash from anywhere."""
    page = tab.open("/")
    page.keyboard.press("/")
    page.keyboard.type("10041")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{tab.url}/conversions/{stage.cv['delivered']}")
    expect(page.get_by_role("heading", level=1)).to_contain_text(stage.cv["delivered"])


def test_a_click_id_leads_to_its_conversion(tab: Tab, stage: Stage) -> None:
    page = tab.open("/")
    page.get_by_role("searchbox").fill(f"{TOKEN}10042")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{tab.url}/conversions/{stage.cv['redirected']}")


def test_terms_narrow_and_their_address_can_be_shared(tab: Tab) -> None:
    page = tab.open("/")
    page.get_by_role("searchbox").fill("state:in_doubt,rejected source:shop")
    page.keyboard.press("Enter")
    expect(page.locator("main tbody tr").first).to_be_visible()
    shared, listed = page.url, page.locator("main tbody tr").count()
    assert "state%3A" in shared
    assert 1 <= listed <= 2  # what is in doubt may have been settled by another test
    tab.page.goto(shared)
    expect(page.locator("main tbody tr")).to_have_count(listed)


def test_what_cannot_be_read_says_what_would_have_been_right(tab: Tab) -> None:
    page = tab.page
    tab.open("/")
    page.get_by_role("searchbox").fill("state:nonsense")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("nonsense")
    tab.complaints.clear()  # the browser notes the 400 of the answer
