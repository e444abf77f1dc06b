"""Many lives read at once are the lives read one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Engine, text

from infra.store import evidence
from infra.store.evidence import read_life, read_lives
from tests.integration.exhibits import set_out
from tests.integration.scenes import contract, conversion, refund


def test_many_lives_are_the_same_as_one_by_one(engine: Engine) -> None:
    """Each with its own signals, repeats, matches, acts and attempts; what is not there is left out."""
    scene = set_out(engine)
    scene.apply(contract("push-eu"), contract("xandr-main", wait="14d"))
    scene.take(conversion("partly", "xandr"), conversion("nameless-order", "xandr", order_id=None))
    scene.take(refund("r-partly", "order-partly", amount="9.90", currency="EUR"))
    scene.take(refund("r-plain", "order-elsewhere", conversion_event_id="plain"))
    scene.take(conversion("plain", "push"), conversion("again", "push"))
    with engine.connect() as connection:
        ids = list(connection.execute(text("SELECT id FROM conversions ORDER BY id")).scalars())
    together = list(read_lives(engine, [*ids, 999_999]))
    assert [life.conversion.id for life in together] == ids
    for life in together:
        alone = read_life(engine, life.conversion.id)
        assert alone is not None
        assert replace(alone, now=life.now) == life
    assert sum(len(life.signals) for life in together) == 2
    assert sum(len(life.repeats) for life in together) == 2


def test_the_choice_of_exchanges_is_made_life_by_life(engine: Engine) -> None:
    """The last attempt of each conversion, not the last of all."""
    with engine.connect() as connection:
        ids = list(connection.execute(text("SELECT id FROM conversions ORDER BY id")).scalars())
    for life in read_lives(engine, ids, hops_of=lambda made: made[-1:]):
        attempts = [attempt for postback in life.postbacks for attempt in postback.attempts]
        assert [attempt.hops_read for attempt in attempts] == [False] * (len(attempts) - 1) + [True] * bool(
            attempts
        )


def test_batches_follow_one_another(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch's end falls between two lives and loses none."""
    with engine.connect() as connection:
        ids = list(connection.execute(text("SELECT id FROM conversions ORDER BY id")).scalars())
    monkeypatch.setattr(evidence, "BATCH", 3)
    assert [life.conversion.id for life in read_lives(engine, iter(ids))] == ids


def test_nothing_asked_is_nothing_read(engine: Engine) -> None:
    assert list(read_lives(engine, [])) == []
    assert read_life(engine, 999_999) is None
