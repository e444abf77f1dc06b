"""Where an installation keeps its engines, and how its files are written.

::

    <data_dir>/postgres/cluster     PostgreSQL's own folder        (belongs to the engine's account)
    <data_dir>/valkey/              the append-only files           (belongs to the engine's account)
    <data_dir>/logs/*.log           what the servers and their keepers said
    <data_dir>/run/NAME.json        where engine NAME serves, kept up to date by its keeper
    <data_dir>/run/NAME.password    its password, mode 0600
    <data_dir>/run/NAME.{start,users,keeper,server}   locks, see infra.embedded.locks
    <data_dir>/run/valkey.empty     asks for an empty broker at its next start
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

EngineName = Literal["postgres", "valkey"]
_LOG_BYTES_KEPT = 20_000_000


@dataclass(frozen=True)
class State:
    """Where one engine serves; ``pid`` is None while it is stopped or being restarted."""

    port: int
    pid: int | None
    keeper_pid: int
    version: str


@dataclass(frozen=True)
class Folders:
    """The files of one engine of one installation."""

    data_dir: Path
    name: EngineName

    @property
    def home(self) -> Path:
        """The folder that the server itself writes to."""
        return self.data_dir / self.name

    @property
    def run(self) -> Path:
        """The folder of locks, states and passwords."""
        return self.data_dir / "run"

    @property
    def log(self) -> Path:
        """The server's log."""
        return self.data_dir / "logs" / f"{self.name}.log"

    @property
    def keeper_log(self) -> Path:
        """The keepers' log."""
        return self.data_dir / "logs" / "keeper.log"

    @property
    def empty_marker(self) -> Path:
        """Its presence asks the keeper to start this engine empty, once."""
        return self.run / f"{self.name}.empty"

    def lock(self, purpose: Literal["start", "users", "keeper", "server"]) -> Path:
        """The lock file for ``purpose``."""
        return self.run / f"{self.name}.{purpose}"

    def create(self) -> None:
        """Create the data folder and those for locks and logs; what exists keeps its mode and owner."""
        if not self.data_dir.exists():
            self.data_dir.mkdir(parents=True, exist_ok=True)
            # As root the servers run under another account, which must pass through but not look around.
            self.data_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
        for folder in (self.run, self.log.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
            _own_like_parent(folder)

    def read_state(self) -> State | None:
        """Return what the keeper wrote last, or None if there is nothing readable (a torn disk, a first start)."""
        try:
            return State(**json.loads((self.run / f"{self.name}.json").read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def write_state(self, state: State) -> None:
        """Replace the state as a whole, so that no reader ever sees half of one."""
        write_private(self.run / f"{self.name}.json", json.dumps(asdict(state)).encode())

    def read_password(self) -> str | None:
        """Return the engine's password, or None while it has none."""
        try:
            return (self.run / f"{self.name}.password").read_text().strip() or None
        except FileNotFoundError:
            return None

    def write_password(self, password: str) -> None:
        """Keep the engine's password, readable by this account only."""
        write_private(self.run / f"{self.name}.password", password.encode())

    def open_log(self, path: Path) -> int:
        """Open a log for appending and return its descriptor; a big one is put aside first."""
        if path.exists() and path.stat().st_size > _LOG_BYTES_KEPT:
            path.replace(path.with_suffix(".log.1"))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        _own_like_parent(path)
        return descriptor


def write_private(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` with mode 0600, all or nothing, even through a power cut."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    _own_like_parent(fresh)
    fresh.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _own_like_parent(path: Path) -> None:
    # Root that works in an ordinary user's data folder must not leave files there that the user can't open.
    if os.geteuid() == 0:
        parent = path.parent.stat()
        os.chown(path, parent.st_uid, parent.st_gid, follow_symlinks=False)
