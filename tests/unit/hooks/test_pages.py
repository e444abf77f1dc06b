"""The senders' pages: the delivery that each shows is an event under the table that it shows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from producers.hooks.registry import HOOKS
from tests.acceptance.page import ROOT, blocks
from tests.unit.hooks.eight import delivery, event

PAGES = sorted(
    path
    for path in (ROOT / "docs" / "producers").glob("*.md")
    if path.stem
    in {"adjust", "appsflyer", "branch", "chargebee", "hubspot", "revenuecat", "salesforce", "segment"}
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_delivery_that_a_page_shows_is_a_conversion(page: Path) -> None:
    """The door answers 200 to whatever is genuine: here is what it means."""
    shown = blocks(page.read_text("utf-8"))
    files = {block.file: block.body for block in shown if block.file}
    ((_, table),) = tomllib.loads(files.pop("holdfire.toml"))["sources"].items()
    options = {key: value for key, value in table.items() if key not in ("hook", "secret", "public_url")}
    if HOOKS[table["hook"]].payload == "query":
        called = next(
            found for block in shown if (found := re.search(r'"http://([^"]+nonce[^"]+)"', block.body))
        )
        sent = delivery(method="GET", url=f"http://{called[1]}")
    else:
        (body,) = files.values()
        sent = delivery(body.encode())
    found = event(table["hook"], sent, **options)
    assert found["type"] == "conversion"
    assert found["order_id"]
    assert found["value"]
    assert found.get("click_ids") or page.stem == "hubspot"
