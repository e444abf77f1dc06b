"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Order = Annotated[str | None, typer.Option("--order", help="By order id.")]
ClickId = Annotated[str | None, typer.Option("--click-id", help="By click id, verbatim.")]
Event = Annotated[str | None, typer.Option("--event", help="By event id.")]
Source = Annotated[str | None, typer.Option("--source", help="Only from this source.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
