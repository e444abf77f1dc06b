"""The store and an independent model of the rules are told the same random stories, and never differ."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import psycopg2
import pytest
import structlog
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from tests.model.bench import Bench
from tests.model.machine import Machine
from tests.model.people import machine_on
from tests.model.places import PLACES, Place
from tests.model.plants import PLANTS, Plant

STORIES = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
    # A story in words is read sooner than a shrunk one is found.
    phases=[Phase.generate],
)


LIBRARIES = 8
"""Of a hundred stories each, in which a planted bug has to be found."""


def quiet_bench(engine: Engine) -> Iterator[Bench]:
    """The module's database. What it forgets in a crash nobody needs, and tens of thousands of log lines nobody reads."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f'ALTER DATABASE "{engine.url.database}" SET synchronous_commit = off'))
    engine.dispose()
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield Bench(engine)
    structlog.configure(**before)


@pytest.fixture(scope="module")
def bench(engine: Engine) -> Iterator[Bench]:
    yield from quiet_bench(engine)


@pytest.mark.timeout(600)  # a minute where nothing else runs
def test_no_story_tells_store_and_model_apart(bench: Bench) -> None:
    """Ten thousand random steps, and after each one both say the same of everything."""
    machine = machine_on(bench, people=False)
    _tell(machine, 270)
    assert machine.steps >= 10_000


@pytest.mark.timeout(600)  # a minute where nothing else runs
def test_no_story_with_people_in_it_tells_store_and_model_apart(bench: Bench) -> None:
    """They fire again what has ended, think better of it, and settle what is in doubt."""
    machine = machine_on(bench)
    _tell(machine, 120)
    met = {situation.partition(",")[0] for situation in machine.situations}
    assert "fired again" in met


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.name)
def test_a_planted_bug_is_found(plant: Plant, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is a little wrong is told apart from the model, or stopped by its own constraints."""
    plant.put(monkeypatch)
    scene = [place for place in PLACES if place.name == plant.at]
    with pytest.raises((AssertionError, DBAPIError, psycopg2.Error)):
        _tell_libraries(bench, scene, people=plant.people)


def _tell(machine: type[Machine], stories: int) -> None:
    try:
        run_state_machine_as_test(
            machine, settings=settings(STORIES, max_examples=stories, stateful_step_count=50)
        )
    except AssertionError as error:
        raise AssertionError("\n".join([str(error), *machine.last])) from None


def _tell_libraries(bench: Bench, scene: list[Place], *, people: bool) -> None:
    """Stories of fixed seeds, so that every run is the same; of several, so that no bug hangs on the luck of one."""
    quick = settings(STORIES, derandomize=False, max_examples=100, stateful_step_count=40)
    for number in range(LIBRARIES):
        machine = seed(number)(machine_on(bench, scene, people=people))
        run_state_machine_as_test(machine, settings=quick)
