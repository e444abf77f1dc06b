"""The catalogue of networks, and what a ``holdfire.toml`` says: destinations joined with it, and sources.

Every fault names the file, the key and the remedy, and all faults of a file are found at once.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from schemas.accounts import ConsolePolicy
from schemas.auth import BearerAuth, ClientCredentialsAuth, HeaderAuth
from schemas.backoff import RetryPolicy
from schemas.checking import check
from schemas.destination import Contract, Destination, Limits, Rules, join
from schemas.hold import HoldPolicy
from schemas.keeping import Keeping, Policy, warnings_about
from schemas.network import Network, QueryParameter, read_network
from schemas.problem import GENERAL_REMEDIES, Problem, plain_reason
from schemas.source import SOURCE_NAME, Source

_REMEDIES = {
    "missing": "Add it",
    "tuple_type": 'Write it as a list, such as ["purchase"]',
    "model_type": "Write it as a table, { key = value }",
    "extra_forbidden": "Remove it, or correct its spelling",
    "string_pattern_mismatch": "Use letters, digits, '.', '_' and '-'",
    "union_tag_invalid": 'Use kind = "header", "bearer" or "client_credentials"',
    "union_tag_not_found": 'Add kind = "header", "bearer" or "client_credentials"',
    "secret_ref": "Name the environment variable or the file, not the secret itself",
    "hold_without_wait": "Add wait",
    "wait_without_hold": 'Remove wait, or use kind = "refund"',
    "timeout_without_decision": 'Remove on_timeout, or use kind = "credit_check"',
    "release_without_decision": "Take it out of release_on",
    "void_without_refund": 'Add "refund"',
    "void_without_loss": 'Add "chargeback.lost"',
    "release_without_hold": "Remove release_on, or give the window a kind and its wait",
    "host_shape": "Write the name alone, as a browser's address bar has it",
    "idle_beyond_absolute": "Lower session_idle, or raise session_absolute",
    "enum": "Use one of these",
    "keep_too_short": 'Keep it for a week or longer, such as "400d", or "forever"',
    "duration_shape": 'Write it like "30s", "15m", "6h" or "14d"',
}


class ConfigError(ValueError):
    """A file that cannot be used. Carries its path and every problem found in it."""

    def __init__(self, path: str, problems: list[Problem]) -> None:
        self.path = path
        self.problems = problems
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))


@dataclass(frozen=True, slots=True)
class Config:
    """What a ``holdfire.toml`` says: contracts by destination name, sources by theirs, and what is worth a look."""

    path: Path
    contracts: dict[str, Contract]
    warnings: list[Problem] = field(default_factory=list)
    sources: dict[str, Source] = field(default_factory=dict)
    console: ConsolePolicy = field(default_factory=ConsolePolicy)
    keeping: Keeping = field(default_factory=Keeping)


CheckSources = Callable[[Mapping[str, Source]], list[Problem]]
"""What is wrong with the sources as far as their hooks know; the hooks are in a room that this one never enters."""


@cache
def load_catalogue() -> dict[str, Network]:
    """Every network in ``schemas/networks`` by its slug. Raises ``ConfigError`` for the first file at fault."""
    folder = resources.files("schemas") / "networks"
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name
    )
    networks = {}
    for file in files:
        network = _read_network(f"schemas/networks/{file.name}", file.read_text("utf-8"))
        networks[network.slug] = network
    return networks


def load_config(path: Path, check_sources: CheckSources | None = None) -> Config:
    """Read and check a ``holdfire.toml`` as a whole. Raises ``ConfigError`` with every problem found.

    Without ``check_sources`` the shape of the sources is checked, and not whether their hooks know what they say.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        remedy = "Create it, or set HOLDFIRE_CONFIG to where it is"
        raise ConfigError(str(path), [Problem("no_file", "file", "does not exist", remedy)]) from None
    except (OSError, UnicodeDecodeError) as error:
        remedy = "Give a UTF-8 text file that this user may read"
        raise ConfigError(str(path), [Problem("unreadable", "file", str(error), remedy)]) from None
    data = _parse(str(path), text)
    problems = [
        Problem(
            "unknown_table", key, "is not known", _did_you_mean(key, [*_TOP]) or f"There are {_TOP_WORDS}"
        )
        for key in data
        if key not in _TOP
    ]
    sources = _sources(_tables(data, "sources", problems), problems)
    if check_sources is not None:
        problems += check_sources(sources)
    console = _console(data.get("console", {}), problems)
    contracts, warnings = {}, []
    for name, table in _tables(data, "destinations", problems).items():
        contract = _contract(name, table, problems)
        if contract is not None:
            findings = check(contract)
            problems += findings.problems
            warnings += findings.warnings
            contracts[name] = contract
    keeping = _keeping(data, problems)
    if problems:
        raise ConfigError(str(path), problems)
    warnings += warnings_about(policy_of(keeping, contracts))
    return Config(path, contracts, warnings, sources, console, keeping)


_TOP = ("destinations", "sources", "console", "keeping")
_TOP_WORDS = "[destinations.NAME], [sources.NAME], [console] and [keeping]"


