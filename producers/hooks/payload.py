"""Reading a delivery's body as its hook says it is written."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, NoReturn
from urllib.parse import parse_qsl, urlsplit

from producers.hooks.hook import Delivery, Hook, MappingError

MAX_FIELDS = 2_000
MAX_DEPTH = 64
"""Of arrays and objects inside each other, as any sender of business events has fewer."""


def read_payload(hook: Hook, delivery: Delivery, body: bytes) -> Any:
    """The payload of a delivery whose body is ``body`` once decompressed. Raises MappingError."""
    try:
        match hook.payload:
            case "json":
                return _json(body)
            case "form":
                return dict(
                    parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
                )
            case "query":
                query = urlsplit(delivery.url).query
                return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_FIELDS))
            case "xml":
                return body
    except UnicodeDecodeError:
        raise MappingError("body", "is not UTF-8", "Send it as UTF-8") from None
    except ValueError as error:
        if isinstance(error, MappingError):
            raise
        raise MappingError(
            "body", f"cannot be read as {hook.payload} ({error})", "See the sender's log"
        ) from None


def _json(body: bytes) -> Any:
    """JSON whose numbers keep their digits: whole ones are int, all others Decimal."""
    if not body.strip():
        raise MappingError("body", "is empty", "Send JSON")
    try:
        value = json.loads(body, parse_float=Decimal, parse_constant=_no_number)
    except RecursionError:
        raise MappingError("body", "is nested too deep", "Flatten it") from None
    except ArithmeticError:
        raise MappingError("body", "has a number that no amount can be", "Check its numbers") from None
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for each in level for child in _children(each)]
        if not level:
            return value
    raise MappingError("body", f"is nested more than {MAX_DEPTH} deep", "Flatten it")


def _children(value: Any) -> list[Any]:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [each for each in inside if isinstance(each, dict | list)]


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")
