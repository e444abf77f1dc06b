"""What can be wrong with a sink's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class SinkConfigError(ValueError):
    """A setting the sink cannot use. The message names the field, the reason and the remedy."""

    def __init__(self, field: str, reason: str, remedy: str) -> None:
        super().__init__(f"{field}: {reason}. {remedy}")
        self.field = field
        self.reason = reason
        self.remedy = remedy


def require_table(field: str, value: object, allowed: tuple[str, ...]) -> Mapping[str, Any]:
    """``value`` as a mapping with only ``allowed`` keys, or SinkConfigError."""
    if not isinstance(value, Mapping):
        raise SinkConfigError(field, f"is a {type(value).__name__}, not a table", "Give a JSON object.")
    for name in value:
        if name not in allowed:
            raise SinkConfigError(
                f"{field}.{name}", "is not known here", f"Use one of: {', '.join(allowed)}."
            )
    return value
