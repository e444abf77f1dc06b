"""Rendering a postback URL: macros replaced once, each value percent-encoded by RFC 3986's unreserved rules.

``.``, ``-``, ``_`` and ``~`` stay literal, nothing is encoded twice, and the click id can be read back byte
for byte. The text between macros is the network's or the account's and is never touched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
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
    """What a request is made of. ``url`` may carry macros anywhere, query included."""

    method: str
    url: str
    parameters: tuple[Parameter, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""


@dataclass(frozen=True, slots=True)
class Rendered:
    """``url`` is the exact request URL; ``notes`` say what was left out and why."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: str
    notes: tuple[str, ...] = ()


def encode(value: str) -> str:
    """Percent-encode once: everything but RFC 3986 §2.3 unreserved characters, as UTF-8."""
    return quote(value, safe="")


def names_in(text: str) -> frozenset[str]:
    """The macros a template text refers to."""
    return frozenset(MACRO.findall(text))


def substitute(
    text: str, values: Mapping[str, str | None], *, encoded: bool = False, raw: bool = False
) -> str:
    """Replace every macro once. Raises ``KeyError`` with the macro's name where it has no value."""

    def value_of(match: re.Match[str]) -> str:
        value = values.get(match[1])
        if value is None:
            raise KeyError(match[1])
        if raw:
            return value
        if not encoded:
            return encode(value)
        if not _ALREADY_ENCODED.fullmatch(value):
            raise RenderError(
                f"{{{match[1]}}} must be percent-encoded already, but {value!r} has characters a URL cannot carry. "
                "Encode it at the source, or drop `encoded` from the parameter"
            )
        return value

    return MACRO.sub(value_of, text)


def render(template: Template, values: Mapping[str, str | None]) -> Rendered:
    """Render one postback.

    A setting that holds a whole URL (``{settings.url}`` at the template's start) is put in first and its own
    macros are rendered with the rest. A parameter whose macro the URL carries already is not added again.
    Raises ``RenderError`` when a macro that is not optional has no value or breaks a limit.
    """
    notes: list[str] = []
    base = _base_url(template.url, values)
    carried = names_in(base)
    ordinary: list[str] = []
    last: list[str] = []
    for parameter in template.parameters:
        event_macros = {name for name in names_in(parameter.value) if not name.startswith("settings.")}
        if event_macros and event_macros <= carried:
            continue
        text = _parameter(parameter, values, notes)
        if text is not None:
            (last if parameter.last else ordinary).append(text)
    try:
        url = substitute(base, values)
        headers = tuple((name, substitute(text, values, raw=True)) for name, text in template.headers)
        body = substitute(template.body, values, raw=True)
    except KeyError as missing:
        raise RenderError(_missing(missing.args[0])) from None
    for name, text in headers:
        if "\r" in text or "\n" in text:
            raise RenderError(f"header {name}: a value has a line break. Remove it at the source")
    return Rendered(template.method, _append(url, [*ordinary, *last]), headers, body, tuple(notes))


def _base_url(url: str, values: Mapping[str, str | None]) -> str:
    """Expand a leading whole-URL setting verbatim: it is a template given by the account, not a value."""
    match = MACRO.match(url)
    if match is None or not match[1].startswith("settings."):
        return url
    whole = values.get(match[1])
    if whole is None:
        raise RenderError(_missing(match[1]))
    return whole + url[match.end() :]


def _parameter(parameter: Parameter, values: Mapping[str, str | None], notes: list[str]) -> str | None:
    try:
        name = substitute(parameter.name, values, raw=True)
        plain = substitute(parameter.value, values, raw=True)
        text = f"{name}={substitute(parameter.value, values, encoded=parameter.encoded)}"
    except KeyError as missing:
        if parameter.keep_empty:
            return f"{substitute(parameter.name, values, raw=True)}="
        if parameter.optional:
            return None
        raise RenderError(_missing(missing.args[0])) from None
    broken = _broken_limit(parameter, plain)
    if broken is None:
        return text
    if parameter.optional:
        notes.append(f"{name} left out: {broken}")
        return None
    raise RenderError(f"{name}: {broken}. Send a value the network takes")


def _broken_limit(parameter: Parameter, plain: str) -> str | None:
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
