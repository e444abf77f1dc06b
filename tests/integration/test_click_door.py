"""Clicks at the door: as JSON and as a pixel, kept verbatim, registered, or refused with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import Engine

from producers.door.callers import Anyone, Caller
from producers.door.clicks import GIF, pixel_fields
from tests.integration.door import DoorThread
from tests.integration.ground import Ground, cleared, contract

TOKEN = "nym1CJjYiJ3oq6LkMxACGIHey7vM0vGDRyIJMTAuMS4xMi42KAE."
URL = f"https://shop.example/land?utm_source=x&sspdata={TOKEN}&kcid=a+b%2Fc"


@pytest.fixture(scope="module")
def ground(engine: Engine) -> Ground:
    """One destination, with click parameters of its own."""
    ground = cleared(engine)
    ground.apply(contract("mine", "https://t.example/{click_id}", click_parameters=["my_cid"]))
    return ground


@pytest.fixture(scope="module")
def door(ground: Ground, database_url: str, broker_url: str) -> Iterator[DoorThread]:
    with DoorThread(database_url, broker_url) as running:
        yield running


def registered(ground: Ground, answer: httpx.Response) -> list[dict[str, Any]]:
    """The clicks of the request that was answered so."""
    number = int(answer.json()["request_id"][3:])
    rows = ground.rows("SELECT * FROM clicks WHERE inbox_id = :id", id=number)
    return [dict(row._mapping) for row in rows]


def last(ground: Ground) -> dict[str, Any]:
    (row,) = ground.rows("SELECT * FROM clicks ORDER BY id DESC LIMIT 1")
    return dict(row._mapping)


def test_a_landing_pages_url_is_registered_verbatim(door: DoorThread, ground: Ground) -> None:
    """202, every network's click id byte for byte, and the request in the inbox as it came."""
    answer = door.client.post("/v1/clicks", json={"url": URL, "lead_id": "L1", "source": "site"})
    assert answer.status_code == 202
    (click,) = registered(ground, answer)
    expected = {"xandr": TOKEN, "ad-personam": TOKEN, "knorex-xpo": "a+b/c"}
    assert (click["click_ids"], answer.json()["click_ids"], answer.json()["rejected"]) == (
        expected,
        expected,
        [],
    )
    assert (click["lead_id"], click["order_id"], click["source"]) == ("L1", None, "site")
    assert abs((datetime.now(UTC) - click["clicked_at"]).total_seconds()) < 60
    (row,) = ground.rows("SELECT * FROM inbox WHERE id = :id", id=click["inbox_id"])
    assert bytes(row.body) == answer.request.content
    assert (row.kind, row.target, row.status_code, row.accepted, row.rejected) == (
        "click",
        "/v1/clicks",
        202,
        1,
        0,
    )


def test_a_destinations_own_parameter_is_found(door: DoorThread, ground: Ground) -> None:
    """Under the destination's name."""
    answer = door.client.post("/v1/clicks", json={"url": "https://shop.example/?my_cid=7", "order_id": "O"})
    assert answer.json()["click_ids"] == {"mine": "7"}


def test_a_leftover_macro_is_left_out_and_named(door: DoorThread, ground: Ground) -> None:
    """The other token is taken; alone, the click is refused, and the request is kept all the same."""
    leftover = "https://shop.example/?sspdata=${SSP_DATA}"
    answer = door.client.post("/v1/clicks", json={"url": f"{leftover}&kcid=1", "lead_id": "L1"})
    assert (answer.status_code, answer.json()["click_ids"]) == (202, {"knorex-xpo": "1"})
    (problem,) = answer.json()["rejected"]
    assert (problem["code"], problem["field"]) == ("unreplaced_macro", "url: sspdata")
    assert "${SSP_DATA}" in problem["reason"]
    refused = door.client.post("/v1/clicks", json={"url": leftover, "lead_id": "L1"})
    assert (refused.status_code, refused.json()["code"]) == (422, "nothing_accepted")
    assert refused.headers["content-type"] == "application/problem+json"
    assert registered(ground, refused) == []
    number = int(refused.json()["request_id"][3:])
    assert ground.one("SELECT status_code FROM inbox WHERE id = :id", id=number) == 422


@pytest.mark.parametrize(
    ("body", "status", "codes"),
    [
        (b"{", 400, None),
        (b"[]", 422, ["model_type"]),
        (b"{}", 422, ["no_click_id", "no_key"]),
        (b'{"url": "https://x.example/?kcid=1"}', 422, ["no_key"]),
        (b'{"lead_id": "L1"}', 422, ["no_click_id"]),
        (b'{"lead_id": "L1", "click_ids": {"x": "1"}, "clicked_at": "2100-01-01T00:00:00Z"}', 422, ["future_clicked_at"]),
    ],
)  # fmt: skip
def test_what_cannot_be_registered_is_refused_with_the_reason(
    body: bytes, status: int, codes: list[str] | None, door: DoorThread
) -> None:
    """Each problem with its field, the reason and the remedy."""
    answer = door.client.post("/v1/clicks", content=body)
    assert answer.status_code == status
    if codes is not None:
        problems = answer.json()["rejected"]
        assert [problem["code"] for problem in problems] == codes
        assert all(problem["field"] and problem["reason"] and problem["remedy"] for problem in problems)


