"""Holding a destination against its network's contract: every finding names the key and the remedy."""

from __future__ import annotations

import re
from datetime import timedelta

from schemas.calendars import show_wait
from schemas.checking_corrections import check_corrections, correction_macros
from schemas.checking_questions import check_questions
from schemas.checking_urls import Findings, check_url
from schemas.destination import Contract
from schemas.durations import show
from schemas.macros import EVENT_MACROS, names_in
from schemas.problem import Problem
from schemas.verdict import Dedupe


def check(contract: Contract) -> Findings:
    """Hold a destination against its network's contract. Every finding names the key and the remedy."""
    findings = Findings([], [])
    where = f"destinations.{contract.name}"
    _check_settings(contract, where, findings)
    _check_macros(contract, where, findings)
    _check_parameters(contract, where, findings)
    _check_body(contract, where, findings)
    check_url(contract, where, contract.network.url, f"{where}.network", findings)
    check_corrections(contract, where, findings)
    check_questions(contract, where, findings)
    _check_age(contract, where, findings)
    _check_dedupe_window(contract, where, findings)
    if contract.destination.allow_private:
        findings.warnings.append(
            Problem(
                "allow_private",
                f"{where}.allow_private",
                "private addresses may be contacted",
                "For tests only",
            )
        )
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
    free = {name.removeprefix("settings.") for name in _macros(contract) | correction_macros(contract)}
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
    return frozenset().union(*(names_in(text) for text in contract.texts))


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


def _check_age(contract: Contract, where: str, findings: Findings) -> None:
    limit = contract.network.age_limit
    if limit is None:
        return
    horizon = contract.retry.horizon
    for place, hold in contract.destination.policies().items():
        wait = hold.longest_wait
        if wait + horizon <= limit.wait:
            continue
        asking = timedelta(0) if hold.check is None else hold.check.horizon
        held = wait - asking
        most = f" (at most {show(held)})" if held != hold.wait else ""
        asks = f" + check.horizon {show(asking)}" if asking else ""
        findings.problems.append(
            Problem(
                "age_limit",
                f"{where}.{place}.wait",
                f"wait {show_wait(hold.wait)}{most}{asks} + retry horizon {show(horizon)} = {show(wait + horizon)}, but "
                f"{contract.network.title} ignores conversions {show(limit.wait)} after the {limit.measured_from}",
                f"Shorten the wait{', check.horizon' if asking else ''} or retry.horizon",
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
