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

[destinations.everflow]
network = "everflow"
events = ["purchase"]
settings = { url = "https://track.example/", nid = "123", reversal_url = "https://track.example/reversal" }

[destinations.bemob]
network = "bemob"
events = ["purchase"]
settings.url = "https://track.example/postback"

[destinations.asking]
network = "generic"
events = ["purchase"]
settings.url = "https://crm.example/?c={click_id}"
hold = { kind = "none", check = { url = "https://orders.example/{order_id}" } }

[destinations.crm]
network = "generic"
events = ["purchase"]
settings.url = "https://crm.example/?c={click_id}&v={value}"
rules.adjustments.restatement.url = "https://crm.example/now?c={click_id}&v={value}&d={delta}"
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
    assert "parameters.sum, answer, adjustments.restatement" in line
    networks = {one["slug"]: one for one in json.loads(_run("list", "--networks", "--json").stdout)}
    assert networks["redtrack"]["unverified"] == ["parameters.sum", "answer", "adjustments.restatement"]
    assert networks["xandr"]["unverified"] == []


def test_render_warns_of_unverified_rules_beside_the_url(config: str) -> None:
    """The URL stays alone on standard output."""
    shown = _run("render", "tune", "--example", "--config", config)
    assert shown.stdout.startswith("GET https://examplenetwork.go2cloud.org/aff_lsr?offer_id=26&")
    assert "unverified for TUNE: parameters.security_token" in shown.stderr
    assert "unverified" not in shown.stdout
    as_json = json.loads(_run("render", "tune", "--example", "--config", config, "--json").stdout)
    assert (as_json["confidence"], as_json["unverified"]) == ("exact", ["parameters.security_token"])


def test_render_shows_what_is_asked_before_release(config: str) -> None:
    """Beside the request, not in it; and not for one that asks nothing."""
    shown = _run("render", "asking", "--example", "--config", config)
    assert shown.stdout.startswith("GET https://crm.example/?c=")
    assert "before release it asks GET https://orders.example/example1\n" in shown.stderr
    as_json = json.loads(_run("render", "asking", "--example", "--config", config, "--json").stdout)
    assert as_json["asks"] == "https://orders.example/example1"
    assert json.loads(_run("render", "crm", "--example", "--config", config, "--json").stdout)["asks"] is None


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


@pytest.mark.parametrize(
    ("destination", "kind", "url"),
    [
        (
            "everflow",
            "retraction",
            "https://track.example/reversal?transaction_id=1027c887059b47bc69c699f45466b900&event_id=0",
        ),
        ("crm", "restatement", "https://crm.example/now?c=a%2Fb%20c%2Bd%3D.&v=6.25&d=-6.25"),
    ],
)
def test_render_shows_the_exact_correction(config: str, destination: str, kind: str, url: str) -> None:
    """As if the network's example were given back after delivery, all of it or half."""
    shown = _run("render", destination, "--example", "--adjustment", kind, "--config", config)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.splitlines()[0] == f"GET {url}"
    as_json = _run("render", destination, "--example", "--adjustment", kind, "--config", config, "--json")
    assert (json.loads(as_json.stdout)["adjustment"], json.loads(as_json.stdout)["url"]) == (kind, url)


@pytest.mark.parametrize(
    ("destination", "kind", "why"),
    [
        ("tune", "retraction", "TUNE takes no retraction: what stands wrong there is recorded as lost"),
        ("bemob", "retraction", "no retraction can be sent: give settings.declined_status"),
        ("everflow", "restatement", "Everflow takes no restatement"),
    ],
)
def test_render_says_why_there_is_no_correction(config: str, destination: str, kind: str, why: str) -> None:
    """The network has none, or a setting is missing."""
    refused = _run("render", destination, "--example", "--adjustment", kind, "--config", config)
    assert refused.exit_code != 0
    assert why in str(refused.exception)


def test_half_of_an_odd_cent_is_left_with_the_value_s_own_places(config: str) -> None:
    """No amount is made up that the currency has not."""
    event = {
        "version": 1,
        "type": "conversion",
        "event_id": "1",
        "source": "shop",
        "name": "purchase",
        "occurred_at": "2026-11-01T10:00:00Z",
        "value": "0.99",
        "currency": "EUR",
        "click_ids": {"generic": "a1"},
    }
    words = ("render", "crm", "--event", "-", "--adjustment", "restatement", "--config", config)
    assert "v=0.50&d=-0.49" in _run(*words, given=json.dumps(event)).stdout
    bare = {name: value for name, value in event.items() if name not in {"value", "currency"}}
    assert "has no value" in str(_run(*words, given=json.dumps(bare)).exception)


def test_the_catalogue_shows_which_corrections_a_network_takes() -> None:
    """By kind, and none where there is none."""
    networks = {one["slug"]: one for one in json.loads(_run("list", "--networks", "--json").stdout)}
    assert networks["scaleo"]["corrections"] == ["retraction", "restatement"]
    assert networks["everflow"]["corrections"] == ["retraction"]
    assert networks["xandr"]["corrections"] == []


def test_check_warns_of_a_setting_without_which_refunds_are_lost(config: str) -> None:
    """The file is good all the same."""
    checked = _run("check", "--config", config)
    assert checked.exit_code == 0
    assert "destinations.bemob.settings.declined_status: is missing: refunds after delivery" in checked.stderr
