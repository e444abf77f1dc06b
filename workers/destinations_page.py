"""How ``holdfire destinations`` shows what it found: for people, or as JSON."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from infra.store.destinations import Change
from schemas.destination import DestinationVersion
from schemas.exchange import Hop
from schemas.hold import HoldRule
from schemas.postback import SettledAttempt
from schemas.problem import Problem


def print_findings(
    path: Path, names: list[str], problems: list[Problem], warnings: list[Problem], *, as_json: bool
) -> None:
    if as_json:
        found = {"problems": [asdict(one) for one in problems], "warnings": [asdict(one) for one in warnings]}
        print_json({"file": str(path), "ok": not problems, "destinations": names, **found})
        return
    for one in problems:
        typer.echo(f"problem  {one}", err=True)
    for one in warnings:
        typer.echo(f"warning  {one}", err=True)
    counted = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}" if problems else "no problems"
    destinations = "" if problems else f"{len(names)} destination{'' if len(names) == 1 else 's'}, "
    typer.echo(f"{path}: {destinations}{counted}", err=bool(problems))


def print_changes(changes: list[Change]) -> None:
    signs = {"added": "+", "changed": "~", "removed": "-", "unchanged": " "}
    words = {"removed": "retired: it takes no new events, what it holds still fires"}
    for change in changes:
        number = "" if change.number is None else f" (version {change.number})"
        fields = f": {', '.join(change.fields)}" if change.fields else ""
        typer.echo(
            f"{signs[change.kind]} {change.name}{number}  {words.get(change.kind, change.kind)}{fields}"
        )


NETWORK_COLUMNS = ("slug", "title", "confidence", "unverified", "protocols", "dedupe", "docs")
DESTINATION_COLUMNS = (
    "name",
    "version",
    "network",
    "confidence",
    "unverified",
    "events",
    "hold",
    "dedupe",
    "waiting",
)


def row(version: DestinationVersion, waiting: dict[str, int]) -> dict[str, Any]:
    contract = version.contract
    hold = contract.destination.hold
    return {
        "name": contract.name,
        "version": version.number,
        "network": contract.network.slug,
        "confidence": contract.network.confidence,
        "unverified": list(contract.network.unverified),
        "events": list(contract.destination.events),
        "protocol": contract.protocol,
        "hold": "; ".join(
            [hold.words(), *(f"{_some(rule)}: {rule.hold.words()}" for rule in contract.destination.holds)]
        ),
        "dedupe": contract.dedupe,
        "waiting": waiting.get(contract.name, 0),
    }


def _some(rule: HoldRule) -> str:
    """Which events a rule is for."""
    band = [f"from {rule.min_value}"] * (rule.min_value is not None) + [f"under {rule.max_value}"] * (
        rule.max_value is not None
    )
    money = f"{' '.join(band)} {rule.currency}" if band else ""
    return " ".join(filter(None, [", ".join(rule.events), money]))


def print_rows(rows: list[dict[str, Any]], columns: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column, overflow="fold", justify="right" if column in ("version", "waiting") else "left"
        )
    for row in rows:
        cells = (row[column] for column in columns)
        table.add_row(*(", ".join(cell) if isinstance(cell, list) else str(cell) for cell in cells))
    if rows:
        # A pipe has no width to fit: a line a row, for grep.
        Console(width=None if sys.stdout.isatty() else 400, markup=False, highlight=False).print(table)


def print_attempt(attempt: SettledAttempt) -> None:
    for hop in attempt.hops:
        _print_hop(hop)
    if attempt.error_message:
        typer.echo(f"* {attempt.error_message}")
    typer.echo(f"\n{attempt.verdict}: {attempt.rule}")


def _print_hop(hop: Hop) -> None:
    connection = f"* connected to {hop.peer}" if hop.peer else f"* {hop.url}"
    typer.echo(" ".join(part for part in (connection, hop.tls_version) if part))
    for line in (*hop.request_head.split(b"\r\n"), hop.request_body):
        _print_line("> ", line)
    for line in (*hop.response_head.split(b"\r\n"), *hop.body.splitlines()):
        _print_line("< ", line)


def _print_line(sign: str, line: bytes) -> None:
    """What came over the wire must not reach the terminal as control characters."""
    if line:
        text = line.decode("utf-8", "backslashreplace")
        typer.echo(sign + "".join(char if char.isprintable() else "·" for char in text))


def print_json(value: object) -> None:
    def other(item: object) -> object:
        return item.decode("utf-8", "backslashreplace") if isinstance(item, bytes) else str(item)

    typer.echo(orjson.dumps(value, default=other, option=orjson.OPT_INDENT_2).decode())
