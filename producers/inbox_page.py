"""How ``holdfire inbox`` shows what came in: for people, or as JSON."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from infra.store.deliveries import Again, Kept
from schemas.ids import show

_MASKED = {"headers", "body", "runs", "answer", "request_id", "key_id"}


def listed(kept: Kept) -> dict[str, Any]:
    """A request in a listing: without its headers and body."""
    values = {name: value for name, value in asdict(kept).items() if name not in _MASKED}
    return {
        "request_id": show("in", kept.request_id),
        **values,
        "received_at": _instant(kept.received_at),
        "bytes": len(kept.body),
        "ignored": kept.answer.get("ignored"),
        "repeats": kept.answer.get("repeats"),
        "problems": problems(kept.answer),
    }


def whole(kept: Kept) -> dict[str, Any]:
    """A request with all that is known of it; a body that is no text is base64."""
    try:
        body = {"body": kept.body.decode()}
    except UnicodeDecodeError:
        body = {"body_base64": base64.b64encode(kept.body).decode()}
    runs = [asdict(run) | {"ran_at": _instant(run.ran_at)} for run in kept.runs]
    return listed(kept) | {"headers": kept.headers, **body, "answer": kept.answer, "runs": runs}


def problems(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Every reason in what was answered."""
    return [problem for each in answer.get("rejected", []) for problem in each.get("problems", [each])]


def print_table(found: Sequence[Kept]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in (
        "id",
        "received",
        "kind",
        "source",
        "status",
        "accepted",
        "duplicates",
        "rejected",
        "about",
    ):
        table.add_column(heading, no_wrap=heading in {"id", "received"})
    for kept in found:
        table.add_row(
            show("in", kept.request_id),
            _instant(kept.received_at),
            kept.kind,
            kept.source or "",
            str(kept.status_code),
            str(kept.accepted),
            str(kept.duplicates),
            str(kept.rejected),
            _about(kept),
        )
    Console(highlight=False, markup=False).print(table)


def print_request(kept: Kept) -> None:
    """The request as it came, and below what came of it."""
    said = f"{show('in', kept.request_id)}  {kept.kind}  {kept.source or ''}  {_instant(kept.received_at)}"
    typer.echo(f"{said}  from {kept.peer or 'unknown'}\n")
    typer.echo(f"{visible(kept.method)} {visible(kept.target)}")
    for name, value in kept.headers:
        typer.echo(f"{visible(name)}: {visible(value)}")
    typer.echo(f"\n{_body(kept.body)}\n")
    typer.echo(
        f"answered {kept.status_code}: {kept.accepted} accepted, {kept.duplicates} known before, {kept.rejected} rejected"
    )
    _print_reasons(kept.answer)
    for run in kept.runs:
        typer.echo(
            f"run again {_instant(run.ran_at)} by {run.who}: {run.accepted} accepted, {run.duplicates} known before, "
            f"{run.rejected} rejected"
        )
        _print_reasons(run.answer)


def print_again(again: Again) -> None:
    counts = f"{len(again.enqueued)} new, {len(again.duplicates)} known before, {len(again.refused)} rejected"
    typer.echo(f"{show('in', again.request_id)}  {counts}")
    for refused in again.refused:
        for problem in refused.problems:
            typer.echo(f"  {problem}")
    if again.ignored:
        typer.echo(f"  ignored: {again.ignored}")


def print_json(values: Iterable[dict[str, Any]]) -> None:
    for value in values:
        sys.stdout.write(orjson.dumps(value).decode() + "\n")


def say(words: str) -> None:
    """To the person, not into the listing: standard error."""
    typer.echo(words, err=True)


def visible(text: str) -> str:
    """Foreign text as a terminal may show it."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


def _body(body: bytes) -> str:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return f"({len(body)} bytes that are no text; --json has them in base64)"
    return "\n".join(visible(line.replace("\t", "    ")) for line in text.split("\n"))


def _print_reasons(answer: dict[str, Any]) -> None:
    for problem in problems(answer):
        typer.echo(f"  {problem['field']}: {problem['reason']}. {problem['remedy']}")
    if answer.get("ignored"):
        typer.echo(f"  ignored: {answer['ignored']}")
    if answer.get("repeats"):
        typer.echo(f"  repeats {answer['repeats']}: nothing was taken again")


def _about(kept: Kept) -> str:
    if found := problems(kept.answer):
        return f"{found[0]['field']}: {found[0]['reason']}"
    if "repeats" in kept.answer:
        return f"repeats {kept.answer['repeats']}"
    return kept.answer.get("ignored") or ""


def _instant(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
