"""The store and the model where places are paused: the same stories, and both say the same of everything."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg2
import pytest
from hypothesis import seed, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from tests.model.bench import Bench
from tests.model.places import PLACES
from tests.model.plants import Plant
from tests.model.stopped import STOPPED_PLANTS, stopped_machine_on
from tests.model.test_model import LIBRARIES, STORIES, quiet_bench


@pytest.fixture(scope="module")
def bench(engine: Engine) -> Iterator[Bench]:
    yield from quiet_bench(engine)


@pytest.mark.timeout(600)  # a minute where nothing else runs
def test_no_story_with_pauses_tells_store_and_model_apart(bench: Bench) -> None:
    """Over a thousand random steps; and what the rules are about is met in them."""
    machine = stopped_machine_on(bench)
    met = {"stopped at the gate", "drawn from a queue", "resumed with a queue"}
    told = settings(STORIES, derandomize=False, max_examples=40, stateful_step_count=50)
    try:
        for number in range(LIBRARIES):
            run_state_machine_as_test(seed(number)(machine), settings=told)
            if met <= machine.situations.keys():
                break  # one library of stories nearly always has all of it
    except AssertionError as error:
        raise AssertionError("\n".join([str(error), *machine.last])) from None
    assert machine.steps >= 1_000
    assert met <= machine.situations.keys(), machine.situations


@pytest.mark.parametrize("plant", STOPPED_PLANTS, ids=lambda plant: plant.name)
def test_a_planted_bug_of_stopping_is_found(
    plant: Plant, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.put(monkeypatch)
    scene = [place for place in PLACES if place.name == plant.at]
    quick = settings(STORIES, derandomize=False, max_examples=100, stateful_step_count=40)

    def tell_libraries() -> None:
        for number in range(LIBRARIES):
            run_state_machine_as_test(seed(number)(stopped_machine_on(bench, scene)), settings=quick)

    with pytest.raises((AssertionError, DBAPIError, psycopg2.Error)):
        tell_libraries()
