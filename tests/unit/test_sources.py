"""Sources in ``holdfire.toml``: every fault is named with its key and remedy before a delivery comes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from holdfire import app
from infra.catalogue import ConfigError, load_config
from producers.hooks.sources import check_sources, open_sources

GOOD = '[sources.shop]\nhook = "shopify"\nsecret = { env = "SHOP_SECRET" }\n'


def problems(tmp_path: Path, text: str) -> dict[str, str]:
    """What is said of each key."""
    (tmp_path / "holdfire.toml").write_text(text)
    try:
        load_config(tmp_path / "holdfire.toml", check_sources)
    except ConfigError as error:
        return {problem.field: str(problem) for problem in error.problems}
    return {}


def test_a_source_alone_is_a_configuration(tmp_path: Path) -> None:
    """Whoever only takes events in needs no destination."""
    assert problems(tmp_path, GOOD) == {}


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ('[sources.s]\nhook = "strpe"', "sources.s.hook", "Did you mean stripe?"),
        ('[sources.s]\nhook = "shopify"', "sources.s.secret", "is missing"),
        (f"{GOOD}evnt = 'x'", "sources.shop.evnt", "Did you mean event?"),
        (f"{GOOD}zzz = 'x'", "sources.shop.zzz", "It has event, conversion_on"),
        (f"{GOOD}conversion_on = 'orders/pay'", "sources.shop.conversion_on", "Use one of orders/paid"),
        (f"{GOOD}click_ids = 'clid'", "sources.shop.click_ids", "is no table"),
        (f"{GOOD}public_url = 'door.example'", "sources.shop.public_url", "does not have the shape"),
        (
            '[sources.s]\nhook = "shopify"\nsecret = "shh"',
            "sources.s.secret",
            "Name the environment variable",
        ),
        ('[sources."a b"]\nhook = "shopify"', "sources.a b", "cannot be the source of an event"),
        ('[sources]\nshop = "shopify"', "sources.shop", "is no table"),
        ("sources = 1", "sources", "is no table"),
        ("[source.x]", "source", "Did you mean sources?"),
        ('[sources.s]\nsecret = { env = "X" }', "sources.s.hook", "is missing"),
    ],
)
def test_each_fault_is_named(tmp_path: Path, text: str, key: str, said: str) -> None:
    """By its key, with what to do about it."""
    found = problems(tmp_path, text)
    assert list(found) == [key]
    assert said in found[key]


def test_secrets_are_read_when_the_door_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them; one that is not there is named, and its value never."""
    path = tmp_path / "holdfire.toml"
    path.write_text(GOOD)
    monkeypatch.delenv("SHOP_SECRET", raising=False)
    with pytest.raises(ConfigError) as caught:
        open_sources(path)
    assert [problem.field for problem in caught.value.problems] == ["sources.shop.secret"]
    monkeypatch.setenv("SHOP_SECRET", "shpss_0123456789")
    opened = open_sources(path)["shop"]
    assert opened.secrets == ("shpss_0123456789",)
    assert "shpss" not in opened.redactor.in_text("a shpss_0123456789 b")


def test_a_door_without_a_configuration_has_no_sources(tmp_path: Path) -> None:
    """It still takes events."""
    assert open_sources(tmp_path / "none.toml") == {}


def test_the_command_checks_sources_too(tmp_path: Path) -> None:
    """With what their hooks know, and the exit code of any problem."""
    path = tmp_path / "holdfire.toml"
    path.write_text(f"{GOOD}evnt = 'x'")
    command = ["destinations", "check", "--config", str(path)]
    result = CliRunner().invoke(app, command)
    assert (result.exit_code, "sources.shop.evnt" in result.output) == (1, True)
    path.write_text(GOOD)
    result = CliRunner().invoke(app, [*command, "--json"])
    assert (result.exit_code, json.loads(result.stdout)["sources"]) == (0, ["shop"])
