"""PostgreSQL and Valkey that come with Holdfire: started on first use, stopped with the last user.

Each engine has a *keeper*, a small detached process that starts it, restarts it on the same port if it dies,
and stops it once no process uses it. All processes with the same data folder share the same engines.
"""

from pathlib import Path

from infra.embedded.errors import EngineError
from infra.embedded.folders import Folders, write_private
from infra.embedded.status import EnginesStatus, EngineStatus, engines_status
from infra.embedded.use import Engines, use_engines

__all__ = [
    "EngineError",
    "EngineStatus",
    "Engines",
    "EnginesStatus",
    "empty_broker_on_restart",
    "engines_status",
    "use_engines",
]


def empty_broker_on_restart(data_dir: Path) -> None:
    """Have the embedded Valkey start empty the next time it starts, once: all that it kept is removed.

    For showing that nothing depends on the broker. A running Valkey goes on undisturbed until it ends.
    """
    folders = Folders(data_dir.absolute(), "valkey")
    folders.create()
    write_private(folders.empty_marker, b"")
