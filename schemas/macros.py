"""Rendering a postback URL: macros replaced once, each value percent-encoded by RFC 3986's unreserved rules.

``.``, ``-``, ``_`` and ``~`` stay literal, nothing is encoded twice, and the click id can be read back byte
for byte. The text between macros is the network's or the account's and is never touched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

MACRO = re.compile(r"\{([a-z_]+(?:\.[A-Za-z0-9_.:-]+)?)\}")
"""``{click_id}``, ``{settings.id}``, ``{params.other}``."""

EVENT_MACROS = frozenset(
    {
        "click_id",
        "order_id",
        "value",
        "currency",
        "name",
        "event_id",
        "source",
        "partner_id",
        "sequence",
        "occurred_at",
        "occurred_unix",
        "postback_id",
    }
)
"""Macros an event fills; ``settings.*`` come from the destination and ``params.*`` from the event's params."""

ADJUSTMENT_MACROS = EVENT_MACROS | {"delta"}
"""Macros of an adjustment: there ``value`` is what stands now, ``delta`` its signed change from what was told last."""

Values = Mapping[str, str | None]
"""Macro values by name; a macro that is absent or None has no value."""

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]*")
_ALREADY_ENCODED = re.compile(r"(?:[A-Za-z0-9._~!$'()*,;:@/?=+-]|%[0-9A-Fa-f]{2})*")


class RenderError(ValueError):
    """A postback that cannot be rendered. The message names the macro, the reason and the remedy."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One query parameter of a template, name and value both with macros."""

    name: str
    value: str
    optional: bool = False
    """Left out when a macro in it has no value; otherwise that is an error."""
    keep_empty: bool = False
    """Sent as ``name=`` when a macro in it has no value."""
    encoded: bool = False
    """The values are percent-encoded by contract already and are inserted verbatim."""
    last: bool = False
    """Must be the last parameter, whatever else is set."""
    max_length: int | None = None
    """Of the value before encoding, in characters."""
    pattern: str | None = None


