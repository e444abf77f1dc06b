"""Lines of text with a little style: coloured in a terminal, plain when piped, never cut or wrapped by us."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import orjson
import typer
from rich.console import Console
from rich.text import Text

from schemas.lifecycle import State

STATE_STYLES: dict[str, str] = {
    State.HELD: "cyan",
    State.LEASED: "cyan",
    State.FIRING: "cyan",
    State.RETRYING: "yellow",
    State.DELIVERED: "green",
    State.REJECTED: "red",
    State.DEAD: "red",
    State.VOIDED: "magenta",
    State.EXPIRED: "magenta",
    State.IN_DOUBT: "bold red",
    State.DUPLICATE: "dim",
}

Part = str | tuple[str, str]
"""Text, or text with a Rich style."""


def line(*parts: Part) -> Text:
    """One line. Foreign text must have gone through ``words.visible`` before."""
    return Text.assemble(*parts)


def label(name: str, *parts: Part, indent: int = 2, width: int = 11) -> Text:
    """An aligned ``name   value`` line."""
    return line(" " * indent, (name.ljust(width), "dim"), "  ", *parts)


def stdout() -> Console:
    """A console on what standard output is now."""
    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False)


def show(lines: Iterable[Text]) -> None:
    """Print lines whole, however long: what is copied from a terminal must be what was recorded."""
    console = stdout()
    for each in lines:
        console.print(each, soft_wrap=True)


def print_json(values: Iterable[dict[str, Any]]) -> None:
    for value in values:
        sys.stdout.write(_inert(orjson.dumps(value).decode()) + "\n")


def _inert(text: str) -> str:
    r"""JSON in which what could steer a terminal, or turn text round, is written as ``\uXXXX``: the value is the same."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else "".join(f"\\u{unit:04x}" for unit in _units(one)) for one in text
    )


def _units(one: str) -> Iterable[int]:
    """The UTF-16 units of a character: JSON has no other way of writing it out."""
    raw = one.encode("utf-16-be", "surrogatepass")
    return (int.from_bytes(raw[at : at + 2]) for at in range(0, len(raw), 2))


def say(words: str) -> None:
    """To the person, not into the listing: standard error."""
    typer.echo(words, err=True)
