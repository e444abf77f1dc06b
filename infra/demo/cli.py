"""``holdfire demo``: the main job on sample orders, ending by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from infra.demo.show import run
from infra.settings import load_settings


def register(app: typer.Typer) -> None:
    app.command("demo")(demo)


def demo(
    folder: Annotated[
        Path | None, typer.Option(help="Where the demo keeps its data and logs; emptied first.")
    ] = None,
) -> None:
    """Hold, fire, kill and rescue some 340 sample orders, and hold the ledger against the networks' own count."""
    if not run(folder or load_settings().data_dir / "demo", Console()):
        raise typer.Exit(1)
