"""The demo is the chaos test: it must hold its own promise, end by itself, and leave nothing running."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(170)
def test_the_demo_kills_and_rescues_and_every_account_agrees(tmp_path: Path) -> None:
    """Exit code 0 says that sink and ledger agree conversion by conversion; what it shows is there."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFIRE_")}
    shown = subprocess.run(
        [sys.executable, "-m", "holdfire", "demo", "--folder", str(tmp_path / "demo")],
        env=own,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "killed with SIGKILL while its postbacks were on the wire" in shown.stdout
    assert "emptied of every queued hint" in shown.stdout
    assert "WorkerLost" in shown.stdout
    assert "The ledger balances." in shown.stdout
    assert "none that was voided fired; none fired early" in shown.stdout
