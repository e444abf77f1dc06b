"""The import law: holdfire > producers | workers | investigations > infra > schemas. Shown to hold, and to bite."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("producers", "workers", "investigations", "infra", "schemas")
_LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def _lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """The law as pyproject.toml has it, over the packages in ``folder``."""
    return subprocess.run(
        [sys.executable, "-c", _LINT, "--no-cache"],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The tree's packages in a folder of their own, where something may be planted."""
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("holdfire.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_the_tree_keeps_the_law() -> None:
    """No import in the tree breaks the law."""
    linted = _lint(ROOT)
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize(
    ("planted_in", "statement", "named"),
    [
        ("schemas/hold.py", "import workers", "schemas.hold -> workers"),
        ("infra/clock.py", "import producers", "infra.clock -> producers"),
        ("producers/client.py", "import investigations", "producers.client -> investigations"),
        ("investigations/words.py", "import holdfire", "investigations.words -> holdfire"),
        ("schemas/hold.py", "import sqlalchemy", "schemas.hold -> sqlalchemy"),
        ("schemas/hold.py", "import time", "schemas.hold -> time"),
    ],
)
def test_the_law_bites(copied: Path, planted_in: str, statement: str, named: str) -> None:
    """One planted import that the law forbids is refused by name."""
    with (copied / planted_in).open("a") as module:
        module.write(f"\n{statement}\n")
    linted = _lint(copied)
    assert linted.returncode == 1, linted.stdout + linted.stderr
    assert named in linted.stdout
