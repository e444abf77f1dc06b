"""Holding the corrections of a destination against what its account gives: can they be sent, and where to."""

from __future__ import annotations

from schemas.checking_urls import Findings, check_url
from schemas.destination import Contract
from schemas.macros import ADJUSTMENT_MACROS, names_in
from schemas.network import Adjustment, AdjustmentKind
from schemas.problem import Problem


def check_corrections(contract: Contract, where: str, findings: Findings) -> None:
    """Every finding names the key and the remedy. What the destination never sends is not looked at."""
    destination, adjustments = contract.destination, contract.network.adjustments.all()
    if "adjust" in destination.model_fields_set and destination.adjust.send and not adjustments:
        findings.warnings.append(
            Problem(
                "no_corrections",
                f"{where}.adjust",
                f"{contract.network.title} takes no corrections: refunds after delivery will be recorded as lost",
                "Remove it, or hold for as long as refunds come",
            )
        )
    if not destination.adjust.send:
        return
    checked = {contract.network.url}
    for kind, adjustment in adjustments.items():
        place = f"{where}.rules.adjustments.{kind}" if contract.network.open_rules else f"{where}.network"
        if contract.network.open_rules:
            _check_macros(contract, adjustment, place, findings)
            _check_amount(contract, kind, adjustment, place, findings)
        elif missing := contract.missing_for(adjustment):
            _warn_of_missing(contract, where, kind, missing, findings)
            continue
        _check_body(contract, kind, adjustment, place, findings)
        if adjustment.url not in checked:
            check_url(contract, where, adjustment.url, f"{place}.url", findings)
        checked.add(adjustment.url)


def correction_macros(contract: Contract) -> frozenset[str]:
    """Every macro that a correction names, the account's own texts included."""
    adjustments = contract.network.adjustments.all().values()
    return frozenset().union(*(_macros(contract, each) for each in adjustments))


def _macros(contract: Contract, adjustment: Adjustment) -> frozenset[str]:
    own = frozenset().union(*(names_in(text) for text in adjustment.texts()))
    settings = contract.plain_settings()
    return own.union(*(names_in(settings.get(name, "")) for name in own))


def _check_macros(contract: Contract, adjustment: Adjustment, place: str, findings: Findings) -> None:
    given = {f"settings.{name}" for name in (*contract.destination.settings, *contract.network.settings)}
    given |= {f"settings.{name}" for name in adjustment.defaults}
    for macro in sorted(_macros(contract, adjustment) - ADJUSTMENT_MACROS - given):
        if macro.startswith("params."):
            continue
        if macro.startswith("settings."):
            reason, remedy = f"{{{macro}}} has no value", f"Give {macro}"
        else:
            known = ", ".join(sorted(ADJUSTMENT_MACROS))
            reason, remedy = f"{{{macro}}} is no macro", f"Use one of {known}, params.NAME or settings.NAME"
        findings.problems.append(Problem("unknown_macro", place, reason, remedy))


def _check_amount(
    contract: Contract, kind: AdjustmentKind, adjustment: Adjustment, place: str, findings: Findings
) -> None:
    """A restatement that tells no amount would change nothing, and be taken for done."""
    if kind == "restatement" and not {"value", "delta"} & _macros(contract, adjustment):
        findings.problems.append(
            Problem(
                "restatement_without_amount",
                place,
                "tells no amount",
                "Put in {value} for the new total, or {delta} for its change",
            )
        )


def _check_body(
    contract: Contract, kind: AdjustmentKind, adjustment: Adjustment, place: str, findings: Findings
) -> None:
    headers = {name.lower() for name, _ in contract.template_for(kind).headers}
    if adjustment.body and "content-type" not in headers:
        findings.problems.append(
            Problem(
                "content_type",
                f"{place}.headers",
                "has no Content-Type, so it is not known how values are written into the body",
                'Add headers = { Content-Type = "application/json" }',
            )
        )


def _warn_of_missing(
    contract: Contract, where: str, kind: AdjustmentKind, missing: list[str], findings: Findings
) -> None:
    """An account may do without corrections, but knowingly."""
    which = "refunds" if kind == "retraction" else "partial refunds"
    others = contract.network.adjustments.all().keys() - {kind}
    if kind == "restatement" and not others:
        which = "refunds"
    for name in missing:
        about = contract.network.settings[name].about if name in contract.network.settings else "see its page"
        findings.warnings.append(
            Problem(
                "no_corrections",
                f"{where}.settings.{name}",
                f"is missing: {which} after delivery will be recorded as lost",
                f"Give it ({about}), or set adjust = {{ send = false }}",
            )
        )
