"""Release passes: how much goes out at once, and what is said of the rest."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from schemas.postback import Lease
from tests.integration.ground import Ground, cleared, contract, conversion, generic_url
from workers import releasing
from workers.releasing import HINTS_WAITING_MAX, Released, release_all, release_due

NOWHERE = generic_url("http://127.0.0.1:9")


@pytest.fixture
def ground(engine: Engine) -> Ground:
    """Five postbacks due, oldest first."""
    ground = cleared(engine)
    ground.apply(contract("d", NOWHERE))
    ground.take(*(conversion(f"e{number}") for number in range(5)))
    return ground


def test_a_pass_releases_nothing_while_enough_hints_wait(ground: Ground) -> None:
    """What is claimed and not fired soon only grows old under its lease."""
    hints: list[Lease] = []
    released = release_due(
        ground.engine, hints_waiting=lambda: HINTS_WAITING_MAX, hint=hints.append, lease_s=15
    )
    assert (released, hints, ground.states()) == (0, [], {"held": 5})


def test_releasing_all_goes_on_as_hints_are_taken(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two a pass and a queue that is full every other time, all five go out, each once."""
    monkeypatch.setattr(releasing, "PER_CLAIM", 2)
    hints: list[Lease] = []
    waiting = iter([0, HINTS_WAITING_MAX] * 10)
    released = release_all(ground.engine, hints_waiting=lambda: next(waiting), hint=hints.append, lease_s=15)
    assert released == Released(5, 0)
    assert sorted(number for lease in hints for number in lease.postback_ids) == [1, 2, 3, 4, 5]


def test_what_stays_due_because_nobody_takes_the_hints_is_told(ground: Ground) -> None:
    """It ends when its patience does, and says how many are left."""
    released = release_all(
        ground.engine,
        hints_waiting=lambda: HINTS_WAITING_MAX,
        hint=lambda lease: None,
        lease_s=15,
        patience_s=0.3,
    )
    assert released == Released(0, 5)
