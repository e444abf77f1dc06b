"""Timelines as docs/windows.md draws them, read line by line: what comes in, what goes out, and when.

    day 0    ──►┐      purchase 49.90 EUR       comes in, and something is held from now on
    day 3    ──►│      refund 10.00 EUR         comes in while something is held
    day 14      └──►   fires 39.90              goes out at that instant, and nothing is held any more

A line without an instant belongs to the one above it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

WIDEST = 78
DAY_0 = datetime(2026, 3, 2, 12, tzinfo=UTC)

_LINE = re.compile(
    r"^(?P<when>\S.*?\S)? +(?P<coming>──►)?(?P<rail>[┐│├└])(?P<going>──[►┤])? +(?P<words>\S.*)$"
)
_PAUSE = re.compile(r"^(?: +│)?$")
_DAY = re.compile(r"^day (\d+)(?: \+(\d+)h)?$")
_DATE = "%a %d %b %Y %H:%M"


class UnreadableError(ValueError):
    """A line that is no part of a drawing."""


@dataclass
class Moment:
    """One instant: what comes in then, what goes out, and whether something is held afterwards."""

    at: datetime
    comes: list[str] = field(default_factory=list)
    goes: list[str] = field(default_factory=list)
    held: bool = False


def read_drawing(lines: Iterable[str], timezone: str) -> list[Moment]:
    """The moments of a timeline in order. Dates are of ``timezone``. Raises ``UnreadableError`` naming the line."""
    moments: list[Moment] = []
    rails = set()
    for line in lines:
        rails |= {place for place, sign in enumerate(line) if sign in "┐│├└"}
        if len(line) > WIDEST or len(rails) > 1:
            raise UnreadableError(f"wider than {WIDEST}, or its rail is bent: {line}")
        if _PAUSE.match(line):
            if not moments or moments[-1].held != bool(line):
                raise UnreadableError("a rail where nothing is held, or none where something is")
            continue
        found = _LINE.match(line)
        if found is None or bool(found["coming"]) == bool(found["going"]):
            raise UnreadableError(f"no part of a drawing: {line!r}")
        _add(moments, found, timezone)
    return moments


def _add(moments: list[Moment], found: re.Match[str], timezone: str) -> None:
    was_held = bool(moments) and moments[-1].held
    if found["when"]:
        moments.append(Moment(_instant(found["when"], timezone), held=was_held))
    moment, rail, words = moments[-1], found["rail"], found["words"]
    if found["coming"]:
        if rail not in "┐│" or (rail == "│") != was_held:
            raise UnreadableError(
                f"comes in by {rail}, but something is {'' if was_held else 'not '}held: {words}"
            )
        moment.comes.append(words)
        moment.held = True
        return
    if rail not in "├└" or not was_held:
        raise UnreadableError(
            f"goes out by {rail}, but something is {'' if was_held else 'not '}held: {words}"
        )
    moment.goes.append(f"┤ {words}" if found["going"].endswith("┤") else words)
    moment.held = rail == "├"


def _instant(text: str, timezone: str) -> datetime:
    if found := _DAY.match(text):
        return DAY_0 + timedelta(days=int(found[1]), hours=int(found[2] or 0))
    try:
        local = datetime.strptime(text, _DATE).replace(tzinfo=ZoneInfo(timezone))
    except ValueError as error:
        raise UnreadableError(f"{text!r} is no instant: {error}") from None
    if local.strftime(_DATE) != text:
        raise UnreadableError(f"{text!r} is a {local:%A}")
    return local.astimezone(UTC)


# What comes in ------------------------------------------------------------------------------------

_CONVERSION = re.compile(
    r"^(?P<label>(?P<name>[a-z_]+)(?: (?P<which>[A-Z]|\d+))?)(?: (?P<value>\d+\.\d\d) (?P<currency>[A-Z]{3}))?"
    r"(?:, clicked (?P<days>\d+)d before)?$"
)
_REFUND = re.compile(r"^refund (?P<amount>in full|\d+\.\d\d (?P<currency>[A-Z]{3})(?P<so_far> so far)?)$")
_WORD = re.compile(r"^(?P<kind>cancel|dispute|credit check)(?: (?P<outcome>[a-z]+))?$")
_TYPES = {"cancel": "cancel", "dispute": "chargeback", "credit check": "credit_check"}


@dataclass
class Script:
    """Turns the words of a drawing into events, as producers send them."""

    token: str
    """What ``click_ids`` names the click by: the network."""
    partner: bool
    conversions: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By label: ``purchase``, ``purchase A``, ``rebill 2``."""
    signals: int = 0

    def event(self, words: str, at: datetime) -> dict[str, Any]:
        """Raises ``UnreadableError`` for words that nobody knows."""
        head, _, of = words.partition(" of ")
        shared = {"version": 1, "occurred_at": at.isoformat()}
        if found := _REFUND.match(head):
            return shared | self._named(of) | self._refund(found)
        if found := _WORD.match(head):
            kind = {"type": _TYPES[found["kind"]]} | (
                {"outcome": found["outcome"]} if found["outcome"] else {}
            )
            return shared | self._named(of) | kind
        if found := _CONVERSION.match(words):
            event = shared | self._conversion(found, at)
            self.conversions[found["label"]] = event
            return event
        raise UnreadableError(f"nothing that could come in: {words!r}")

    def _conversion(self, found: re.Match[str], at: datetime) -> dict[str, Any]:
        which = found["which"] or "A"
        event: dict[str, Any] = {
            "type": "conversion",
            "source": "shop",
            "event_id": found["label"],
            "name": found["name"],
            "order_id": "1000" if self.partner else f"100{which}",
            "value": found["value"],
            "currency": found["currency"],
        }
        if self.partner:
            event |= {"partner_id": "p-7", "sequence": int(which)}
        else:
            event["click_ids"] = {self.token: f"click-{which}"}
        if found["days"]:
            event["clicked_at"] = (at - timedelta(days=int(found["days"]))).isoformat()
        return event

    def _named(self, label: str) -> dict[str, Any]:
        """How a signal names the conversion with that label, or the only one."""
        conversion = self.conversions[label] if label else next(iter(self.conversions.values()))
        names = {name: conversion[name] for name in ("order_id", "sequence") if name in conversion}
        self.signals += 1
        return names | {"source": "billing", "event_id": f"signal-{self.signals}"}

    def _refund(self, found: re.Match[str]) -> dict[str, Any]:
        if not found["currency"]:
            return {"type": "refund"}
        is_ = "cumulative" if found["so_far"] else "delta"
        amount = found["amount"].split(" ")[0]
        return {"type": "refund", "amount": amount, "currency": found["currency"], "amount_is": is_}


# The page -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """A policy of the page, and one drawing of what it does; ``said`` is what a console shows instead of a drawing."""

    title: str
    number: int
    toml: str
    drawing: str = ""
    said: str = ""


_SECTION = re.compile(r"^### (.+)$", re.MULTILINE)
_BLOCK = re.compile(r"^```(toml|timeline|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read_page(page: str) -> Iterator[Recipe]:
    """Every drawing of the page with the configuration above it."""
    parts = _SECTION.split(page)
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        toml, number = "", 0
        for kind, text in _BLOCK.findall(body):
            if kind == "toml":
                toml = text
                continue
            number += 1
            shown = {"drawing": text} if kind == "timeline" else {"said": text}
            yield Recipe(title, number, toml, **shown)