def _console(table: object, problems: list[Problem]) -> ConsolePolicy:
    """The console's policy; what is wrong with it goes into ``problems``."""
    if not isinstance(table, Mapping):
        problems.append(Problem("not_a_table", "console", "is no table", "Write [console]"))
        return ConsolePolicy()
    try:
        return ConsolePolicy.model_validate(table)
    except ValidationError as error:
        problems += flatten(error, "console")
        return ConsolePolicy()


def _keeping(data: Mapping[str, Any], problems: list[Problem]) -> Keeping:
    try:
        return Keeping.model_validate(data.get("keeping", {}))
    except ValidationError as error:
        problems += flatten(error, "keeping")
        return Keeping()


def policy_of(keeping: Keeping, contracts: Mapping[str, Contract]) -> Policy:
    """What a file says of keeping, all together."""
    ages = {
        name: contract.destination.keep
        for name, contract in contracts.items()
        if "keep" in contract.destination.model_fields_set
    }
    return Policy(keeping, ages)


def _tables(data: Mapping[str, Any], key: str, problems: list[Problem]) -> Mapping[str, Any]:
    tables = data.get(key, {})
    if isinstance(tables, Mapping):
        return tables
    problems.append(Problem("not_a_table", key, "is no table", f"Write [{key}.NAME]"))
    return {}


def _sources(tables: Mapping[str, Any], problems: list[Problem]) -> dict[str, Source]:
    """The sources whose tables have the right shape; what is wrong with the others goes into ``problems``."""
    sources = {}
    for name, table in tables.items():
        where = f"sources.{name}"
        if not re.match(SOURCE_NAME, name) or len(name) > 64:
            remedy = "Use up to 64 letters, digits, '.', '_', ':' and '-', a letter or digit first"
            problems.append(Problem("source_name", where, "cannot be the source of an event", remedy))
        elif not isinstance(table, Mapping):
            problems.append(Problem("not_a_table", where, "is no table", f"Write [{where}]"))
        else:
            try:
                sources[name] = Source.model_validate(table)
            except ValidationError as error:
                problems += flatten(error, where)
    return sources


def _parse(path: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:  # its message ends in (at line N, column M)
        remedy = "Correct the TOML at that place"
        raise ConfigError(path, [Problem("toml_syntax", "syntax", str(error), remedy)]) from None


def _read_network(path: str, text: str) -> Network:
    try:
        network = read_network(_parse(path, text))
    except ValidationError as error:
        raise ConfigError(path, flatten(error)) from None
    if path != f"schemas/networks/{network.slug}.toml":
        remedy = "Give the file the slug's name"
        raise ConfigError(path, [Problem("slug", "slug", f"is {network.slug!r}, unlike the file", remedy)])
    return network


def _contract(name: str, table: object, problems: list[Problem]) -> Contract | None:
    """Join one table with its network; what is wrong goes into ``problems``."""
    where = f"destinations.{name}"
    if not isinstance(table, Mapping):
        problems.append(Problem("not_a_table", where, "is no table", f"Write [{where}]"))
        return None
    slug, catalogue = table.get("network"), load_catalogue()
    if isinstance(slug, str) and slug not in catalogue:
        remedy = _did_you_mean(slug, list(catalogue)) or f"Use one of {', '.join(catalogue)}"
        problems.append(Problem("unknown_network", f"{where}.network", f"{slug!r} is no network", remedy))
    try:
        destination = Destination.model_validate(table)
    except ValidationError as error:
        problems += flatten(error, where)
        return None
    if destination.network not in catalogue:
        return None
    try:
        return join(name, destination, catalogue[destination.network])
    except ValidationError as error:
        problems += [Problem(fault.code, where, fault.reason, fault.remedy) for fault in flatten(error)]
        return None


def flatten(error: ValidationError, where: str = "") -> list[Problem]:
    """Pydantic's faults as problems, each with the dotted path of its key below ``where``."""
    problems = {}
    for fault in error.errors(include_url=False):
        path = ["SecretRef" if "SecretRef" in str(part) else str(part) for part in fault["loc"]]
        # A union's member is named in the path by its class or tag, which is no key of the file; and of a
        # setting, which is a text or a secret, only the complaint of the kind that was written helps.
        if path[-1:] == ["str" if isinstance(fault["input"], dict) else "SecretRef"]:
            continue
        place = ".".join(
            [*([where] if where else []), *(part for part in path if part not in _UNION_MEMBERS)]
        )
        code = fault["type"]
        remedy = _REMEDIES.get(code) or GENERAL_REMEDIES.get(code, "See docs/configuration.md")
        if code == "extra_forbidden":
            remedy = _did_you_mean(path[-1], _KEYS) or remedy
        reason = plain_reason(code, fault["msg"], fault["input"], fault.get("ctx", {}))
        problems[place, code] = Problem(code, place or "file", reason, remedy)
    return list(problems.values())


_TABLES = (
    *(Destination, HoldPolicy, RetryPolicy, Limits, Rules, QueryParameter, Keeping),
    *(HeaderAuth, BearerAuth, ClientCredentialsAuth, ConsolePolicy),
)
_KEYS = sorted({key for table in _TABLES for key in table.model_fields})
"""Every key a destination's tables may have: what a misspelt one is compared with."""

_UNION_MEMBERS = ("str", "SecretRef", "header", "bearer", "client_credentials")


def _did_you_mean(text: str, known: list[str]) -> str | None:
    close = difflib.get_close_matches(text, known, n=1)
    return f"Did you mean {close[0]}?" if close else None
