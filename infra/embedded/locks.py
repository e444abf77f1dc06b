"""The four locks of one engine. The kernel drops a lock with its holder, however that one died.

``start``
    held while somebody looks whether a keeper is there and starts one if not.
``users``
    shared: one for each process that uses the engine. Who gets it exclusively knows that nobody does.
``keeper``
    exclusive: held by the keeper for its whole life.
``server``
    exclusive: handed to the server and its children, so it is held as long as any of them lives. Unlike a
    pid in a file, it cannot be mistaken for a stranger's after a power cut.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.embedded.errors import EngineError

_POLL_S = 0.01


def open_lock(path: Path) -> int:
    """Open (or create) a lock file and return its close-on-exec descriptor."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Take the lock if it is free now."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(descriptor: int) -> None:
    """Give the lock back, in every process that shares this descriptor."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def take_lock(path: Path, *, within_s: float, shared: bool = False) -> int:
    """Wait for the lock and return its descriptor; raises EngineError after ``within_s`` seconds."""
    descriptor = open_lock(path)
    deadline = time.monotonic() + within_s
    while not try_lock(descriptor, shared=shared):
        if time.monotonic() > deadline:
            os.close(descriptor)
            raise EngineError(
                f"{path} has been locked by another process for {within_s:.0f} s",
                f"see who holds it (`fuser -v {path}`) and end that process",
            )
        time.sleep(_POLL_S)
    return descriptor


@contextmanager
def locked(path: Path, *, within_s: float) -> Iterator[None]:
    """Hold the lock exclusively for the length of a ``with`` block."""
    descriptor = take_lock(path, within_s=within_s)
    try:
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Say whether somebody holds the lock exclusively; a missing file is held by nobody."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(descriptor, shared=True)
    finally:
        os.close(descriptor)
