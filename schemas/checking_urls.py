"""Holding the URLs of a destination against its network's contract: where postbacks go, and how."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from schemas.destination import Contract
from schemas.macros import MACRO
from schemas.network import host_allowed
from schemas.problem import Problem


@dataclass(frozen=True, slots=True)
class Findings:
    """What ``check`` found: problems refuse the configuration, warnings do not."""

    problems: list[Problem]
    warnings: list[Problem]


def check_url(contract: Contract, where: str, template: str, place: str, findings: Findings) -> None:
    """``template`` is a URL that stands at ``place``, or starts with a setting, which is then where it stands."""
    url = template
    leading = MACRO.match(template)
    if leading is not None and leading[1].startswith("settings."):
        place = f"{where}.{leading[1]}"
        given = contract.plain_settings().get(leading[1])
        if given is None:  # missing, which is said elsewhere, or a secret, which is not read here
            return
        url = given + template[leading.end() :]
    parts = check_sendable(url, place, contract.destination.allow_http, findings)
    if parts is not None:
        _check_host(contract, place, parts, findings)


def check_sendable(url: str, place: str, allow_http: bool, findings: Findings) -> SplitResult | None:
    """Whether a URL with macros can be sent as it stands at ``place``; its parts, unless it is none at all."""
    parts = _split(url)
    if parts is None or not parts.hostname:
        findings.problems.append(
            Problem(
                "url",
                place,
                f"{url!r} is no http(s) URL",
                "Write https://host/path, other characters encoded",
            )
        )
        return None
    if foreign := _FOREIGN_MACRO.search(MACRO.sub("", f"{parts.path}?{parts.query}")):
        findings.problems.append(
            Problem(
                "unknown_macro",
                place,
                f"has {foreign[0]}, which nothing here replaces",
                "Write Holdfire's macro in its place, such as {click_id}; a bracket that is meant is %5B or %7B",
            )
        )
    if "@" in parts.netloc:
        findings.problems.append(
            Problem(
                "url",
                place,
                "carries a user or password",
                'Use auth = { kind = "header", name = "Authorization", value = { env = "NAME" } }',
            )
        )
    if parts.fragment:
        findings.problems.append(Problem("url", place, "has a #fragment, which is never sent", "Remove it"))
    if parts.scheme == "http":
        (findings.warnings if allow_http else findings.problems).append(
            Problem(
                "plain_http",
                place,
                "is plain http: ids travel unencrypted",
                "Use https, or set allow_http = true",
            )
        )
    return parts


_FOREIGN_MACRO = re.compile(r"\$?\{[^{}]*\}|\[\w+\]|%%\w+%%|[{}\[\]]")
"""A placeholder that is left in a URL once Holdfire's own macros are taken out."""


def _split(url: str) -> SplitResult | None:
    """The parts of an http(s) URL that can be sent as it stands, or None."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.scheme in ("https", "http") and re.fullmatch(r"[!-~]+", url) else None


def _check_host(contract: Contract, place: str, parts: SplitResult, findings: Findings) -> None:
    allowed = contract.fetch_limits.allowed_hosts
    host = parts.hostname or ""
    if allowed and "{" not in host and not host_allowed(host, allowed):
        findings.problems.append(
            Problem(
                "host",
                place,
                f"{host} is not a host of {contract.network.title} ({', '.join(allowed)})",
                "Correct the host, or set allow_private = true for a sink of your own",
            )
        )
