"""The meter that every benchmark figure of processor time comes from."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.benchmarks.peers.metering import CpuMeter

_BURN = """
import os, signal, subprocess, sys, time
def burn(seconds):
    while time.process_time() < seconds: pass
def used():
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
def tell(word): print(word, flush=True)
"""
_TICK_S = 0.03  # a process's time is shown in whole ticks of 10 ms, user and system apart


class _Spoken:
    """A process that does one step for each line it is given and answers each with a line."""

    def __init__(self, code: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _BURN + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def heard(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def step(self) -> str:
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)
        return self.heard()


def _wait_for_end_of(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        deadline = time.monotonic() + 5
        while process.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline, f"process {pid} did not end"
            time.sleep(0.001)


@pytest.fixture
def speak() -> Iterator[Callable[[str], _Spoken]]:
    spoken: list[_Spoken] = []

    def start(code: str) -> _Spoken:
        spoken.append(_Spoken(code))
        return spoken[-1]

    yield start
    for each in spoken:
        each.process.terminate()
        each.process.communicate()


def test_children_that_came_and_went_are_counted_once(speak: Callable[[str], _Spoken]) -> None:
    """A tree's time is its own and that of every child it started and waited for, and nothing twice."""
    child = "[sys.executable, '-c', 'import time\\nwhile time.process_time() < 0.2: pass']"
    process = speak(
        f"tell('up'); input(); before = used(); burn(0.1); [subprocess.run({child}) for _ in range(2)]\n"
        "tell(used() - before); input()"
    )
    process.heard()
    with CpuMeter({"tree": [process.process.pid]}, interval_s=0.02) as meter:
        truth = float(process.step())
        assert meter.read()["tree"] == pytest.approx(truth, abs=_TICK_S)
    assert truth > 0.4


def test_time_spent_before_is_not_counted(speak: Callable[[str], _Spoken]) -> None:
    """What a process used before the meter was entered stays out."""
    process = speak("burn(0.3); tell('burnt'); input()")
    process.heard()
    with CpuMeter({"tree": [process.process.pid]}) as meter:
        assert meter.read()["tree"] <= _TICK_S


def test_an_orphan_stays_in_its_tree(speak: Callable[[str], _Spoken]) -> None:
    """A process whose parent ended before it still counts, and no less once it has ended itself."""
    process = speak(
        "if os.fork() == 0:\n"
        "    orphan = os.fork()\n"
        "    if orphan == 0: input(); burn(0.3); tell(used()); os._exit(0)\n"
        "    tell(f'{os.getpid()} {orphan}'); signal.pause()\n"
        "os.wait(); tell('alone'); signal.pause()"
    )
    parent, orphan = map(int, process.heard().split())
    with CpuMeter({"tree": [process.process.pid]}, interval_s=0.02) as meter:
        os.kill(parent, signal.SIGTERM)
        assert process.heard() == "alone"
        truth = float(process.step())
        _wait_for_end_of(orphan)
        assert meter.read()["tree"] >= truth - 2 * _TICK_S


def test_a_root_that_has_ended_keeps_its_time(speak: Callable[[str], _Spoken]) -> None:
    """Stopping a worker before the meter is read takes nothing from it."""
    process = speak("tell('up'); input(); before = used(); burn(0.3); tell(used() - before); input()")
    process.heard()
    with CpuMeter({"tree": [process.process.pid]}) as meter:
        truth = float(process.step())
        meter.read()
        process.step()
        process.process.wait()
        assert meter.read()["tree"] >= truth - _TICK_S


def test_a_root_below_another_is_counted_under_its_own_name_only(speak: Callable[[str], _Spoken]) -> None:
    """A worker's time is not also that of the process that started it."""
    process = speak(
        "pid = os.fork()\nif pid == 0: input(); burn(0.3); tell('burnt'); os.read(0, 1); os._exit(0)\n"
        "tell(pid); os.wait()"
    )
    inner = int(process.heard())
    with CpuMeter({"outer": [process.process.pid], "inner": [inner]}) as meter:
        process.step()
        used = meter.read()
    assert used["inner"] > 0.2
    assert used["outer"] <= _TICK_S
