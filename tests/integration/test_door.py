"""The HTTP door over a real socket: what is taken, what is refused, and what 202 promises."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from tests.integration.door import DoorThread
from tests.integration.ground import Ground, conversion


@pytest.fixture(scope="module")
def door(database_url: str, broker_url: str) -> Iterator[DoorThread]:
    """A door that lets everyone in."""
    with DoorThread(database_url, broker_url) as running:
        yield running


@pytest.fixture
def ground(engine: Engine) -> Ground:
    return Ground(engine)


def test_one_event_is_kept_as_it_came_and_owed_to_the_queue(door: DoorThread, ground: Ground) -> None:
    """202, the request in the inbox verbatim, and its event in the outbox until intake takes it."""
    answer = door.post(conversion("one"))
    assert answer.status_code == 202
    assert answer.headers["content-type"] == "application/json"
    assert (answer.json()["accepted"], answer.json()["duplicates"], answer.json()["rejected"]) == (1, [], [])
    row = ground.rows("SELECT * FROM inbox WHERE id = :id", id=int(answer.json()["request_id"][3:]))[0]
    assert bytes(row.body) == answer.request.content
    assert (row.method, row.target, row.kind, row.source) == ("POST", "/v1/events", "events", "shop")
    assert ground.one("SELECT count(*) FROM outbox") == 1
