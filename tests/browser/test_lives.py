"""Reading a conversion, its attempts and two of them compared, as an investigator does: with a mouse, with keys, on a phone."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OPERATOR, PASSWORD, Tab, Visitor, tab_to
from tests.browser.stage import LONG_LIFE, SECRET, TOKEN, Stage
from tests.integration.hostile import MARK, steers


def test_somebody_without_an_account_is_asked_to_sign_in(visitor: Visitor, stage: Stage) -> None:
    """The page that was wanted opens once the password is right, and not before."""
    tab = visitor()
    wanted = f"/conversions/{stage.cv['delivered']}"
    page = tab.open(wanted)
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.get_by_label("Name").fill(OPERATOR)
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("do not match")
    tab.complaints.clear()  # the browser notes the 401 of the answer
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{tab.url}{wanted}")


def test_a_conversion_tells_its_life_from_the_click_to_what_happens_next(tab: Tab, stage: Stage) -> None:
    page = tab.open(f"/conversions/{stage.cv['delivered']}")
    expect(page.get_by_role("heading", level=1)).to_contain_text(
        f"{stage.cv['delivered']} purchase, 129.00 EUR"
    )
    expect(page.locator(".fates")).to_contain_text("delivered by attempt 3")
    told = page.locator(".moments li").all_inner_texts()
    for words in (
        "the ad was clicked",
        "purchase happened",
        "routed to push-eu",
        "refund of 29.00 EUR",
        "its window ended: due",
    ):
        assert any(words in line for line in told), words
    assert sum("attempt" in line for line in told) == 3
    drawing = page.get_by_role("img", name="Timeline of this conversion")
    expect(drawing).to_be_visible()
    assert drawing.locator(".bar.window").count() == 1
    assert drawing.locator(".mark.retry").count() == 2
    assert drawing.locator(".mark.delivered").count() == 1


def test_a_window_and_a_retry_both_have_room_in_the_drawing(tab: Tab, stage: Stage) -> None:
    """Two weeks do not swallow the tenth of a second between two attempts."""
    page = tab.open(f"/conversions/{stage.cv['delivered']}")
    places = page.locator("svg .mark.retry, svg .mark.delivered").evaluate_all(
        "marks => marks.filter(m => m.closest('.lane')).map(m => m.getBoundingClientRect().x)"
    )
    assert len(places) == 3
    assert all(after - before > 12 for before, after in pairwise(places))


def test_an_attempt_unfolds_into_what_crossed_the_wire(tab: Tab, stage: Stage) -> None:
    page = tab.open(f"/conversions/{stage.cv['delivered']}")
    first = page.locator(f"#{stage.attempts('delivered')[0]}")
    expect(first.locator("pre.transcript")).to_be_hidden()
    first.locator("summary").first.click()
    wire = first.locator("pre.transcript").first
    expect(wire).to_contain_text("> GET /generic/p?click_id=")
    expect(wire).to_contain_text("< HTTP/1.1 503 Service Unavailable")
    expect(wire.locator(".click-id").first).to_have_text(f"{TOKEN}10041")
    expect(wire.locator(".secret").first).to_have_text("[secret:0bc33ec2]")
    expect(first.get_by_role("img", name="Where the time went")).to_be_visible()
    assert SECRET not in page.content()


def test_a_hop_can_be_copied_as_curl(tab: Tab, stage: Stage) -> None:
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = tab.open(f"/attempts/{stage.attempts('delivered')[0]}")
    page.get_by_text("Hop 1 as a curl command").click()
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.splitlines()[-1].strip()
    assert f"{TOKEN}10041" in copied


def test_of_a_long_life_the_older_attempts_have_pages_of_their_own(tab: Tab, stage: Stage) -> None:
    page = tab.open(f"/conversions/{stage.cv['busy']}")
    expect(page.get_by_text(f"{LONG_LIFE} attempts. The newest unfold here")).to_be_visible()
    first = stage.attempts("busy")[0]
    page.locator(f"#{first}").get_by_role("link", name=first).click()
    expect(page).to_have_url(f"{tab.url}/attempts/{first}")
    expect(page.locator("pre.transcript").first).to_contain_text("< HTTP/1.1 503")
    page.get_by_role("link", name=f"{stage.attempts('busy')[1]} →").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("attempt 2 of 30")


def test_every_id_leads_to_its_place(tab: Tab, stage: Stage) -> None:
    conversion = f"{tab.url}/conversions/{stage.cv['delivered']}"
    tab.open(f"/postbacks/{stage.postback('delivered')}")
    expect(tab.page).to_have_url(f"{conversion}#{stage.postback('delivered')}")


def test_two_attempts_are_picked_and_compared(tab: Tab, stage: Stage) -> None:
    first, _, third = stage.attempts("delivered")
    page = tab.open(f"/conversions/{stage.cv['delivered']}")
    page.get_by_label(f"Compare {first}").check()
    page.get_by_label(f"Compare {third}").check()
    page.get_by_role("button", name="Compare the two picked").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"{first} and {third}")
    changed = page.locator(".compared .changed", has_text="HTTP/1.1")
    expect(changed.locator(".left mark").first).to_have_text("503")
    expect(changed.locator(".right mark").first).to_have_text("200")
    expect(changed.locator(".gutter")).to_contain_text("≠")


def test_one_attempt_is_not_compared_with_nothing(tab: Tab, stage: Stage) -> None:
    page = tab.page
    tab.open(f"/conversions/{stage.cv['delivered']}")
    page.get_by_label(f"Compare {stage.attempts('delivered')[0]}").check()
    page.get_by_role("button", name="Compare the two picked").click()
    expect(page.get_by_text("Two attempts are compared, and 1 is picked")).to_be_visible()
    tab.complaints.clear()  # the browser notes the 400 of the answer


def test_everything_is_done_with_the_keyboard_alone(visitor: Visitor, stage: Stage) -> None:
    """Sign in, find by order, unfold, pick two, compare, and extend a window: Tab, Space and Enter, no mouse."""
    tab = visitor()
    page = tab.open("/login")
    page.keyboard.type(OPERATOR)  # the field has the focus
    tab_to(page, "Password")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{tab.url}/")
    tab.open(f"/conversions/{stage.cv['delivered']}")
    first, second, _ = stage.attempts("delivered")
    for each in (first, second):
        tab_to(page, f"Compare {each}")
        page.keyboard.press("Space")
    tab_to(page, "attempt 2")
    page.keyboard.press("Enter")
    expect(page.locator(f"#{second} pre.transcript").first).to_be_visible()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")  # in a box of the form: sends it
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"{first} and {second}")

    tab.open(f"/conversions/{stage.cv['keyboard']}")
    postback = stage.postback("keyboard")
    tab_to(page, f"Extend {postback}")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("by hand")
    tab_to(page, "By how much")
    page.keyboard.type("7d")
    tab_to(page, "Why")
    page.keyboard.type("the parcel is late")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="What would happen")).to_be_visible()
    tab_to(page, "Extend 1 postback now")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("1 postback extended")
    expect(page.locator(".moments")).to_contain_text("the parcel is late")


def test_a_void_is_shown_before_it_is_done(tab: Tab, stage: Stage) -> None:
    """First what would happen, to which; then, confirmed, it is done, with who and why in the timeline."""
    postback = stage.postback("to void")
    page = tab.open(f"/conversions/{stage.cv['to void']}")
    page.get_by_role("link", name=f"Void {postback}").click()
    page.get_by_label("Why").fill("fraud ring")
    page.get_by_role("button", name="Show what would happen").click()
    expect(page.get_by_text("it never fires")).to_be_visible()
    assert stage.ground.postback(stage.events["to void"]).state == "held"
    page.get_by_role("button", name="Void 1 postback now").click()
    expect(page.get_by_role("status")).to_contain_text("1 postback voided")
    assert stage.ground.postback(stage.events["to void"]).state == "voided"
    expect(page.locator(".moments")).to_contain_text(f"voided by console:{OPERATOR}")


def test_a_refusal_says_why_and_offers_no_button(tab: Tab, stage: Stage) -> None:
    page = tab.open(f"/by-hand/void?postback={stage.postback('delivered')}")
    page.get_by_label("Why").fill("a mistake")
    page.get_by_role("button", name="Show what would happen").click()
    expect(page.get_by_text("Nothing.")).to_be_visible()
    assert page.get_by_role("button", name="now").count() == 0


def test_without_scripts_everything_is_there(
    visitor: Visitor, signed_in: dict[str, Any], stage: Stage
) -> None:
    tab = visitor(storage_state=signed_in, java_script_enabled=False)
    page = tab.open(f"/conversions/{stage.cv['delivered']}")
    expect(page.get_by_role("button", name="Copy")).to_have_count(0)
    first, second, _ = stage.attempts("delivered")
    page.locator(f"#{first} summary").first.click()
    expect(page.locator(f"#{first} pre.transcript").first).to_contain_text("HTTP/1.1 503")
    page.get_by_label(f"Compare {first}").check()
    page.get_by_label(f"Compare {second}").check()
    page.get_by_role("button", name="Compare the two picked").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"{first} and {second}")


@pytest.mark.parametrize("group", range(4))
def test_what_a_hostile_network_answers_is_inert(tab: Tab, stage: Stage, group: int) -> None:
    """Every text is shown, none is obeyed: no script runs, nothing is asked of elsewhere, no element of theirs appears."""
    page = tab.open(f"/conversions/{stage.cv[f'hostile-{group}']}")
    title = page.title()
    page.locator("main details").evaluate_all("all => all.forEach(each => { each.open = true })")
    shown = page.locator("pre.transcript")
    expect(shown.first).to_be_visible()
    said = "\n".join(shown.all_inner_texts())
    assert said.count(MARK) >= 15
    assert steers(said) == []
    assert page.title() == title
    assert page.locator("main :is(img, iframe, script, object, embed, link, meta, base, style)").count() == 0
    assert page.locator("main [onerror], main [onload], main [onmouseover]").count() == 0
    assert page.evaluate("document.querySelectorAll('script').length") == 1


def test_what_a_hostile_producer_names_is_inert(tab: Tab, stage: Stage) -> None:
    page = tab.open(f"/conversions/{stage.cv['evil']}")
    expect(page.locator("main")).to_contain_text("<img src=x onerror=")
    assert page.locator("main img").count() == 0
