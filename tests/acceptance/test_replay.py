"""Firing again at the command line, in processes of its own, while another process fires."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from infra.sink import SinkThread
from tests.integration.ground import Ground, cleared, contract, conversion, generic_url, until

ONCE = {"attempts": 1, "base": "100ms", "factor": 2.0, "cap": "1s", "horizon": "1m"}
WHY = ("--reason", "the network is back", "--as", "anna")
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def sink() -> Iterator[SinkThread]:
    with SinkThread() as running:
        yield running


@pytest.fixture
def ground(engine: Engine, sink: SinkThread) -> Ground:
    """Forty postbacks that are dead, at a network that is back."""
    ground = cleared(engine)
    ground.apply(contract("d", generic_url(sink.url), retry=ONCE))
    sink.client.plan([{"behave": "status:503", "times": 1}])
    ground.take(*(conversion(f"e{n}") for n in range(40)))
    with ground.firing() as gun:
        gun.fire_until_final()
    return ground


@pytest.fixture
def start(database_url: str, tmp_path: Path) -> Iterator[Start]:
    """Start a command as a process that heeds Ctrl-C, also where this one does not, as in a script's background."""
    heeded = signal.signal(signal.SIGINT, signal.default_int_handler)
    started: list[subprocess.Popen[str]] = []
    environment = os.environ | {"HOLDFIRE_DATABASE_URL": database_url, "NO_COLOR": "1"}

    def begin(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "holdfire", *arguments],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    signal.signal(signal.SIGINT, heeded)
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)


def test_a_person_fires_again_and_waits_for_all_of_it(ground: Ground, sink: SinkThread, start: Start) -> None:
    """The command ends when the last one has been delivered, and says so."""
    process = start("replay", "--state", "dead", "--yes", "--per-second", "200", "--wait", "--json", *WHY)
    with ground.firing() as gun:
        until(lambda: ground.states().get("retrying", 0) + ground.states().get("delivered", 0) == 40, 60)
        gun.fire_until_final(60)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    found = json.loads(out)
    assert (found["status"], found["came_to"], found["fired"]) == ("done", {"delivered": 40}, 40)
    assert len(sink.client.credits()) == 40


def test_who_waits_may_leave_and_come_back(ground: Ground, start: Start) -> None:
    """Ctrl-C ends the waiting, not the run: it says how to go on with it, and how to end it."""
    process = start("replay", "--state", "dead", "--yes", "--per-second", "0.01", "--wait", *WHY)
    until(lambda: ground.states().get("retrying") == 40, 60)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "`holdfire replay --resume rn_1` does the rest, `holdfire replays stop rn_1` puts back" in err
    assert ground.states() == {"retrying": 40}
    stopped, _ = start("replays", "stop", "rn_1", "--reason", "not today").communicate(timeout=60)
    assert stopped.splitlines()[0] == "Put back 40."
    assert ground.states() == {"dead": 40}
    dead, _ = start("dead", "--json").communicate(timeout=60)
    assert json.loads(dead)["postbacks"] == 40
