"""This machine: versions, disk, and the embedded engines' state before anything is started."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

from infra.doctor.finding import Finding, fail, ok, warn
from infra.embedded.status import EngineStatus, engines_status
from infra.settings import Settings
from infra.version import VERSION

DISK_LOW_BYTES = 2 * 1024**3
DISK_OUT_BYTES = 256 * 1024**2
_TITLES = {"postgres": "PostgreSQL", "valkey": "Valkey"}


def versions() -> Finding:
    return ok("versions", f"Holdfire {VERSION}, Python {platform.python_version()}, {platform.system()}")


def disk(data_dir: Path) -> Finding:
    """Room where the embedded engines keep their data."""
    there = next(folder for folder in (data_dir, *data_dir.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    says = f"{free / 1024**3:.1f} GiB free for {data_dir}"
    remedy = "free some space, or set HOLDFIRE_DATA_DIR to a folder on a larger disk"
    if free < DISK_OUT_BYTES:
        return fail("disk", says, remedy)
    return warn("disk", says, remedy) if free < DISK_LOW_BYTES else ok("disk", says)


def embedded_engines(settings: Settings, *, start: bool) -> list[Finding]:
    """Those that the settings leave to us. ``start``: whether they are about to be started for this examination."""
    found = engines_status(settings.data_dir)
    findings = [disk(settings.data_dir)]
    if settings.database_url is None:
        findings.append(_engine(found.postgres, start=start))
    if settings.broker_url is None:
        findings.append(_engine(found.valkey, start=start))
    return findings


def _engine(status: EngineStatus, *, start: bool) -> Finding:
    about = f"embedded {_TITLES[status.name]}"
    if status.problem is not None:
        return fail(about, status.problem, "mend that, or name a server of your own in HOLDFIRE_*_URL")
    if status.running:
        return ok(about, f"{status.version} runs, pid {status.pid}, port {status.port}")
    version = status.binary.version if status.binary else "unknown version"
    if start:
        return ok(about, f"{version} was not running; started for this examination")
    return warn(about, f"{version} does not run", "start it with `holdfire up`, or leave out --no-start")
