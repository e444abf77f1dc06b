"""Holding a destination against its network's contract: every finding names the key and the remedy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from schemas.calendars import show_wait
from schemas.destination import Contract
from schemas.durations import show
from schemas.macros import EVENT_MACROS, MACRO, names_in
from schemas.network import host_allowed
from schemas.problem import Problem
from schemas.verdict import Dedupe


@dataclass(frozen=True, slots=True)
class Findings:
    """What ``check`` found: problems refuse the configuration, warnings do not."""

    problems: list[Problem]
    warnings: list[Problem]


def check(contract: Contract) -> Findings:
    """Hold a destination against its network's contract. Every finding names the key and the remedy."""
    findings = Findings([], [])
    where = f"destinations.{contract.name}"
    _check_settings(contract, where, findings)
    _check_macros(contract, where, findings)
    _check_parameters(contract, where, findings)
    _check_body(contract, where, findings)
    _check_url(contract, where, findings)
    _check_age(contract, where, findings)
    _check_dedupe_window(contract, where, findings)
    if contract.destination.rules is not None and not contract.network.open_rules:
        findings.problems.append(
            Problem(
                "fixed_rules",
                f"{where}.rules",
                f"{contract.network.title} has rules of its own",
                'Remove it, or use network = "generic"',
            )
        )
    if contract.destination.protocol and contract.destination.protocol not in contract.network.protocols:
        findings.problems.append(
            Problem(
                "protocol",
                f"{where}.protocol",
                f"{contract.network.title} has no {contract.destination.protocol} protocol",
                f"Use one of {', '.join(contract.network.protocols)}",
            )
        )
    return findings


def _check_settings(contract: Contract, where: str, findings: Findings) -> None:
    known = contract.network.settings
    for name, setting in known.items():
        value = contract.destination.settings.get(name, setting.default)
        place = f"{where}.settings.{name}"
        if value is None:
            if setting.required:
                findings.problems.append(Problem("missing", place, "is missing", f"Add it: {setting.about}"))
        elif isinstance(value, str):
            if setting.secret:
                findings.problems.append(
                    Problem(
                        "secret", place, "is a secret written in the file", 'Write { env = "NAME" } instead'
                    )
                )
            elif setting.pattern is not None and not re.fullmatch(setting.pattern, value):
                findings.problems.append(
                    Problem(
                        "pattern",
                        place,
                        f"{value!r} does not match {setting.pattern}",
                        f"It is {setting.about}",
                    )
                )
    # The generic network takes any setting its own template names.
    free = {name.removeprefix("settings.") for name in _macros(contract)}
    for name in contract.destination.settings.keys() - known.keys() - free:
        findings.problems.append(
            Problem(
                "unknown_setting",
                f"{where}.settings.{name}",
                f"{contract.network.title} has no such setting",
                f"Known: {', '.join(known) or 'none'}",
            )
        )


def _macros(contract: Contract) -> frozenset[str]:
    template, settings = contract.template, contract.plain_settings()
    texts = [template.url, template.body, *settings.values(), *(text for _, text in template.headers)]
    texts += [text for parameter in template.parameters for text in (parameter.name, parameter.value)]
    return frozenset().union(*(names_in(text) for text in texts))


def _check_macros(contract: Contract, where: str, findings: Findings) -> None:
    given = contract.plain_settings().keys() | {
        f"settings.{name}" for name in (*contract.destination.settings, *contract.network.settings)
    }
    for macro in sorted(_macros(contract)):
        if macro in EVENT_MACROS or macro in given or macro.startswith("params."):
            continue
        findings.problems.append(
            Problem(
                "unknown_macro",
                f"{where}.settings",
                f"{{{macro}}} is no macro",
                f"Use one of {', '.join(sorted(EVENT_MACROS))}, params.NAME or settings.NAME",
            )
        )


def _check_parameters(contract: Contract, where: str, findings: Findings) -> None:
    own = {parameter.name for parameter in contract.network.parameters}
    for number, parameter in enumerate(contract.destination.parameters):
        if parameter.name in own:
            findings.problems.append(
                Problem(
                    "parameter_twice",
                    f"{where}.parameters.{number}.name",
                    f"{contract.network.title} sends {parameter.name} already",
                    "Remove it; the event or a setting fills the network's own",
                )
            )


def _check_body(contract: Contract, where: str, findings: Findings) -> None:
    has_body = bool(contract.network.body.removeprefix("{settings.body}")) or bool(
        contract.destination.settings.get("body")
    )
    headers = {name.lower() for name, _ in contract.template.headers}
    if has_body and "content-type" not in headers:
        findings.problems.append(
            Problem(
                "content_type",
                f"{where}.headers",
                "has no Content-Type, so it is not known how values are written into the body",
                'Add headers = { Content-Type = "application/json" }',
            )
        )


def _check_url(contract: Contract, where: str, findings: Findings) -> None:
    url = contract.network.url
    place = f"{where}.network"
    if url.startswith("{settings.url}"):
        place = f"{where}.settings.url"
        given = contract.plain_settings().get("settings.url")
        if given is None:  # missing, which is said elsewhere, or a secret, which is not read here
            return
        url = given + url.removeprefix("{settings.url}")
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
        return
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
    _check_host(contract, where, place, parts, findings)


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


def _check_host(contract: Contract, where: str, place: str, parts: SplitResult, findings: Findings) -> None:
    if parts.scheme == "http":
        target = findings.warnings if contract.destination.allow_http else findings.problems
        target.append(
            Problem(
                "plain_http",
                place,
                "is plain http: ids travel unencrypted",
                "Use https, or set allow_http = true",
            )
        )
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
    if contract.destination.allow_private:
        findings.warnings.append(
            Problem(
                "allow_private",
                f"{where}.allow_private",
                "private addresses may be contacted",
                "For tests only",
            )
        )


def _check_age(contract: Contract, where: str, findings: Findings) -> None:
    limit = contract.network.age_limit
    if limit is None:
        return
    horizon = contract.retry.horizon
    for place, hold in contract.destination.policies().items():
        wait = hold.longest_wait
        if wait + horizon <= limit.wait:
            continue
        most = f" (at most {show(wait)})" if wait != hold.wait else ""
        findings.problems.append(
            Problem(
                "age_limit",
                f"{where}.{place}.wait",
                f"wait {show_wait(hold.wait)}{most} + retry horizon {show(horizon)} = {show(wait + horizon)}, but "
                f"{contract.network.title} ignores conversions {show(limit.wait)} after the {limit.measured_from}",
                "Shorten the wait or retry.horizon",
            )
        )


def _check_dedupe_window(contract: Contract, where: str, findings: Findings) -> None:
    """A repeat counts once only while the network remembers the first."""
    window, horizon = contract.network.dedupe_window, contract.retry.horizon
    if window is None or contract.dedupe is Dedupe.COUNTED_TWICE or horizon < window:
        return
    findings.problems.append(
        Problem(
            "dedupe_window",
            f"{where}.retry.horizon",
            f"{show(horizon)} is too long: {contract.network.title} counts a repeat again after {show(window)}",
            f'Make it shorter than {show(window)}, or set dedupe = "counted_twice"',
        )
    )
