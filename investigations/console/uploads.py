"""Reports that were sent to the console and are not reconciled yet: files of its own folder, each under a name of chance.

A file belongs to the account that sent it, is forgotten with its reconciliation, and after a day in any case.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

LARGEST = 512 * 1024 * 1024
"""Bytes of a report: about five million rows."""
KEPT_S = 24 * 3600.0
_TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")


@dataclass(frozen=True, slots=True)
class Upload:
    """``path`` is the file as it was sent; ``name`` what its sender calls it, never a path."""

    token: str
    path: Path
    name: str
    destination: str
    account: str


def keep(folder: Path, source: BinaryIO, name: str, destination: str, account: str) -> Upload:
    """Keep what was sent, and forget what was sent long ago. Raises OSError where the folder takes nothing."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _forget_old(folder)
    token = secrets.token_urlsafe(16)
    own = folder / token
    own.mkdir(mode=0o700)
    shown = re.split(r"[/\\]", name)[-1][:200] or "report"
    with (own / "file").open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    about = {"name": shown, "destination": destination, "account": account}
    (own / "about.json").write_text(json.dumps(about), "utf-8")
    return Upload(token, own / "file", shown, destination, account)


def find(folder: Path, token: str, account: str) -> Upload | None:
    """What this account sent under this token, while it is kept."""
    if not _TOKEN.fullmatch(token):
        return None
    own = folder / token
    try:
        about: dict[str, Any] = json.loads((own / "about.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if about["account"] != account:
        return None
    return Upload(token, own / "file", about["name"], about["destination"], account)


def forget(upload: Upload) -> None:
    shutil.rmtree(upload.path.parent, ignore_errors=True)


def _forget_old(folder: Path) -> None:
    for own in folder.iterdir():
        if _TOKEN.fullmatch(own.name) and time.time() - own.stat().st_mtime > KEPT_S:
            shutil.rmtree(own, ignore_errors=True)