def test_a_repeated_request_is_answered_by_the_first(door: DoorThread, ground: Ground) -> None:
    """Under its Idempotency-Key a click is registered once."""
    headers = {"idempotency-key": "one"}
    answers = [
        door.client.post("/v1/clicks", json={"url": URL, "lead_id": "again"}, headers=headers)
        for _ in range(2)
    ]
    assert [each.headers.get("idempotent-replayed") for each in answers] == [None, "true"]
    assert answers[0].json() == answers[1].json()
    assert ground.one("SELECT count(*) FROM clicks WHERE lead_id = 'again'") == 1
    other = door.client.post("/v1/clicks", json={"url": URL, "lead_id": "other"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")


def test_a_pixel_registers_and_is_an_image(door: DoorThread, ground: Ground) -> None:
    """A GIF that no cache keeps, once the click is committed; the target is in the inbox as it came."""
    target = f"/v1/clicks.gif?url={quote(URL, '')}&lead_id=L%2B1+x&clicked_at=2026-01-02T03:04:05+01:00&_=123"
    answer = door.client.get(target)
    assert (answer.status_code, answer.content) == (200, GIF)
    assert (answer.headers["content-type"], answer.headers["cache-control"]) == ("image/gif", "no-store")
    click = last(ground)
    assert click["click_ids"] == {"xandr": TOKEN, "ad-personam": TOKEN, "knorex-xpo": "a+b/c"}
    assert (click["lead_id"], click["clicked_at"]) == ("L+1 x", datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC))
    assert ground.one("SELECT target FROM inbox WHERE id = :id", id=click["inbox_id"]) == target


def test_a_pixel_that_links_nothing_says_why(door: DoorThread) -> None:
    """Who looks into the browser's console finds the reason."""
    answer = door.client.get("/v1/clicks.gif?lead_id=L1&sspdata=1")
    assert answer.status_code == 422
    assert [problem["field"] for problem in answer.json()["rejected"]] == ["sspdata"]
    assert door.client.get(f"/v1/clicks.gif?url={'x' * 16_001}").status_code == 414


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("", {}),
        ("lead_id=a+b%2Bc", {"lead_id": "a b+c"}),
        ("url=https://x.example/?k=a+b%252B", {"url": "https://x.example/?k=a+b%2B"}),
        ("click_ids.xandr=a+b%2B&click_ids.xandr=no", {"click_ids": {"xandr": "a+b+"}}),
        ("lead_id=&order_id=1&order_id=2&cb=9", {"order_id": "1"}),
    ],
)
def test_the_parameters_of_a_pixel_are_decoded_once(query: str, fields: dict[str, Any]) -> None:
    """A plus is a space in a key and itself in a token; the first of several counts."""
    assert pixel_fields(query) == fields


def test_pixels_that_come_too_fast_are_told_to_wait(
    database_url: str, broker_url: str, ground: Ground
) -> None:
    """Their own limit: events are taken all the while."""
    with DoorThread(database_url, broker_url) as door:
        door.application.clicks.pixels_per_s = 0.001
        target = "/v1/clicks.gif?click_ids.xandr=1&lead_id=L1"
        answers = [door.client.get(target) for _ in range(2)]
        assert (
            door.client.post("/v1/clicks", json={"click_ids": {"x": "1"}, "lead_id": "L"}).status_code == 202
        )
    assert [each.status_code for each in answers] == [200, 429]
    assert answers[1].headers["retry-after"] == "1"


@pytest.fixture
def urls(database_url: str, broker_url: str) -> tuple[str, str]:
    return database_url, broker_url


class Scoped(Anyone):
    """Lets everyone in with one key's scope."""

    def __init__(self, **scope: frozenset[str]) -> None:
        self._scope = scope

    def admit(self, headers: dict[bytes, bytes], body: bytes) -> Caller:
        return Caller(7, "site key", **self._scope)


@pytest.mark.parametrize(
    ("scope", "source", "status"),
    [
        ({"sources": frozenset({"site"})}, "site", 202),
        ({"sources": frozenset({"site"})}, None, 202),
        ({"sources": frozenset({"site"})}, "shop", 422),
        ({"sources": frozenset({"site", "shop"})}, None, 422),
        ({"events": frozenset({"purchase"})}, "site", 422),
        ({"events": frozenset({"purchase", "click"})}, "site", 202),
    ],
)
def test_a_key_registers_clicks_within_its_scope(
    scope: dict[str, frozenset[str]], source: str | None, status: int, urls: tuple[str, str], ground: Ground
) -> None:
    """Of its sources, and where its events are named, only if clicks are among them."""
    with DoorThread(*urls, Scoped(**scope)) as door:
        named = {} if source is None else {"source": source}
        answer = door.client.post("/v1/clicks", json={"click_ids": {"x": "1"}, "lead_id": "L", **named})
    assert answer.status_code == status
    for click in registered(ground, answer):
        assert click["source"] == "site"
