"""How ``holdfire destinations`` shows what it found: for people, or as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from infra.store.destinations import Change
from infra.store.stopping.stopping import Stop
from schemas.destination import DestinationVersion
from schemas.exchange import Hop
from schemas.hold import HoldRule
from schemas.network import ADJUSTMENT_KINDS, Network
from schemas.postback import SettledAttempt
from schemas.problem import Problem


def print_findings(
    path: Path,
    names: Mapping[str, list[str]],
    problems: list[Problem],
    warnings: list[Problem],
    *,
    as_json: bool,
) -> None:
    """``names``: of the destinations and of the sources, under these words."""
    if as_json:
        found = {"problems": [asdict(one) for one in problems], "warnings": [asdict(one) for one in warnings]}
        print_json({"file": str(path), "ok": not problems, **names, **found})
        return
    for one in problems:
        typer.echo(f"problem  {one}", err=True)
    for one in warnings:
        typer.echo(f"warning  {one}", err=True)
    counted = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}" if problems else "no problems"
    found_names = [
        f"{len(each)} {word.removesuffix('s') if len(each) == 1 else word}, "
        for word, each in names.items()
        if not problems and (each or word == "destinations")
    ]
    typer.echo(f"{path}: {''.join(found_names)}{counted}", err=bool(problems))


def print_changes(changes: list[Change]) -> None:
    signs = {"added": "+", "changed": "~", "removed": "-", "unchanged": " "}
    words = {"removed": "retired: it takes no new events, what it holds still fires"}
    for change in changes:
        number = "" if change.number is None else f" (version {change.number})"
        fields = f": {', '.join(change.fields)}" if change.fields else ""
        typer.echo(
            f"{signs[change.kind]} {change.name}{number}  {words.get(change.kind, change.kind)}{fields}"
        )


NETWORK_COLUMNS = ("slug", "title", "confidence", "unverified", "protocols", "dedupe", "corrections", "docs")
DESTINATION_COLUMNS = (
    "name",
    "version",
    "network",
    "confidence",
    "unverified",
    "events",
    "hold",
    "dedupe",
    "corrections",
    "waiting",
    "stop",
)


MINOR_COLUMNS = ("docs", "unverified", "confidence", "corrections", "dedupe", "version", "protocols")
"""What a narrow terminal goes without, the first one first."""


def network_row(network: Network) -> dict[str, Any]:
    return network.model_dump(mode="json") | {"corrections": list(network.adjustments.all())}


def row(version: DestinationVersion, waiting: Mapping[str, int], stops: Mapping[str, Stop]) -> dict[str, Any]:
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
        "corrections": [kind for kind in ADJUSTMENT_KINDS if contract.adjustment(kind) is not None],
        "waiting": waiting.get(contract.name, 0),
        "stop": stop.words if (stop := stops.get(contract.name)) else "",
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
    if not rows:
        return
    cells = [columns, *(tuple(_cell(row[column]) for column in columns) for row in rows)]
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        # A pipe has no width to fit: a line a row, for grep.
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for line in cells:
            typer.echo("  ".join(map(str.ljust, line, widths)).rstrip())
        return
    cells, left_out = fitted(cells, console.width)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in cells[0]:
        table.add_column(
            column, overflow="fold", justify="right" if column in ("version", "waiting") else "left"
        )
    for line in cells[1:]:
        table.add_row(*line)
    console.print(table)
    if left_out:
        said = f"For want of room without: {', '.join(left_out)}; piped or with --json they are all there."
        typer.echo(said, err=True)


def fitted(lines: list[tuple[str, ...]], width: int) -> tuple[list[tuple[str, ...]], list[str]]:
    """``lines``, the first of them the headings, without the minor columns that find no room, and their names."""
    left_out: list[str] = []
    for name in MINOR_COLUMNS:
        if _width(lines) <= width:
            break
        if name in lines[0]:
            place = lines[0].index(name)
            lines = [line[:place] + line[place + 1 :] for line in lines]
            left_out.append(name)
    return lines, left_out


def _cell(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _width(lines: list[tuple[str, ...]]) -> int:
    return sum(max(map(len, column)) + 2 for column in zip(*lines, strict=True))


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
