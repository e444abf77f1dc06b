"""Applied destinations in the store: immutable versions, one of each current, taken up by every process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from infra.store import destinations
from infra.store.destinations import REFRESH_S, Destinations
from tests.integration.ground import Ground, cleared, contract, until

URL = "https://network.example/p?c={click_id}"


@pytest.fixture
def ground(engine: Engine) -> Ground:
    return cleared(engine)


def test_a_contract_comes_back_as_it_was_applied(ground: Ground) -> None:
    """Secret references, network, policy and rules included."""
    applied = contract(
        "d",
        URL + "&k={settings.key}",
        settings={"key": {"env": "HF_KEY"}, "other": {"file": "/run/secrets/other"}},
        hold={"kind": "refund", "wait": "14d"},
        auth={"kind": "bearer", "token": {"env": "HF_TOKEN"}},
        rules={"age_limit": {"wait": "30d"}, "answer": {"duplicate": ["409"]}},
        limits={"concurrency": 7},
    )
    ground.apply(applied)
    (version,) = Destinations(ground.engine).current()
    assert version.contract == applied
    assert (version.id, version.number) == (1, 1)


def test_applying_the_same_again_changes_nothing(ground: Ground) -> None:
    """No new version, no audit entry."""
    ground.apply(contract("d", URL))
    ground.apply(contract("d", URL))
    assert ground.one("SELECT count(*) FROM destination_versions") == 1
    assert ground.one("SELECT count(*) FROM audit") == 1


def test_a_change_is_a_new_version_that_names_its_fields(ground: Ground) -> None:
    """The old version stays readable by its id; the difference says which keys changed."""
    ground.apply(contract("d", URL))
    changed = contract("d", URL + "&x=1", events=["purchase", "signup"])
    (change,) = destinations.difference(ground.engine, {"d": changed})
    assert (change.kind, change.number) == ("changed", 1)
    assert set(change.fields) == {"destination.events", "destination.settings.url"}
    ground.apply(changed)
    held = Destinations(ground.engine)
    assert [version.number for version in held.current()] == [2]
    assert held.version(1).contract == contract("d", URL)


def test_a_destination_that_is_no_longer_named_is_retired_and_readable(ground: Ground) -> None:
    """It takes nothing new; what it holds can still be fired."""
    ground.apply(contract("d", URL), contract("e", URL))
    ground.apply(contract("e", URL))
    held = Destinations(ground.engine)
    assert [version.contract.name for version in held.current()] == ["e"]
    assert held.version(1).contract.name == "d"
    ground.apply(contract("d", URL), contract("e", URL))
    assert {(v.contract.name, v.number) for v in held_now(ground)} == {("d", 2), ("e", 1)}


def held_now(ground: Ground) -> list[destinations.DestinationVersion]:
    return Destinations(ground.engine).current()


def test_a_running_process_takes_a_new_version_up_within_seconds(ground: Ground) -> None:
    """No restart: the same reader shows version 2 shortly after it was applied elsewhere."""
    ground.apply(contract("d", URL))
    reader = Destinations(ground.engine)
    assert reader.current()[0].number == 1
    ground.apply(contract("d", URL + "&x=1"))
    until(lambda: reader.current()[0].number == 2, REFRESH_S + 2)


def test_four_who_apply_at_once_leave_one_current_version(ground: Ground) -> None:
    """They take turns: numbers have no gap and no repeat, and the audit has every change."""

    def apply(number: int) -> None:
        destinations.apply(ground.engine, {"d": contract("d", f"{URL}&x={number}")}, who=f"w{number}")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(apply, range(8)))
    assert [row.number for row in ground.rows("SELECT number FROM destination_versions ORDER BY 1")] == list(
        range(1, 9)
    )
    assert ground.one("SELECT count(*) FROM destination_versions WHERE current") == 1
    assert ground.one("SELECT count(DISTINCT who) FROM audit") == 8


def test_a_version_that_was_never_applied_is_a_key_error(ground: Ground) -> None:
    """It names the id."""
    with pytest.raises(KeyError, match="no destination version 99"):
        Destinations(ground.engine).version(99)