@dataclass(frozen=True, slots=True)
class Template:
    """What a request is made of; every part may carry macros.

    A ``url`` that starts with a ``{settings.…}`` macro and a ``body`` that does are texts given by the
    account: they are put in verbatim first, and their own macros are rendered with the rest.
    """

    method: str
    url: str
    parameters: tuple[Parameter, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""


@dataclass(frozen=True, slots=True)
class Rendered:
    """``url`` is the exact request URL, ``body`` goes out as UTF-8; ``notes`` say what was left out and why."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: str
    notes: tuple[str, ...] = ()


def encode(value: str) -> str:
    """Percent-encode once: everything but RFC 3986 §2.3 unreserved characters, as UTF-8."""
    return value if _UNRESERVED.fullmatch(value) else quote(value, safe="")


@lru_cache(maxsize=4096)
def names_in(text: str) -> frozenset[str]:
    """The macros a template text refers to."""
    return frozenset(MACRO.findall(text))


@lru_cache(maxsize=4096)
def _pieces(text: str) -> tuple[str, ...]:
    """Literal text and macro names in turn, literal first: a template is taken apart once, then filled often."""
    return tuple(MACRO.split(text))


def substitute(text: str, values: Values, write: Callable[[str], str] = encode) -> str:
    """Replace every macro once, its value as ``write`` writes it.

    Raises ``KeyError`` with the macro's name where it has no value.
    """
    pieces = _pieces(text)
    if len(pieces) == 1:
        return text
    filled = [pieces[0]]
    for position in range(1, len(pieces), 2):
        value = values.get(pieces[position])
        if value is None:
            raise KeyError(pieces[position])
        filled += (write(value), pieces[position + 1])
    return "".join(filled)


def _verbatim(value: str) -> str:
    return value


def _already_encoded(value: str) -> str:
    if not _ALREADY_ENCODED.fullmatch(value):
        raise RenderError(
            f"{value!r} must be percent-encoded already, but has characters a URL cannot carry. "
            "Encode it at the source, or drop `encoded` from the parameter"
        )
    return value


def _json_text(value: str) -> str:
    """The inside of a JSON string; a number is the same with and without it."""
    return json.dumps(value, ensure_ascii=False)[1:-1]


def _body_writer(headers: tuple[tuple[str, str], ...]) -> Callable[[str], str]:
    """How a value is written into a body: as the body's Content-Type has it, so that no value can break out."""
    types = [value.lower() for name, value in headers if name.lower() == "content-type"]
    if any("json" in kind for kind in types):
        return _json_text
    if any("form-urlencoded" in kind for kind in types):
        return encode
    return _verbatim


def render(template: Template, values: Values) -> Rendered:
    """Render one postback.

    A parameter whose macro the URL carries already is not added again.
    Raises ``RenderError`` when a macro that is not optional has no value or breaks a limit.
    """
    notes: list[str] = []
    try:
        base = _given_by_account(template.url, values)
        parameters = _parameters(template.parameters, names_in(base), values, notes)
        method = substitute(template.method, values, _verbatim)
        url = _append(substitute(base, values), parameters)
        headers = tuple((name, substitute(text, values, _verbatim)) for name, text in template.headers)
        body = substitute(_given_by_account(template.body, values), values, _body_writer(headers))
    except KeyError as missing:
        raise RenderError(_missing(missing.args[0])) from None
    for name, text in headers:
        if _CONTROL.search(text):
            raise RenderError(f"header {name}: a value has a control character. Remove it at the source")
    return Rendered(method, url, headers, body, tuple(notes))


def _given_by_account(text: str, values: Values) -> str:
    """Expand a leading setting verbatim: it is a template given by the account, not a value."""
    match = MACRO.match(text)
    if match is None or not match[1].startswith("settings."):
        return text
    return substitute(match[0], values, _verbatim) + text[match.end() :]


def _parameters(
    parameters: tuple[Parameter, ...], carried: frozenset[str], values: Values, notes: list[str]
) -> list[str]:
    """The query parameters to append, those that must be last behind all others."""
    ordinary: list[str] = []
    last: list[str] = []
    for parameter in parameters:
        event_macros = _event_macros(parameter.value)
        if event_macros and event_macros <= carried:
            if parameter.last:
                raise RenderError(
                    f"{parameter.name} must be the last parameter, but the URL carries it already. "
                    f"Give the URL without {parameter.value}"
                )
            continue
        text = _parameter(parameter, values, notes)
        if text is not None:
            (last if parameter.last else ordinary).append(text)
    return [*ordinary, *last]


@lru_cache(maxsize=4096)
def _event_macros(text: str) -> frozenset[str]:
    return frozenset(name for name in names_in(text) if not name.startswith("settings."))


def _parameter(parameter: Parameter, values: Values, notes: list[str]) -> str | None:
    """``name=value`` as it goes on the wire, or None when it is left out. Raises ``KeyError`` like ``substitute``."""
    name = substitute(parameter.name, values, _verbatim)
    try:
        written = substitute(parameter.value, values, _already_encoded if parameter.encoded else encode)
    except KeyError:
        if parameter.keep_empty:
            return f"{name}="
        if parameter.optional:
            return None
        raise
    broken = _broken_limit(parameter, values)
    if broken is None:
        return f"{name}={written}"
    if parameter.optional:
        notes.append(f"{name} left out: {broken}")
        return None
    raise RenderError(f"{name}: {broken}. Send a value the network takes")


def _broken_limit(parameter: Parameter, values: Values) -> str | None:
    if parameter.max_length is None and parameter.pattern is None:
        return None
    plain = substitute(parameter.value, values, _verbatim)
    if parameter.max_length is not None and len(plain) > parameter.max_length:
        return f"{plain!r} has {len(plain)} characters, the network takes {parameter.max_length}"
    if parameter.pattern is not None and not re.fullmatch(parameter.pattern, plain):
        return f"{plain!r} is not of the form the network takes ({parameter.pattern})"
    return None


def _append(url: str, texts: list[str]) -> str:
    if not texts:
        return url
    joint = "" if url.endswith(("?", "&")) else "&" if "?" in url else "?"
    return url + joint + "&".join(texts)


def _missing(macro: str) -> str:
    where = "the destination's settings" if macro.startswith("settings.") else "the event"
    return f"{{{macro}}} has no value. Add it to {where}, or make the parameter optional"
