"""How much processor time whole process trees have used, ended children included."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class _Sample:
    """One process at one moment. `ticks` is its own time and that of the children it has waited for."""

    parent: int
    born: int
    ticks: int


class CpuMeter:
    """Counts user and system seconds, by name, that process trees use between entering and `read` or leaving.

    A live process reports its own time and, once it has waited for a child, all of that child's. So the sum over
    the live processes of a tree is right whatever came and went in it, except for those whose parent had gone
    before them: nobody inherits their time. A thread therefore looks every `interval_s`, remembers everyone it
    has seen (also when they leave the tree), and keeps the last figure of whoever ends without a living parent.
    What such a process used since the last look is lost, at most `interval_s` of it.

    A tree ends where another name's root begins, so roots may lie below each other; read before stopping the
    inner ones, since the outer one inherits their time when it has waited for them. Linux only (`/proc`).
    """

    def __init__(self, pids_by_name: Mapping[str, Iterable[int]], interval_s: float = 0.25) -> None:
        if not Path("/proc/self/stat").exists():
            raise RuntimeError("CpuMeter reads /proc, which is not here: run the benchmarks on Linux")
        roots = {name: list(pids) for name, pids in pids_by_name.items()}
        every_root = {pid for pids in roots.values() for pid in pids}
        self._trees = {name: _Tree(pids, every_root) for name, pids in roots.items()}
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_again, name="cpu-meter", daemon=True)
        self._base: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._base = self._totals()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def read(self) -> dict[str, float]:
        """Seconds used since the meter was entered, by name."""
        return {name: total - self._base[name] for name, total in self._totals().items()}

    def _totals(self) -> dict[str, float]:
        with self._lock:
            return {name: tree.ticks() / _TICKS_PER_S for name, tree in self._trees.items()}

    def _look_again(self) -> None:
        while not self._ended.wait(self._interval_s):
            self._totals()


class _Tree:
    def __init__(self, roots: list[int], boundaries: set[int]) -> None:
        self._roots = roots
        self._boundaries = boundaries
        self._seen: dict[int, _Sample] = {}
        self._gone = 0

    def ticks(self) -> int:
        """Ticks used by everyone who was ever in the tree."""
        now = self._steady_look()
        for pid, last in self._seen.items():
            if pid in now:
                continue
            if pid in self._roots or last.parent not in now:
                self._gone += last.ticks
            if pid in self._roots:
                self._roots.remove(pid)  # its number may be given to a stranger
        self._seen = now
        return self._gone + sum(sample.ticks for sample in now.values())

    def _steady_look(self) -> dict[int, _Sample]:
        """Look until the same processes are there twice in a row: none was counted both alive and as waited for."""
        before = self._look()
        for _ in range(5):
            after = self._look()
            if after.keys() == before.keys():
                return after
            before = after
        return before

    def _look(self) -> dict[int, _Sample]:
        found: dict[int, _Sample] = {}
        # Taken from the end, and parents always before children: a child that is waited for in between is then
        # missing (and looked for again) rather than counted twice. Those who lost their parent come last.
        queue = [*(pid for pid in reversed(self._seen) if pid not in self._roots), *self._roots]
        while queue:
            pid = queue.pop()
            if pid in found or (sample := _sample(pid)) is None:
                continue
            if pid in self._seen and self._seen[pid].born != sample.born:
                continue  # the number was given to a stranger
            found[pid] = sample
            queue += [child for child in _children(pid) if child not in self._boundaries]
        return found


def _sample(pid: int) -> _Sample | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # Fields as in proc(5), counted from the state: the name before it may hold spaces and brackets.
    fields = stat.rpartition(")")[2].split()
    user, system, children_user, children_system = (int(field) for field in fields[11:15])
    return _Sample(
        parent=int(fields[1]), born=int(fields[19]), ticks=user + system + children_user + children_system
    )


def _children(pid: int) -> list[int]:
    """Children of every thread of a process: they belong to the thread that forked them."""
    children: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += [int(child) for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return children
