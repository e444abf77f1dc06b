"""The networks that take corrections, played by the sink: what they count in the end is what stands."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine

from infra.sink import SinkThread
from tests.integration.ground import Ground, cleared, contract, conversion, signal

SECRET = {"env": "HF_TEST_KEY"}
PATHS: dict[str, tuple[str, dict[str, Any]]] = {
    "everflow": ("/everflow/", {"nid": "1", "reversal_url": "@/everflow/reversal"}),
    "affise": ("/affise/postback", {"status": "1"}),
    "keitaro": ("/keitaro", {"key": SECRET}),
    "scaleo": ("/scaleo/track/conv", {"token": SECRET, "change_url": "@/scaleo/track/conv-change"}),
}
"""Where the sink plays each network, and the settings of its account there, ``@`` for the sink's address."""


@pytest.fixture
def sink() -> Iterator[SinkThread]:
    with SinkThread() as running:
        yield running


@pytest.fixture
def ground(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Ground:
    monkeypatch.setenv("HF_TEST_KEY", "a-long-test-key")
    return cleared(engine)


def _apply(ground: Ground, sink: SinkThread, network: str) -> None:
    path, given = PATHS[network]
    settings = {
        name: value.replace("@", sink.url) if isinstance(value, str) else value
        for name, value in given.items()
    }
    ground.apply(contract("d", f"{sink.url}{path}", network=network, settings=settings))


def _refund(amount: str | None) -> dict[str, Any]:
    given = {} if amount is None else {"amount": amount, "currency": "EUR"}
    return signal("refund", f"refund-{amount}", "e", **given)


def _left(sink: SinkThread, network: str) -> Decimal | None:
    (left,) = sink.client.totals(network).values()
    return left


@pytest.mark.parametrize("network", PATHS)
def test_what_was_given_back_after_delivery_counts_for_nothing_at_the_network(
    ground: Ground, sink: SinkThread, network: str
) -> None:
    """The retraction reaches the very conversion that was delivered, with the account's own parameters."""
    _apply(ground, sink, network)
    ground.take(conversion("e", network))
    with ground.firing() as gun:
        gun.fire()
        assert _left(sink, network) == Decimal("49.90")
        ground.take(_refund(None))
        gun.fire()
    assert _left(sink, network) is None
    assert ground.states() == {"delivered": 2}


@pytest.mark.parametrize(
    ("network", "left"),
    [("keitaro", "39.90"), ("scaleo", "39.90"), ("everflow", "49.90"), ("affise", "49.90")],
)
def test_what_was_given_back_in_part_is_restated_or_known_to_be_lost(
    ground: Ground, sink: SinkThread, network: str, left: str
) -> None:
    """The new total where the network takes one; elsewhere what it shows too much is written down."""
    _apply(ground, sink, network)
    ground.take(conversion("e", network))
    with ground.firing() as gun:
        gun.fire()
        ground.take(_refund("10.00"))
        gun.fire()
    assert _left(sink, network) == Decimal(left)
    lost = ground.one("SELECT lost FROM postbacks WHERE adjusts IS NULL")
    assert lost == (None if left == "39.90" else Decimal("10.00"))
