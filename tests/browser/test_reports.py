"""Reconciling a report from the browser: with a mouse, and with the keyboard alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Tab, Visitor, tab_to
from tests.browser.stage import TOKEN, Stage


@pytest.fixture
def report(tmp_path: Path, stage: Stage) -> Path:
    """What a network might send: one conversion as we have it, and one that nobody told it."""
    day = stage.ground.one(
        "SELECT to_char(occurred_at AT TIME ZONE 'UTC', 'DD.MM.YYYY') FROM conversions WHERE order_id = '10041'"
    )
    rows = [
        "Klick;Bestellung;Betrag;Datum",
        f"{TOKEN}10041;10041;129,00;{day}",
        f"{TOKEN}77777;77777;15,00;{day}",
    ]
    path = tmp_path / "november.csv"
    path.write_text("\n".join(rows), "utf-8")
    return path


def test_a_report_is_sent_mapped_and_reconciled(tab: Tab, report: Path) -> None:
    page = tab.open("/reports/new")
    page.get_by_label("Destination").select_option("push-eu")
    page.get_by_label("Report").set_input_files(report)
    page.get_by_role("button", name="Look at it").click()
    expect(page.get_by_role("alert")).to_contain_text("no column is known")
    expect(page.get_by_role("group", name="As it was sent")).to_contain_text("Bestellung")
    page.get_by_label("Click id").select_option("Klick")
    page.get_by_label("Order id").select_option("Bestellung")
    page.get_by_label("Value", exact=True).select_option("Betrag")
    page.get_by_label("Occurred at").select_option("Datum")
    page.get_by_label("Decimal sign").select_option(
        "comma"
    )  # remembered of the network's last report: a point
    page.get_by_role("button", name="Look again").click()
    expect(page.get_by_role("group", name="As it would be read")).to_contain_text("129.00")
    page.get_by_role("button", name="Reconcile it").click()
    expect(page.get_by_role("heading", name="Buckets")).to_be_visible(timeout=30_000)
    expect(page.get_by_role("img", name="Disputed shares")).to_be_visible()
    page.get_by_role("row", name="theirs only").first.get_by_role("link", name="theirs only").click()
    expect(page.get_by_role("group", name="Findings")).to_contain_text("77777")


def test_a_report_is_reconciled_with_the_keyboard(
    visitor: Visitor, signed_in: dict[str, Any], report: Path
) -> None:
    """From the button on the reports' page: Tab, arrows and Enter; only the system's own file dialog is stood in for."""
    tab = visitor(storage_state=signed_in)
    page = tab.open("/reports")
    # Heard from here on: asked for only when the dialog is about to open, the browser may open it before it is told.
    page.on("filechooser", lambda _: None)
    tab_to(page, "Reconcile a report")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Reconcile a report")
    tab_to(page, "Destination")
    page.keyboard.type("push")
    tab_to(page, "Report")
    with page.expect_file_chooser() as dialog:
        page.keyboard.press("Enter")
    dialog.value.set_files(report)
    tab_to(page, "Look at it")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("november.csv")
    tab_to(page, "Click id")
    page.keyboard.type("Klick")
    tab_to(page, "Order id")
    page.keyboard.type("Best")
    tab_to(page, "Reconcile it")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Buckets")).to_be_visible(timeout=30_000)
