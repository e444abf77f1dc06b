"""Rate limits at the sink: what is over the rate waits as a row, in order, and spends no attempt."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pytest
from sqlalchemy import Engine

from infra.sink import SinkThread
from schemas.pacing import BURST_S
from tests.integration.ground import Ground, Gun, cleared, contract, conversion, generic_url, until

PER_SECOND = 40
WANTED = 90


@pytest.fixture
def ground(engine: Engine) -> Ground:
    return cleared(engine)


@pytest.fixture
def guns(ground: Ground) -> Iterator[tuple[Gun, Gun]]:
    with ground.firing() as one, ground.firing() as other:
        yield one, other


def test_two_workers_together_keep_one_destinations_rate(ground: Ground, guns: tuple[Gun, Gun]) -> None:
    """In no second do more requests arrive than the rate and its burst allow, and each is made once."""
    with SinkThread() as sink:
        ground.apply(contract("d", generic_url(sink.url), limits={"per_second": PER_SECOND}))
        ground.take(*(conversion(f"e:{number}") for number in range(WANTED)))

        def all_delivered() -> bool:
            for gun in guns:
                gun.fire_due()
            return bool(ground.one("SELECT count(*) = :n FROM postbacks WHERE state = 'delivered'", n=WANTED))

        until(all_delivered, within_s=30)
        arrived = sorted(datetime.fromisoformat(one["received_at"]) for one in sink.client.requests())
    assert len(arrived) == WANTED
    assert ground.one("SELECT max(attempts) FROM postbacks") == 1
    # A request may come late on a busy machine but never early, so a second's worth is let slide by a tenth.
    allowed = PER_SECOND * (1 + BURST_S + 0.1) + 1
    for place, first in enumerate(arrived):
        within = sum((at - first).total_seconds() < 1 for at in arrived[place:])
        assert within <= allowed, f"{within} requests within a second"
