"""One postback outside the ledger: rendered to be looked at, or fired once to test a destination."""

from __future__ import annotations

import queue
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_DOWN, Decimal
from typing import Any

from infra.version import VERSION
from schemas.conversion import takes, unrenderable
from schemas.destination import Contract, DestinationVersion
from schemas.event import ConversionEvent, read_event
from schemas.network import AdjustmentKind
from schemas.postback import Asking, Correction, Gated, Prepared, SettledAttempt, Stopped
from schemas.problem import InvalidInputError, Problem
from workers.asking import ask_first
from workers.rendering import Account, Renderer
from workers.rendering import prepare as render_postback
from workers.settling import settle_answer
from workers.wire import Answered, AnsweredCheck, Wire

SLACK_S = 15.0
"""How much longer than its deadline an attempt may take to come back from the wire: a token may be fetched."""

_SAMPLE: dict[str, str] = {
    "click_id": "holdfire-example-click-id",
    "order_id": "example1",
    "value": "49.90",
    "currency": "EUR",
    "partner_id": "examplepartner",
}


class CannotBeSentError(ValueError):
    """A postback that its destination's contract stops. Says why and what would change that."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A rendered request as a person may see it: secrets masked, everything else as it would be sent."""

    method: str
    url: str
    headers: list[tuple[str, str]]
    body: str
    notes: list[str]


def example_event(contract: Contract, now: datetime) -> dict[str, Any]:
    """An event the destination takes, filled from the network's own documented example where it has one."""
    given = contract.network.examples[0].event if contract.network.examples else {}
    values = {**_SAMPLE, **{name: value for name, value in given.items() if name in _SAMPLE}}
    if contract.protocol != "partner":
        del values["partner_id"]
    event: dict[str, Any] = {
        "version": 1,
        "type": "conversion",
        "event_id": f"example:{now:%Y%m%dT%H%M%S.%f}",
        "source": "holdfire-example",
        "name": contract.destination.events[0],
        "occurred_at": now.isoformat(),
        "click_ids": {contract.network.slug: values.pop("click_id")},
        **values,
    }
    params = {
        name.removeprefix("params."): value for name, value in given.items() if name.startswith("params.")
    }
    return event | ({"params": params} if params else {})


def read_for(contract: Contract, raw: object, now: datetime) -> ConversionEvent:
    """Validate an event for this destination. Raises ``InvalidInputError``, also when it would not be routed here."""
    event = read_event(raw, now)
    if not isinstance(event, ConversionEvent):
        reason, remedy = f"is {event.type}, which is never sent itself", "Give a conversion event"
        raise InvalidInputError([Problem("not_a_conversion", "type", reason, remedy)])
    if event.name not in contract.destination.events:
        remedy = f"Use one of {', '.join(contract.destination.events)}"
        raise InvalidInputError(
            [Problem("not_routed", "name", f"{contract.name} does not list {event.name!r}", remedy)]
        )
    if not takes(contract, event):
        field = "partner_id" if contract.protocol == "partner" else f"click_ids.{contract.network.slug}"
        reason = f"is missing, and {contract.name} attributes by it"
        raise InvalidInputError([Problem("not_routed", field, reason, "Add it")])
    return event


def prepare(
    version: DestinationVersion, event: ConversionEvent, adjustment: AdjustmentKind | None = None
) -> tuple[Prepared, Account]:
    """Render one postback as firing would. Raises ``CannotBeSentError``, or ``SecretError`` for a missing secret.

    ``adjustment``: not the conversion's own postback but the correction of it, as if all of it had been given back after
    delivery (``retraction``), or half of its value (``restatement``).
    """
    if reason := unrenderable(version.contract, event):  # what intake would say
        raise CannotBeSentError(f"{version.contract.name}: {reason}")
    if adjustment is not None and (why := _no_correction(version.contract, adjustment)):
        raise CannotBeSentError(f"{version.contract.name}: {why}")
    renderer = Renderer(_Only(version))
    account = renderer.account(version.id)
    now = datetime.now(UTC)
    gated = Gated(
        postback_id=0,
        token=0,
        attempt_id=0,
        number=1,
        version_id=version.id,
        had_unknown=False,
        first_attempt_at=now,
        expires_at=None,
        net_value=_half(version.contract, event) if adjustment == "restatement" else event.value,
        event=event,
        now=now,
        # A hold that waits for a decision is not what is looked at here.
        outcomes=("refund",) if adjustment == "retraction" else ("credit_check.approved",),
        correction=adjustment and Correction(adjustment, event.value, retracted=False),
    )
    prepared = render_postback(gated, account)
    if isinstance(prepared, Stopped):
        raise CannotBeSentError(f"{version.contract.name}: {prepared.reason}")
    return prepared, account


def _no_correction(contract: Contract, kind: AdjustmentKind) -> str | None:
    """Why it is never sent, and what would change that, or None if it is."""
    adjustment = contract.network.adjustments.of(kind)
    if adjustment is None:
        return f"{contract.network.title} takes no {kind}: what stands wrong there is recorded as lost"
    if not contract.destination.adjust.send:
        return f"no {kind} is ever sent: set adjust = {{ send = true }}"
    if missing := contract.missing_for(adjustment):
        return f"no {kind} can be sent: give {', '.join(f'settings.{name}' for name in missing)}"
    return None


def _half(contract: Contract, event: ConversionEvent) -> Decimal:
    if not event.value:
        raise CannotBeSentError(
            f"{contract.name}: a restatement needs a value, and the event has none. Add it"
        )
    return event.value - (event.value / 2).quantize(event.value, ROUND_DOWN)


def question(prepared: Prepared, account: Account) -> str | None:
    """The URL that is asked before it is released, secrets masked, if there is one. Raises ``CannotBeSentError``."""
    asked = ask_first(prepared, account)
    if isinstance(asked, Stopped):
        raise CannotBeSentError(f"{account.version.contract.name}: {asked.reason}")
    return asked.shown_url if isinstance(asked, Asking) else None


def show(prepared: Prepared, account: Account) -> Shown:
    """The request with its secrets masked and its click id intact."""

    def masked(data: bytes) -> str:
        return account.redactor.in_bytes(data, prepared.click_id).decode("utf-8", "backslashreplace")

    return Shown(
        method=prepared.request.method,
        url=prepared.shown_url,
        headers=[(name.decode("latin-1"), masked(value)) for name, value in prepared.request.headers],
        body=masked(prepared.request.body),
        notes=list(prepared.notes),
    )


def fire_once(prepared: Prepared, account: Account) -> SettledAttempt:
    """Send it, now and once, and judge the answer; nothing is held, retried or settled. Evidence comes masked."""
    answers: queue.SimpleQueue[Answered | AnsweredCheck] = queue.SimpleQueue()
    wire = Wire(answers.put)
    try:
        wire.send([(prepared, account)])
        deadline_s = account.version.contract.fetch_limits.deadline_s
        answered = answers.get(timeout=deadline_s + SLACK_S)
        assert isinstance(answered, Answered)
    finally:
        wire.close()
    # The draw decides a retry's delay, and this attempt is never retried.
    return settle_answer(answered, f"try, holdfire {VERSION}", datetime.now(UTC), draw=0.5)


class _Only:
    """The one version there is."""

    def __init__(self, version: DestinationVersion) -> None:
        self._version = version

    def version(self, version_id: int) -> DestinationVersion:
        return self._version
