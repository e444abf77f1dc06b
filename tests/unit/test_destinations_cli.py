"""What ``holdfire destinations`` says of a network's rules that nobody has checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from workers.destinations_cli import commands

CONFIG = """
[destinations.tune]
network = "tune"
events = ["purchase"]
settings.url = "https://examplenetwork.go2cloud.org/aff_lsr"
settings.offer_id = "26"

[destinations.adsterra]
network = "adsterra"
events = ["purchase"]
settings = { advertiser = "me" }
hold = { kind = "credit_check", wait = "30d" }
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A file with two destinations."""
    (tmp_path / "holdfire.toml").write_text(CONFIG)
    return str(tmp_path / "holdfire.toml")


def _run(*words: str, given: str | None = None) -> Result:
    return CliRunner().invoke(commands, list(words), input=given)


def test_the_catalogue_shows_which_rules_are_unverified() -> None:
    """In the table, and as JSON."""
    (line,) = (one for one in _run("list", "--networks").stdout.splitlines() if one.startswith("redtrack"))
    assert "parameters.sum, answer" in line
    networks = {one["slug"]: one for one in json.loads(_run("list", "--networks", "--json").stdout)}
    assert networks["redtrack"]["unverified"] == ["parameters.sum", "answer"]
    assert networks["xandr"]["unverified"] == []


def test_render_warns_of_unverified_rules_beside_the_url(config: str) -> None:
    """The URL stays alone on standard output."""
    shown = _run("render", "tune", "--example", "--config", config)
    assert shown.stdout.startswith("GET https://examplenetwork.go2cloud.org/aff_lsr?offer_id=26&")
    assert "unverified for TUNE: parameters.security_token" in shown.stderr
    assert "unverified" not in shown.stdout
    as_json = json.loads(_run("render", "tune", "--example", "--config", config, "--json").stdout)
    assert (as_json["confidence"], as_json["unverified"]) == ("exact", ["parameters.security_token"])


def test_render_refuses_what_intake_would_reject(config: str) -> None:
    """A URL that would never be sent is not shown."""
    event = {
        "version": 1,
        "type": "conversion",
        "event_id": "1",
        "source": "shop",
        "name": "purchase",
        "occurred_at": "2026-11-01T10:00:00Z",
        "value": "49.90",
        "currency": "EUR",
        "click_ids": {"adsterra": "a1"},
    }
    refused = _run("render", "adsterra", "--event", "-", "--config", config, given=json.dumps(event))
    assert refused.exit_code != 0
    assert "value is in EUR, but Adsterra takes it in USD only" in str(refused.exception)


def test_render_shows_the_url_also_where_a_credit_decision_is_waited_for(config: str) -> None:
    """The hold is not what is looked at."""
    shown = _run("render", "adsterra", "--example", "--config", config)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.startswith("GET https://www.pbterra.com/name/me/at?")
