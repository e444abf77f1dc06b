"""``holdfire inbox``: what a door kept, listed and shown, and its mapping run again once it is mended."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner, Result

from holdfire import app
from producers.hooks.sources import open_sources
from tests.integration.door import DoorThread
from tests.integration.ground import TABLES, Ground

BODY = (Path(__file__).parents[1] / "fixtures" / "hooks" / "generic_deal.json").read_text("utf-8")
KEY = "crm-key-0123456789abcdef"
CONFIG = """
[sources.crm]
hook = "generic"
secret = { env = "CRM_KEY" }
type = "conversion"
constants = { name = "purchase" }
map = { event_id = "id", order_id = "deal.number", value = "deal.total", currency = "CURRENCY", occurred_at = "deal.closed" }
"""


@pytest.fixture
def config(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration whose mapping has a mistake: it takes the plan for the currency."""
    path = tmp_path / "holdfire.toml"
    path.write_text(CONFIG.replace("CURRENCY", "deal.plan"))
    for name, value in {
        "CRM_KEY": KEY,
        "HOLDFIRE_DATABASE_URL": database_url,
        "HOLDFIRE_CONFIG": str(path),
    }.items():
        monkeypatch.setenv(name, value)
    return path


@pytest.fixture
def ground(engine: Engine) -> Ground:
    """An empty database."""
    ground = Ground(engine)
    tables = f"inbox, inbox_runs, outbox, {TABLES}"
    ground.run(f"SET LOCAL session_replication_role = replica; TRUNCATE {tables} RESTART IDENTITY CASCADE")
    ground.run("ALTER SEQUENCE inbox_ids RESTART")
    return ground


@pytest.fixture
def send(config: Path, database_url: str, broker_url: str, ground: Ground) -> Iterator[Callable[[str], int]]:
    """Deliver a body to a door that serves the configuration as it was at first."""
    with DoorThread(database_url, broker_url, sources=open_sources(config)) as door:
        yield (
            lambda body: (
                door.client.post(
                    "/hooks/crm", content=body, headers={"x-api-key": KEY, "x-note": b"\x1b[31m".hex()}
                ).status_code
            )
        )


def run(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["inbox", *words])
    assert result.exit_code == code, result.output
    return result


def lines(result: Result) -> list[Any]:
    return [json.loads(line) for line in result.stdout.splitlines() if line]


def mend(config: Path) -> None:
    config.write_text(CONFIG.replace("CURRENCY", "deal.currency"))


def enqueued(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT events FROM outbox")).scalars()
        return [event["event_id"] for row in rows for event in json.loads(row)]


def test_what_failed_is_listed_with_its_reason(send: Callable[[str], int]) -> None:
    """By source, and by having failed."""
    assert send(BODY) == 200
    (found,) = lines(run("list", "--source", "crm", "--failed", "--json"))
    assert (found["request_id"], found["rejected"], found["problems"][0]["field"]) == ("in_1", 1, "currency")
    assert "in_1" in run("list", "--failed").output
    assert lines(run("list", "--kind", "click", "--json")) == []


def test_a_request_is_shown_as_it_came(send: Callable[[str], int]) -> None:
    """The body to the letter, the key masked, and what came of it."""
    send(BODY)
    shown = run("show", "in_1").output
    assert "POST /hooks/crm" in shown
    assert BODY.strip() in shown
    assert KEY not in shown
    assert "currency:" in shown
    (whole,) = lines(run("show", "in_1", "--json"))
    assert whole["body"] == BODY


def test_a_mended_mapping_is_run_again(
    send: Callable[[str], int], config: Path, engine: Engine, ground: Ground
) -> None:
    """What is new is enqueued, what intake has is not, and each run is kept."""
    send(BODY)
    run("rerun", "in_1", code=1)
    mend(config)
    assert "1 event would be enqueued" in run("rerun", "--source", "crm", "--dry-run").output
    assert enqueued(engine) == []
    assert lines(run("rerun", "--source", "crm", "--json"))[0]["enqueued"] == ["act-9001"]
    (message,) = ground.rows("SELECT events FROM outbox")
    assert ground.take_message(json.loads(message.events)).conversions == 1
    again = run("rerun", "in_1", "--json")
    assert (lines(again)[0]["enqueued"], lines(again)[0]["duplicates"]) == ([], ["act-9001"])
    assert lines(run("list", "--failed", "--json")) == []
    (whole,) = lines(run("show", "in_1", "--json"))
    assert [each["accepted"] for each in whole["runs"]] == [0, 1, 0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "in_99"], "there is no request in_99"),
        (["show", "pb_1"], "'pb_1' is no request"),
        (["rerun"], "name requests, or a --source"),
        (["rerun", "in_99"], "there is no request in_99"),
        (["list", "--since", "yesterday"], "neither an age nor an instant"),
    ],
)
def test_what_cannot_be_asked_is_told(config: Path, words: list[str], said: str) -> None:
    """In a sentence with the remedy."""
    result = CliRunner().invoke(app, ["inbox", *words])
    assert said in str(result.exception)


def test_a_request_of_another_kind_has_no_mapping(
    config: Path, database_url: str, broker_url: str, ground: Ground
) -> None:
    """Events are what they are."""
    with DoorThread(database_url, broker_url) as door:
        door.post([{"version": 7}])
    result = CliRunner().invoke(app, ["inbox", "rerun", "in_1"])
    assert "in_1 came as events" in str(result.exception)
