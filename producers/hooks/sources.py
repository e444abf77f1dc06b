"""The sources of ``holdfire.toml`` joined with their hooks: what is wrong with them, and those that can be served."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from infra.catalogue import ConfigError, load_config
from infra.secrets import SecretError, read_secret
from producers.hooks.hook import Hook, Options
from producers.hooks.registry import HOOKS
from schemas.problem import Problem
from schemas.redaction import Redactor
from schemas.source import Source


@dataclass(frozen=True, slots=True)
class Opened:
    """A source that is served: its hook, its options and its secrets' values."""

    name: str
    hook: Hook
    options: Options
    secrets: tuple[str, ...] = ()
    public_url: str | None = None
    redactor: Redactor = field(default_factory=Redactor, compare=False)
    """Masks the secrets wherever a delivery repeats them."""


def check_sources(sources: Mapping[str, Source]) -> list[Problem]:
    """Every problem of the sources as their hooks see it, each with its key and remedy."""
    return [
        replace(problem, field=f"sources.{name}.{problem.field}")
        for name, source in sources.items()
        for problem in _problems(name, source)
    ]


def open_sources(path: Path) -> dict[str, Opened]:
    """The sources of a file with their secrets read; none if there is no such file.

    Raises ConfigError with every problem of the file, secrets that cannot be read here included.
    """
    if not path.exists():
        return {}
    sources = load_config(path, check_sources).sources
    problems: list[Problem] = []
    opened = {name: _open(name, source, problems) for name, source in sources.items()}
    if problems:
        raise ConfigError(str(path), problems)
    return opened


def describe_sources(path: Path) -> dict[str, Opened]:
    """As ``open_sources``, without secrets: to run mappings again, which proves nothing anew. Raises ConfigError."""
    sources = load_config(path, check_sources).sources
    return {
        name: Opened(name, HOOKS[source.hook], Options(name, source.options))
        for name, source in sources.items()
    }


def _open(name: str, source: Source, problems: list[Problem]) -> Opened:
    secrets = []
    for place, ref in source.secret_refs().items():
        try:
            secrets.append(read_secret(ref))
        except SecretError as error:
            reason, _, remedy = str(error).partition(". ")
            problems.append(Problem("secret", f"sources.{name}.{place}", reason, remedy))
    options = Options(name, source.options)
    values = tuple(secrets)
    return Opened(name, HOOKS[source.hook], options, values, source.public_url, Redactor(values))


def _problems(name: str, source: Source) -> list[Problem]:
    """``field`` is the key below the source's table."""
    hook = HOOKS.get(source.hook)
    if hook is None:
        close = difflib.get_close_matches(source.hook, HOOKS, n=1)
        remedy = f"Did you mean {close[0]}?" if close else f"Use one of {', '.join(HOOKS)}"
        return [Problem("unknown_hook", "hook", f"{source.hook!r} is no hook", remedy)]
    problems = [
        Problem("unknown_option", key, f"is no option of {hook.slug}", _known(hook, key))
        for key in source.options
        if key not in hook.options
    ]
    problems += _secret_problems(hook, source)
    return problems + list(hook.check(Options(name, source.options)))


def _known(hook: Hook, key: str) -> str:
    close = difflib.get_close_matches(key, hook.options, n=1)
    if close:
        return f"Did you mean {close[0]}?"
    return f"It has {', '.join(hook.options)}" if hook.options else "It has none; remove it"


def _secret_problems(hook: Hook, source: Source) -> list[Problem]:
    named = source.secret_refs()
    if hook.secret == "required" and not named:  # noqa: S105 — says whether there is one
        reason = "is missing: without it nobody could tell whose deliveries they are"
        return [Problem("no_secret", "secret", reason, 'Add secret = { env = "NAME" }')]
    if hook.secret == "none" and named:  # noqa: S105 — says whether there is one
        reason = f"is of no use: {hook.slug} does not sign"
        return [Problem("needless_secret", next(iter(named)), reason, "Remove it")]
    return []
