"""Whoever retains or erases may die at any instant: the next run goes on, and nothing is lost, doubled or half known."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from infra.store.keeping.erasing import Order
from infra.store.ledger import read_ledger
from schemas.keeping import Policy
from tests.integration.aged import age
from tests.integration.killed import EVERYTHING, KEEP
from tests.integration.scenes import Scene, contract, conversion
from tests.integration.test_erasing import readable
from tests.integration.test_retention import count, emptied, lives
from workers import erasing
from workers.retaining import retain

ORDERS = 12

WRITER = "infra.archives.writing:ArchiveWriter"
MONTH_GOES = [
    (f"{WRITER}.add", "after", 4),
    (f"{WRITER}.finish", "after", 2),
    ("infra.store.keeping.archiving.record", "after", 1),
    ("infra.store.keeping.dropping._all_archived", "after", 1),
    ("workers.retaining.drop_month", "after", 1),
]
OTHERS_STAY = [
    (f"{WRITER}.finish", "before", 1),
    ("workers.retaining.verify", "after", 2),
    ("infra.store.keeping.archiving.record", "after", 2),
    ("infra.store.keeping.archiving._count_gone", "before", 2),
    ("infra.store.keeping.archiving.remove_block", "after", 1),
]
ERASING = [
    ("workers.erasing.seal", "after", 1),
    ("infra.store.keeping.scrubbing._any", "after", 1),
    ("infra.store.keeping.erasing_archives.rewrite", "after", 1),
    ("infra.store.keeping.erasing_archives._forget_replaced", "before", 1),
    ("workers.erasing.finish", "before", 1),
    ("infra.store.keeping.erasing._bare_signals", "before", 1),
    ("workers.erasing.finish", "after", 1),
]


@pytest.fixture
def scene(engine: Engine) -> Scene:
    """A dozen orders of one destination and one of another that keeps everything, all of them old."""
    emptied(engine)
    scene = Scene(engine)
    scene.apply(contract("push-eu"), contract("forever"))
    scene.take(*(conversion(f"order-{number:02}", "push") for number in range(ORDERS)))
    for prepared in scene.fire():
        scene.settle(prepared)
    scene.take(conversion("kept", "forever"))
    scene.settle(scene.fire_one("kept"))
    age(engine)
    return scene


def die(scene: Scene, folder: Path, what: str, step: tuple[str, str, int]) -> bool:
    """Run it in a process that dies at the step; whether it met the step."""
    url = scene.engine.url.render_as_string(hide_password=False)
    name, when, nth = step
    ended = subprocess.run(
        [sys.executable, "-m", "tests.integration.killed", url, str(folder), what, name, when, str(nth)],
        check=False, capture_output=True, timeout=60,
    )  # fmt: skip
    assert ended.returncode in {0, -signal.SIGKILL}, ended.stderr.decode()
    return ended.returncode != 0


def named(step: Any) -> str:
    return "-".join(map(str, step)).rpartition(":")[2].replace("infra.store.", "")


@pytest.mark.parametrize("step", MONTH_GOES, ids=named)
def test_a_month_that_was_leaving_when_its_process_died_leaves(
    scene: Scene, tmp_path: Path, step: tuple[str, str, int]
) -> None:
    """At each step everything can be read and the ledger balances; the next run ends what was begun."""
    _dies_and_goes_on(scene, tmp_path, step, EVERYTHING)
    assert count(scene, "attempts") == 0


@pytest.mark.parametrize("step", OTHERS_STAY, ids=named)
def test_rows_that_were_leaving_when_their_process_died_leave(
    scene: Scene, tmp_path: Path, step: tuple[str, str, int]
) -> None:
    """The same where another destination keeps its own in the month."""
    _dies_and_goes_on(scene, tmp_path, step, KEEP)
    assert count(scene, "attempts") == 1


def _dies_and_goes_on(scene: Scene, folder: Path, step: tuple[str, str, int], policy: Policy) -> None:
    before = lives(scene)
    assert die(scene, folder, "retain" if policy is KEEP else "retain everything", step)
    assert lives(scene) == before
    assert read_ledger(scene.engine).balances
    retain(scene.engine, policy, folder)
    assert lives(scene) == before
    assert read_ledger(scene.engine).balances
    assert count(scene, "archives WHERE gone_at IS NULL") == 0
    assert len(list(folder.iterdir())) == count(scene, "archives")


@pytest.mark.parametrize("step", ERASING, ids=named)
def test_an_erasure_that_was_killed_goes_on(scene: Scene, tmp_path: Path, step: tuple[str, str, int]) -> None:
    """The same order ends it, and nothing of the person is left in any file."""
    retain(scene.engine, KEEP, tmp_path)
    order = "order-order-07"
    assert die(scene, tmp_path, order, step)
    assert read_ledger(scene.engine).balances
    erasing.erase(scene.engine, Order("order", order, "dpo", "a request"))
    assert readable(scene.engine, tmp_path, ("order-07",)) == []
    assert read_ledger(scene.engine).balances
    assert count(scene, "erasures WHERE ended_at IS NULL") == 0
    assert len(list(tmp_path.iterdir())) == count(scene, "archives")
