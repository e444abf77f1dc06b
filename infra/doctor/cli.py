"""The command ``holdfire doctor``."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Annotated

import orjson
import typer

from infra.doctor.examination import examine
from infra.doctor.finding import Finding

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(
    no_start: Annotated[
        bool, typer.Option("--no-start", help="Do not start embedded engines that do not run.")
    ] = False,
    archives: Annotated[
        bool, typer.Option("--archives", help="Read every archive whole: slow, and sure.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is found and what is wrong, each with a remedy. Exits 1 if something fails.

    Embedded engines that do not run are started, and stopped again afterwards.
    """
    findings = []
    for finding in examine(start=not no_start, read_archives=archives):
        findings.append(finding)
        if not as_json:
            _print(finding)
    counts = Counter(finding.level for finding in findings)
    if as_json:
        report = {"ok": not counts["fail"], "findings": [asdict(finding) for finding in findings]}
        typer.echo(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode())
    else:
        typer.echo(f"\n{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} failing")
    if counts["fail"]:
        raise typer.Exit(1)


def _print(finding: Finding) -> None:
    typer.echo(
        f"{typer.style(f'{finding.level:<4}', fg=_COLOURS[finding.level])}  {finding.about}: {finding.says}"
    )
    if finding.remedy is not None:
        typer.echo(f"      → {finding.remedy}")
