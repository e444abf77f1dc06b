"""What is wrong with an input: which field, why, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from schemas.durations import show


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in one input. ``code`` is stable and greppable, ``remedy`` is what the sender should do."""

    code: str
    field: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}. {self.remedy}"


class InvalidInputError(ValueError):
    """Input that cannot be taken. Carries every problem found, not just the first."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("; ".join(str(problem) for problem in problems))


_WORDS = {
    "extra_forbidden": "is not known",
    "missing": "is missing",
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "tuple_type": "must be a list",
    "datetime_type": "must be an instant",
    "timezone_aware": "has no UTC offset",
    "string_too_short": "has fewer than {min_length} characters",
    "string_too_long": "has more than {max_length} characters",
    "too_short": "has fewer than {min_length} entries",
    "too_long": "has more than {max_length} entries",
    "greater_than": "is {given}, but must be more than {gt}",
    "greater_than_equal": "is {given}, but must be at least {ge}",
    "less_than": "is {given}, but must be less than {lt}",
    "less_than_equal": "is {given}, but must be at most {le}",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "does not have the shape {pattern}",
    "union_tag_invalid": "{tag!r} is no known kind",
    "union_tag_not_found": "has no kind",
}
_LENGTHS = {"string_too_short", "too_short"}

GENERAL_REMEDIES = {
    "greater_than": "Raise it",
    "greater_than_equal": "Raise it",
    "less_than": "Lower it",
    "less_than_equal": "Lower it",
    "string_too_short": "Fill it in",
    "too_short": "Fill it in",
    "string_too_long": "Shorten it",
    "too_long": "Send fewer",
    "literal_error": "Use one of these",
    "string_type": "Put it in quotes",
}
"""What to do about a fault whatever the field is, by the validation library's code."""


def plain_reason(code: str, message: str, given: object, context: Mapping[str, Any]) -> str:
    """A sentence for a fault the validation library found; its own ``message`` where we have no better words.

    ``given`` is repeated only where a number was out of bounds: any other value may be a secret.
    """
    words = _WORDS.get(code)
    if words is None:
        return message
    if code in _LENGTHS and context.get("min_length") == 1:
        return "is empty"
    return words.format(**{key: _shown(value) for key, value in {**context, "given": given}.items()})


def _shown(value: object) -> object:
    # The library's context holds a duration's bound as the text datetime.timedelta(seconds=120).
    bound = re.fullmatch(r"datetime\.timedelta\((?:(days|seconds)=)?(\d+)\)", str(value))
    if bound is not None:
        return show(timedelta(**{bound[1] or "seconds": int(bound[2])}))
    if isinstance(value, timedelta):
        return show(value)
    return str(value).removesuffix(".0") if isinstance(value, float) else value
