"""What every judge of the sink shares: its settings, what it returns, and how a repeat is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from infra.sink.answers import Answer
from infra.sink.errors import SinkConfigError, require_table
from infra.sink.judgement import Judgement
from infra.sink.ledger import Book
from infra.sink.wire import Request

DUPLICATE_RULES = ("counted", "ignored", "rejected")


@dataclass(frozen=True, slots=True)
class ProfileSettings:
    """What can be set for one profile."""

    duplicates: str = "ignored"
    """A second identical postback is ``counted`` again, ``ignored``, or ``rejected`` with 409."""
    events: tuple[str, ...] = ()
    """Event names configured at the network, matched exactly; empty takes any name (knorex-xpo)."""
    keys: tuple[str, ...] = ()
    """API keys or bearer tokens that are let in; empty lets in any that is not blank (ezmob)."""
    redirects: bool = True
    """Whether the first request is answered 302 (xandr, ad-personam)."""
    limits: bool = True
    """Whether order_id, value and other must keep the documented limits (xandr, ad-personam)."""

    def updated(self, profile: str, changes: object) -> ProfileSettings:
        """These settings with ``changes`` (a JSON table) applied. Raises SinkConfigError."""
        names = tuple(one.name for one in fields(self))
        table = require_table(f"profiles.{profile}", changes, (*names, "issued"))
        taken: dict[str, Any] = {}
        for name, value in table.items():
            if name == "issued":
                continue
            where = f"profiles.{profile}.{name}"
            if name in ("events", "keys"):
                taken[name] = require_strings(where, value)
            elif name == "duplicates":
                if value not in DUPLICATE_RULES:
                    raise SinkConfigError(
                        where, f"is {value!r}", f"Use one of: {', '.join(DUPLICATE_RULES)}."
                    )
                taken[name] = value
            elif isinstance(value, bool):
                taken[name] = value
            else:
                raise SinkConfigError(where, f"is {value!r}", "Use true or false.")
        return replace(self, **taken)


def require_strings(field_name: str, value: object) -> tuple[str, ...]:
    """``value`` as a tuple of strings, or SinkConfigError."""
    if not isinstance(value, list | tuple | set) or not all(isinstance(one, str) for one in value):
        raise SinkConfigError(field_name, "is not a list of strings", 'Give a list such as ["purchase"].')
    return tuple(value)


Judged = tuple[Answer, Judgement]
Judge = Callable[[Request, Book, ProfileSettings, str], Judged]
"""``(request, book, settings, base_url)``; ``base_url`` is scheme and authority, for redirects."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One virtual network."""

    name: str
    judge: Judge
    settings: ProfileSettings = field(default_factory=ProfileSettings)


OK = Answer(200, b"OK")
NO_CONTENT = Answer(204)


def _is_macro(click_id: str) -> bool:
    return click_id.startswith(("[", "{", "${", "%%", "#{")) and click_id.endswith(("]", "}", "%%"))


def objection(click_id: str, book: Book) -> str:
    """What is wrong with a click id at any network; empty when nothing is."""
    if not click_id:
        return "click-id-missing"
    if _is_macro(click_id):
        return "unreplaced-macro"
    return book.issued.objection(click_id)


def credit_once(found: Judgement, book: Book, settings: ProfileSettings, accepted: Answer) -> Judged:
    """Credit ``found`` unless it is a repeat that these settings do not count."""
    if not book.is_credited(found.key):
        return accepted, replace(found, credited=True, reason="credited")
    if settings.duplicates == "counted":
        return accepted, replace(found, credited=True, reason="credited", repeat=True)
    answer = Answer(409, b"duplicate transaction") if settings.duplicates == "rejected" else accepted
    return answer, replace(found, reason="duplicate", repeat=True)
