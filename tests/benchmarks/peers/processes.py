"""Starting, freezing and ending the contestants' processes."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

_ROOT = Path(__file__).resolve().parents[3]
_READY = "ready "


def say_ready(word: str = "") -> None:
    """Tell the parent, on standard output, that this process can take work."""
    print(f"{_READY}{word}", flush=True)


class Child:
    """A Python module run as a process of its own, which says `ready` on standard output once it is."""

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.name = module.rpartition(".")[2]
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": str(_ROOT), **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def wait_ready(self, timeout_s: float = 30) -> str:
        """Wait for the ready line and return the word after it.

        Raises RuntimeError if the process ends, and TimeoutError if it stays silent.
        """
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._process.stdout], [], [], left)[0]:
                break
            line = self._process.stdout.readline()
            if not line:
                raise RuntimeError(f"{self.name} ended with {self._process.wait()} before it was ready")
            if line.startswith(_READY):
                return line.removeprefix(_READY).strip()
        raise TimeoutError(f"{self.name} was not ready within {timeout_s} s")

    def tell(self) -> None:
        """Send an empty line to its standard input: go on."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def stop(self, grace_s: float = 10) -> None:
        """Ask it to end, and end it and all it started if it does not within `grace_s` seconds."""
        family = _family(self.pid) if self._process.poll() is None else []
        thaw([self.pid])
        self._process.terminate()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            for process in family:
                if process.is_running():
                    process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def freeze(pids: Iterable[int]) -> None:
    """Stop the process trees where they stand, so that a queue can be filled before the clock starts."""
    for process in _families(pids):
        process.send_signal(signal.SIGSTOP)


def thaw(pids: Iterable[int]) -> None:
    """Let frozen process trees run on."""
    for process in _families(pids):
        process.send_signal(signal.SIGCONT)


def peak_rss_mb(pids: Iterable[int]) -> float:
    """The highest resident memory that any one process of these trees has had so far, in MB (10⁶ bytes)."""
    return max((_peak_bytes(process.pid) for process in _families(pids)), default=0) / 1e6


def _peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _families(pids: Iterable[int]) -> list[psutil.Process]:
    return [process for pid in pids for process in _family(pid)]


def _family(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
