"""Under which account a server runs.

An ordinary user's servers run as that user. Root's may not: PostgreSQL refuses uid 0, and a broker has no use
for it either. They run under uid 65534, which every system has, so no account is added anywhere; only the
server's own folder is given to it. Where the data or the programs lie below a folder that only root may enter,
the server gets the one capability that lets it pass, instead of a change of that folder's mode.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from infra.embedded.errors import EngineError

_UNPRIVILEGED_ID = 65534

# In order of power: pass nothing; search and read anything; and, only where the programs may be run by root
# alone or a container withholds the second, override file permissions as such.
_LADDER = (None, "dac_read_search", "dac_override")

# access(2), which `test -x` and initdb use, is what fails first where the way is barred.
_CAN_RUN = 'cd "$1" && test -r "$2" && test -x "$2" && exec "$2" --version'


@dataclass(frozen=True)
class Account:
    """Who a server runs as: ``prefix`` goes before its command, ``owner`` owns its folder (None: ourselves)."""

    prefix: tuple[str, ...]
    owner: tuple[int, int] | None


def give_home(home: Path, program: Path) -> Account:
    """Create the server's folder if needed and return the account that can run ``program`` in it.

    Raises EngineError if there is no such account, with what the last try said.
    """
    home.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() != 0:
        return Account((), None)
    stat = home.stat()
    owner = (stat.st_uid, stat.st_gid)
    if stat.st_uid == 0:
        owner = (_UNPRIVILEGED_ID, _UNPRIVILEGED_ID)
        os.chown(home, *owner, follow_symlinks=False)
    return Account(_lowest_rung(owner, home, program), owner)


def _lowest_rung(owner: tuple[int, int], home: Path, program: Path) -> tuple[str, ...]:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise EngineError(
            "Holdfire runs as root, PostgreSQL refuses to, and there is no setpriv to change the account with",
            "install util-linux, or run Holdfire as an ordinary user,"
            " or set HOLDFIRE_DATABASE_URL and HOLDFIRE_BROKER_URL to servers of yours",
        )
    said = ""
    for capability in _LADDER:
        prefix = (setpriv, *_options(owner, capability), "--")
        tried = subprocess.run(  # noqa: S603 — a fixed program, no shell text from outside
            [*prefix, "/bin/sh", "-c", _CAN_RUN, "sh", home, program],
            capture_output=True,
            text=True,
            check=False,
        )
        if tried.returncode == 0:
            return prefix
        said = tried.stderr.strip() or said
    raise EngineError(
        f"uid {owner[0]} cannot run {program} in {home}, whatever capability this process gives it ({said})",
        "run Holdfire as an ordinary user, or set HOLDFIRE_DATA_DIR to a folder other accounts may enter,"
        " or set HOLDFIRE_DATABASE_URL and HOLDFIRE_BROKER_URL to servers of yours",
    )


def _options(owner: tuple[int, int], capability: str | None) -> list[str]:
    options = [f"--reuid={owner[0]}", f"--regid={owner[1]}", "--clear-groups"]
    if capability is not None:
        # Ambient: it outlives exec and reaches initdb's and the postmaster's children. no_setuid_fixup:
        # without it access(2) judges an ordinary uid without its capabilities, and initdb "finds" no postgres.
        options += [
            f"--inh-caps=+{capability}",
            f"--ambient-caps=+{capability}",
            "--securebits=+no_setuid_fixup",
        ]
    return options
