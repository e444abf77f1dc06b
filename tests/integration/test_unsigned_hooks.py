"""Deliveries of senders that sign nothing, at a real door: who is let in, what is answered, and what is not kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from producers.hooks.salesforce import ACKNOWLEDGEMENT
from producers.hooks.sources import Opened, open_sources
from tests.integration.door import DoorThread
from tests.integration.ground import Ground

FIXTURES = Path(__file__).parents[1] / "fixtures" / "hooks"
KEY = "a-key-in-the-url/0123456789+abcdef"
CONFIG = """
[sources.crm]
hook = "salesforce"
secret = { env = "URL_KEY" }
organization = "00D24000000abcd"
events = { "Opportunity.StageName=Closed Won" = "purchase" }
signals = { "Opportunity.StageName=Closed Lost" = "cancel" }

[sources.app]
hook = "appsflyer"
allow = ["127.0.0.0/8"]

[sources.elsewhere]
hook = "appsflyer"
allow = ["203.0.113.0/24"]

[sources.adjust]
hook = "adjust"
secret = { env = "URL_KEY" }
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Opened]:
    """Sources of each way to be known: a key, an allow list."""
    path = tmp_path_factory.mktemp("config") / "holdfire.toml"
    path.write_text(CONFIG)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("URL_KEY", KEY)
        return open_sources(path)


@pytest.fixture(scope="module")
def door(database_url: str, broker_url: str, sources: dict[str, Opened]) -> Iterator[DoorThread]:
    """A door that serves them."""
    with DoorThread(database_url, broker_url, sources=sources) as opened:
        yield opened


@pytest.fixture
def ground(engine: Engine) -> Ground:
    """The inbox, emptied: only a superuser may switch off what refuses to."""
    ground = Ground(engine)
    ground.run("SET LOCAL session_replication_role = replica; TRUNCATE inbox, inbox_runs, outbox")
    return ground


def kept(ground: Ground) -> list[Any]:
    return list(ground.rows("SELECT * FROM inbox ORDER BY id"))


def enqueued(ground: Ground) -> list[str]:
    messages = ground.rows("SELECT events FROM outbox")
    return sorted(event["event_id"] for row in messages for event in json.loads(row.events))


def test_an_outbound_message_is_acknowledged_and_keeps_no_session(door: DoorThread, ground: Ground) -> None:
    """Neither the session id that opens the organisation nor the key that opens the door is in what is kept."""
    body = (FIXTURES / "salesforce_opportunity.xml").read_bytes()
    answer = door.client.post(
        "/hooks/crm", params={"key": KEY}, content=body, headers={"content-type": "text/xml"}
    )
    assert (answer.status_code, answer.content) == (200, ACKNOWLEDGEMENT)
    assert answer.headers["content-type"].startswith("text/xml")
    (row,) = kept(ground)
    assert b"<SessionId>[secret]</SessionId>" in bytes(row.body)
    assert b"not.a.real.session" not in bytes(row.body)
    assert row.target.startswith("/hooks/crm?key=[secret:")
    assert "0123456789" not in repr(row)


def test_a_message_that_is_sent_again_is_acknowledged_again_and_counts_once(
    door: DoorThread, ground: Ground
) -> None:
    """Salesforce repeats until it hears the acknowledgement."""
    body = (FIXTURES / "salesforce_opportunity.xml").read_bytes()
    for _ in range(2):
        assert door.client.post("/hooks/crm", params={"key": KEY}, content=body).content == ACKNOWLEDGEMENT
    assert set(enqueued(ground)) == {"salesforce:04l0800002nrC5BAAU", "salesforce:04l0800002nrC5CAAU"}
    assert len(enqueued(ground)) == 2


def test_a_message_with_entities_is_kept_and_refused_in_words(door: DoorThread, ground: Ground) -> None:
    """It was let in by its key, so it is evidence; nothing in it was unfolded."""
    bomb = b'<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><a>&b;</a>'
    assert door.client.post("/hooks/crm", params={"key": KEY}, content=bomb).status_code == 200
    (row,) = kept(ground)
    assert bytes(row.body) == bomb
    assert enqueued(ground) == []


@pytest.mark.parametrize(("source", "status"), [("app", 200), ("elsewhere", 401)])
def test_an_allow_list_lets_in_whom_it_names(
    door: DoorThread, ground: Ground, source: str, status: int
) -> None:
    """AppsFlyer's messages need no key where its addresses are known."""
    body = (FIXTURES / "appsflyer_purchase.json").read_bytes()
    assert door.client.post(f"/hooks/{source}", content=body).status_code == status
    assert len(kept(ground)) == (status == 200)


def test_a_callback_is_a_get_with_the_key_among_its_parameters(door: DoorThread, ground: Ground) -> None:
    """What Adjust fills in is the delivery; a wrong key is told from none."""
    said = {"activity_kind": "install", "created_at": "1790000000", "nonce": "k3jh4g"}
    assert door.client.get("/hooks/adjust", params={**said, "key": KEY}).status_code == 200
    assert enqueued(ground) == ["adjust:k3jh4g"]
    refused = door.client.get("/hooks/adjust", params={**said, "key": "guessed"})
    assert (refused.status_code, "key is wrong" in refused.text) == (401, True)
    (row,) = kept(ground)
    assert "0123456789" not in row.target
