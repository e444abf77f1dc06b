"""Failure plans: which requests are answered badly, how often, and which are held at the gate.

A rule matches, behaves, and says how many times. Counting is the plan's only state, so the same
requests in the same order always meet the same behaviour; ``one_in`` does not even depend on the order.
"""

from __future__ import annotations

import zlib
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any

from infra.sink.behaviours import RESET_ON_CONNECT, Chosen, choose
from infra.sink.errors import SinkConfigError, require_table
from infra.sink.profiles import PROFILES


@dataclass(frozen=True, slots=True)
class Sighting:
    """What rules may match on."""

    profile: str
    click_id: str
    order_id: str
    path: str


@dataclass(slots=True)
class Match:
    """A condition; every field that is set has to hold."""

    profile: str = ""
    click_id: str = ""
    order_id: str = ""
    path: str = ""
    """Prefix of the path."""
    nth_request: int = 0
    """Only the nth request that meets the fields above."""
    every_request: int = 0
    """Each nth request that meets the fields above."""
    every_click_id: int = 0
    """All requests of each nth distinct click id that meets the fields above, in order of first sight."""
    one_in: int = 0
    """Click ids whose CRC-32 is a multiple of this: about one in n, the same ones in every run."""
    _requests: int = 0
    _ordinals: dict[str, int] = field(default_factory=dict)

    def takes(self, seen: Sighting) -> bool:
        """Whether ``seen`` meets the condition. Call once a request: it counts."""
        if self.profile and seen.profile != self.profile:
            return False
        if self.click_id and seen.click_id != self.click_id:
            return False
        if self.order_id and seen.order_id != self.order_id:
            return False
        if self.path and not seen.path.startswith(self.path):
            return False
        return self._takes_ordinal(seen)

    def _takes_ordinal(self, seen: Sighting) -> bool:
        self._requests += 1
        if self.nth_request and self._requests != self.nth_request:
            return False
        if self.every_request and self._requests % self.every_request:
            return False
        if self.every_click_id:
            ordinal = self._ordinals.setdefault(seen.click_id, len(self._ordinals) + 1)
            if not seen.click_id or ordinal % self.every_click_id:
                return False
        return not (self.one_in and zlib.crc32(seen.click_id.encode()) % self.one_in)


def read_match(where: str, value: object) -> Match:
    """A Match from a JSON table. Raises SinkConfigError."""
    kinds = {one.name: type(one.default) for one in fields(Match) if not one.name.startswith("_")}
    table = require_table(where, value, tuple(kinds))
    for name, given in table.items():
        if kinds[name] is int and (not isinstance(given, int) or isinstance(given, bool) or given < 1):
            raise SinkConfigError(f"{where}.{name}", f"is {given!r}", "Use a whole number from 1 on.")
        if kinds[name] is str and not isinstance(given, str):
            raise SinkConfigError(f"{where}.{name}", f"is {given!r}", "Use a string.")
    if table.get("profile") and table["profile"] not in PROFILES:
        raise SinkConfigError(
            f"{where}.profile", f"{table['profile']!r} is no profile", f"Use one of: {', '.join(PROFILES)}."
        )
    return Match(**table)


@dataclass(slots=True)
class Rule:
    """Requests that match behave so, ``times`` times (None: always), counted ``per`` rule or click id."""

    match: Match
    chosen: Chosen | None
    """None for ``reset-on-connect``, which happens before there is a request."""
    times: int | None = None
    per: str = "click_id"
    counts: bool | None = None
    """Overrides whether the network decides (and may credit) before the answer is spoilt."""
    _used: Counter[str] = field(default_factory=Counter)

    def claims(self, seen: Sighting) -> bool:
        """Whether this rule answers the request; uses up one of its times if so."""
        if not self.match.takes(seen):
            return False
        return self.use(seen.click_id if self.per == "click_id" else "")

    def use(self, counted_as: str) -> bool:
        """Use up one time, unless all are used."""
        if self.times is not None and self._used[counted_as] >= self.times:
            return False
        self._used[counted_as] += 1
        return True


def read_rule(where: str, value: object) -> Rule:
    """A Rule from a JSON table. Raises SinkConfigError."""
    table = require_table(where, value, ("match", "behave", "times", "per", "counts"))
    behave, times, per = table.get("behave"), table.get("times"), table.get("per", "click_id")
    counts = table.get("counts")
    if not isinstance(behave, str):
        raise SinkConfigError(f"{where}.behave", "is missing", "Name a behaviour, such as 'unavailable:1'.")
    if times is not None and (not isinstance(times, int) or isinstance(times, bool) or times < 1):
        raise SinkConfigError(
            f"{where}.times", f"is {times!r}", "Use a whole number from 1 on, or null for always."
        )
    if per not in ("click_id", "rule"):
        raise SinkConfigError(f"{where}.per", f"is {per!r}", "Use 'click_id' or 'rule'.")
    if counts is not None and not isinstance(counts, bool):
        raise SinkConfigError(f"{where}.counts", f"is {counts!r}", "Use true or false, or leave it out.")
    match = read_match(f"{where}.match", table.get("match", {}))
    if behave == RESET_ON_CONNECT:
        if table.get("match"):
            raise SinkConfigError(
                f"{where}.match", f"cannot go with {RESET_ON_CONNECT!r}", "Nothing is read: leave it out."
            )
        return Rule(match, None, times, "rule")
    return Rule(match, choose(behave, f"{where}.behave"), times, per, counts)


class Plan:
    """Rules in order; the first that claims a request answers it."""

    def __init__(self, rules: object = ()) -> None:
        if not isinstance(rules, list | tuple):
            raise SinkConfigError("rules", f"is a {type(rules).__name__}", "Give a list of rules.")
        read = [
            rule if isinstance(rule, Rule) else read_rule(f"rules[{i}]", rule) for i, rule in enumerate(rules)
        ]
        self._rules = [rule for rule in read if rule.chosen is not None]
        self._on_connect = [rule for rule in read if rule.chosen is None]

    def __bool__(self) -> bool:
        return bool(self._rules)

    def choose(self, seen: Sighting) -> tuple[Chosen, bool | None] | None:
        """The behaviour for a request and whether it counts, or None for the normal answer."""
        for rule in self._rules:
            if rule.chosen is not None and rule.claims(seen):
                return rule.chosen, rule.counts
        return None

    def resets_connection(self) -> bool:
        """Whether the connection just made is to be reset before it is read."""
        return any(rule.use("") for rule in self._on_connect)


def read_behave_option(text: str) -> dict[str, Any]:
    """A rule from ``[PROFILE=]BEHAVIOUR[:ARGUMENT][@TIMES]``, the command line's short form."""
    scope, separator, rest = text.rpartition("=")
    behave, _, times = rest.partition("@")
    rule: dict[str, Any] = {"behave": behave}
    if separator:
        rule["match"] = {"profile": scope}
    if times:
        if not times.isdigit() or int(times) < 1:
            raise SinkConfigError(
                "--behave", f"{times!r} is no number of times", "Write it as in 'unavailable:1@2'."
            )
        rule["times"] = int(times)
    read_rule("--behave", rule)
    return rule
