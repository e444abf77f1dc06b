"""Signals and releases of the same conversions, from eight threads at once: each ends in one of its allowed ways."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine

from infra.sink import SinkThread
from infra.store.ledger import read_ledger
from tests.integration.ground import TOKEN, Ground, Gun, cleared, contract, conversion, generic_url, signal
from workers.rescuing import rescue

ORDERS = 300
TELLERS, CLOCKS = 5, 3
REFUND = {"kind": "refund", "wait": "30s"}
CREDIT = {"kind": "credit_check", "wait": "30s", "on_timeout": "void"}

# What comes of an order at a refund window and at a credit check: the states it may end in, with the reason of a void;
# and by how much a network that was told too early may show too much.
STORIES: dict[str, tuple[list[tuple[str, dict[str, str]]], set[str], set[str], set[Decimal | None]]] = {
    "refunded": (
        [("refund", {})],
        {"delivered", "voided: refunded"},
        {"voided: refunded", "voided: unconfirmed"},
        {Decimal("49.90")},
    ),
    "cancelled": (
        [("cancel", {})],
        {"delivered", "voided: cancelled"},
        {"voided: cancelled", "voided: unconfirmed"},
        {Decimal("49.90")},
    ),
    "refunded in part": (
        [("refund", {"amount": "10.00", "currency": "EUR"})],
        {"delivered"},
        {"voided: unconfirmed"},
        {None, Decimal("10.00")},
    ),
    "won": (
        [("chargeback", {"outcome": "opened"}), ("chargeback", {"outcome": "won"})],
        {"delivered"},
        {"voided: unconfirmed"},
        {None},
    ),
    "lost": (
        [("chargeback", {"outcome": "opened"}), ("chargeback", {"outcome": "lost"})],
        {"delivered", "voided: charged_back"},
        {"voided: charged_back", "voided: unconfirmed"},
        {Decimal("49.90")},
    ),
    "approved": (
        [("credit_check", {"outcome": "approved"})],
        {"delivered"},
        {"delivered", "voided: unconfirmed"},
        {None},
    ),
    "declined": (
        [("credit_check", {"outcome": "declined"})],
        {"delivered", "voided: declined"},
        {"voided: declined", "voided: unconfirmed"},
        {Decimal("49.90")},
    ),
}
NAMES = list(STORIES)


@pytest.fixture(scope="module")
def sink() -> Iterator[SinkThread]:
    with SinkThread() as running:
        yield running


def _story(number: int) -> str:
    return NAMES[number % len(NAMES)]


def _order(number: int) -> dict[str, Any]:
    tokens = {destination: f"{TOKEN}{destination}{number}" for destination in ("window", "credit")}
    return conversion(f"e{number}", click_ids=tokens)


def _tell(ground: Ground, worker: int) -> None:
    """Each event in a message of its own; of every third order the signals come first."""
    for number in range(worker, ORDERS, TELLERS):
        told = [
            signal(kind, f"s{number}-{place}", f"e{number}", **fields)
            for place, (kind, fields) in enumerate(STORIES[_story(number)][0])
        ]
        order = _order(number)
        for event in [*told, order] if number % 3 == 0 else [order, *told]:
            result = ground.take(event)
            assert result.signals + result.conversions == 1, f"{event} was not taken: {result}"


def _release(ground: Ground, gun: Gun, done: threading.Event) -> None:
    while not done.is_set():
        rescue(ground.engine, gun.renderer)
        gun.fire_due(limit=20)


def test_every_order_ends_in_one_of_its_allowed_ways(engine: Engine, sink: SinkThread) -> None:
    """Whoever wins a race, sink and ledger agree with what is on record, and nothing is lost on the way."""
    ground = cleared(engine)
    ground.apply(
        contract("window", generic_url(sink.url), hold=REFUND),
        contract("credit", generic_url(sink.url), hold=CREDIT),
    )
    done = threading.Event()
    with ground.firing() as gun, ThreadPoolExecutor(TELLERS + CLOCKS) as threads:
        clocks = [threads.submit(_release, ground, gun, done) for _ in range(CLOCKS)]
        others = [threads.submit(_tell, ground, worker) for worker in range(TELLERS)]
        try:
            for each in others:
                each.result(60)
        finally:
            done.set()
        for each in clocks:
            each.result(60)
        gun.fire_until_final()
    ends: dict[str, int] = {}
    for number in range(ORDERS):
        _, at_window, at_credit, lost = STORIES[_story(number)]
        for destination, allowed in (("window", at_window), ("credit", at_credit)):
            row = ground.postback(f"e{number}", destination)
            end = f"voided: {row.void_reason}" if row.state == "voided" else row.state
            assert end in allowed, f"{_story(number)}: e{number} at {destination} ended {end}"
            if end == "delivered":
                assert row.lost in lost, f"{_story(number)}: e{number} at {destination} lost {row.lost}"
            ends[f"{_story(number)} {end}"] = ends.get(f"{_story(number)} {end}", 0) + 1
    delivered = ground.one("SELECT count(*) FROM postbacks WHERE state = 'delivered'")
    assert len(sink.client.credits()) == delivered
    assert [entry.says for entry in read_ledger(engine).entries if not entry.balances] == []
    # A race that only one side ever wins is none.
    assert {"refunded delivered", "refunded voided: refunded"} <= ends.keys(), ends
