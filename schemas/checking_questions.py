"""Holding what is asked before release against what can be asked."""

from __future__ import annotations

from schemas.check import ReleaseCheck
from schemas.checking_urls import Findings, check_sendable
from schemas.destination import Contract
from schemas.macros import EVENT_MACROS, names_in
from schemas.problem import Problem


def check_questions(contract: Contract, where: str, findings: Findings) -> None:
    """Every policy's question: its URL can be sent, its host is ours to choose, and an event fills its macros."""
    for place, hold in contract.destination.policies().items():
        if hold.check is not None:
            _check_question(hold.check, f"{where}.{place}.check", findings)


def _check_question(check: ReleaseCheck, where: str, findings: Findings) -> None:
    place = f"{where}.url"
    parts = check_sendable(check.url, place, check.allow_http, findings)
    if parts is not None and "{" in parts.netloc:
        reason = "takes its host from the event, which came from outside"
        findings.problems.append(Problem("url", place, reason, "Write the host out"))
    texts = {place: check.url} | {f"{where}.headers.{name}": text for name, text in check.headers.items()}
    for text_place, text in texts.items():
        for macro in sorted(names_in(text) - EVENT_MACROS):
            if macro.startswith("params."):
                continue
            findings.problems.append(
                Problem(
                    "unknown_macro",
                    text_place,
                    f"{{{macro}}} is no macro of an event",
                    f"Use one of {', '.join(sorted(EVENT_MACROS))} or params.NAME",
                )
            )
