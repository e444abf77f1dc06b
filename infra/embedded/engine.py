"""What a keeper asks of a server, whichever it is, and how it starts one on a free port."""

import os
import random
import secrets
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from infra.embedded.errors import EngineError, log_tail
from infra.embedded.folders import Folders, State
from infra.embedded.locks import is_held, open_lock, try_lock

HOST = "127.0.0.1"
# Recovery after a power cut replays up to max_wal_size of changes before the server answers.
READY_WITHIN_S = 120.0
_POLL_S = 0.01
_PORT_TRIES = 6
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


class Engine(Protocol):
    """One kind of server, ready to be started in one installation."""

    folders: Folders
    version: str
    stop_signals: tuple[int, int]
    """The signal for a clean stop, and the one for a server that does not heed it."""

    def prepare(self) -> None:
        """Make the folders startable. Called with no server running, before each start."""
        ...

    def command(self, port: int) -> tuple[list[str], bytes]:
        """The command to run, account and all, and what to write to its standard input."""
        ...

    def serving(self, port: int) -> int | None:
        """The pid of this installation's server if it answers on ``port``, else None."""
        ...


class Server:
    """A running server: our own child, or one that an earlier keeper left behind."""

    def __init__(self, engine: Engine, pid: int, child: subprocess.Popen[bytes] | None) -> None:
        """``child`` is None for a server that was adopted."""
        self.pid = pid
        self._child = child
        self._engine = engine

    def alive(self) -> bool:
        """Say whether the server still runs; a child that ended is reaped."""
        if self._child is not None:
            return self._child.poll() is None
        return is_held(self._engine.folders.lock("server")) and _exists(self.pid)

    def stop(self, within_s: float = 60.0) -> None:
        """End the server cleanly, or by force once ``within_s`` has passed."""
        for number in self._engine.stop_signals:
            if not self.alive():
                return
            os.kill(self.pid, number)
            deadline = time.monotonic() + within_s
            while self.alive() and time.monotonic() < deadline:
                time.sleep(_POLL_S)


def ensure_password(folders: Folders) -> str:
    """Return the engine's password, made at random on first use."""
    password = folders.read_password()
    if password is None:
        password = secrets.token_urlsafe(24)
        folders.write_password(password)
    return password


def adopt(engine: Engine, port: int | None, within_s: float = 30.0) -> Server | None:
    """Return the server that a keeper which was killed left behind, or None once there is none.

    One that is starting or stopping is waited for. Raises EngineError if something still holds the server's
    lock and answers nothing: a second server on the same files would ruin them.
    """
    deadline = time.monotonic() + within_s
    while is_held(engine.folders.lock("server")):
        pid = engine.serving(port) if port is not None else None
        if port is not None and pid is not None:
            _publish(engine, port, pid)
            return Server(engine, pid, None)
        if time.monotonic() > deadline:
            lock = engine.folders.lock("server")
            raise EngineError(
                f"an earlier {engine.folders.name} server neither answers nor ends",
                f"see which processes hold it (`fuser -v {lock}`) and end them",
                log_tail(engine.folders.log),
            )
        time.sleep(_POLL_S)
    return None


def launch(engine: Engine, port: int | None, *, may_move: bool) -> tuple[Server, int]:
    """Start the server and wait until it answers; returns it and its port.

    ``port`` is where it served last, and is tried first. With ``may_move`` another is taken if a stranger sits
    on it; without, its users know it by this port and it is only tried again.
    """
    error = EngineError(f"{engine.folders.name} did not start", "read its log")
    for _ in range(_PORT_TRIES):
        if port is None or (may_move and not _is_free(port)):
            port = free_port()
        engine.prepare()
        # Before it starts: should this keeper be killed now, the next one knows where to look for the server.
        _publish(engine, port, None)
        logged = engine.folders.log.stat().st_size if engine.folders.log.exists() else 0
        server = _spawn(engine, port)
        try:
            if _answers(engine, server, port):
                _publish(engine, port, server.pid)
                return server, port
        except OSError:  # a full disk: a server that nobody was told of must not go on by itself
            server.stop()
            raise
        server.stop(within_s=5.0)
        log = log_tail(engine.folders.log, since=logged)
        error = EngineError(
            f"{engine.folders.name} {engine.version} did not start", f"read {engine.folders.log}", log
        )
        if "in use" not in log:  # neither the port nor shared memory of a server that is just ending
            break
        if may_move and "ddress already in use" in log:
            port = None
        time.sleep(0.2)
    raise error


def free_port() -> int:
    """Return a port nobody listens on, outside the range outgoing connections take theirs from.

    Inside that range a client that keeps trying to reach a stopped server can be given the very port it
    calls as its own, connect to itself, and keep the server from coming back.
    """
    try:
        low = int(_EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        low = 32768
    if low > 16_000:  # else somebody widened that range, and there is no room below it
        for _ in range(50):
            port = random.randrange(15_000, low)  # noqa: S311 — spreads installations, keeps no secret
            if _is_free(port):
                return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _publish(engine: Engine, port: int, pid: int | None) -> None:
    engine.folders.write_state(State(port, pid, os.getpid(), engine.version))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do: a connection that lingers in TIME_WAIT does not occupy the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _spawn(engine: Engine, port: int) -> Server:
    command, first_input = engine.command(port)
    folders = engine.folders
    lock = open_lock(folders.lock("server"))
    log = folders.open_log(folders.log)
    try:
        _take_from_leftovers(lock)
        child = subprocess.Popen(  # noqa: S603 — a server program found by binaries, no shell
            command,
            cwd=folders.home,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=(lock,),  # the server and its children hold the lock from here on, we do not
            start_new_session=True,
        )
    finally:
        os.close(log)
        os.close(lock)
    assert child.stdin is not None
    with suppress(BrokenPipeError), child.stdin as stdin:  # it may have failed already, and its log says why
        stdin.write(first_input)
    return Server(engine, child.pid, child)


def _take_from_leftovers(lock: int, within_s: float = 5.0) -> None:
    # Children of a server that was killed end by themselves within moments; should one not, the server's own
    # interlock refuses to start beside it.
    deadline = time.monotonic() + within_s
    while not try_lock(lock) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _answers(engine: Engine, server: Server, port: int) -> bool:
    deadline = time.monotonic() + READY_WITHIN_S
    while server.alive() and time.monotonic() < deadline:
        if engine.serving(port) == server.pid:
            return True
        time.sleep(_POLL_S)
    return False


def _environment() -> dict[str, str]:
    # The caller's PG* variables and locale would change what the servers do.
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
