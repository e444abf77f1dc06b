"""What each signal came to, in words that are kept with it: an investigator reads there what it did to whom."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import Connection, text

from infra.db.engine import as_json
from infra.store.correcting import FollowUp
from infra.store.naming import Case
from infra.store.rulings import Ruled
from schemas.event import ChargebackSignal, CreditCheckSignal, RefundSignal, Signal
from schemas.lifecycle import State


@dataclass(frozen=True, slots=True)
class Done:
    """A case and what was done about it. ``corrected`` by postback: what is done about what the network was told."""

    case: Case
    ruled: list[Ruled]
    corrected: dict[int, FollowUp]

    def outcome(self, signal: Signal) -> tuple[bool, str]:
        """Whether the signal changed anything, and in words."""
        case = self.case
        subject = f"cv_{case.conversion.id}: "
        if note := case.result.notes.get(signal.event_id):
            return False, subject + note
        parts = self._moved()
        if self._new_value:
            parts.insert(0, f"net value is now {case.result.net_value}")
        if isinstance(signal, RefundSignal) and (over := case.result.notes.get("refunds")):
            parts.append(over)
        late = self._late()
        said = "; ".join([*parts, *late]) or _nothing(signal)
        told = any(self.corrected[number].told for number in self._delivered() if number in self.corrected)
        return bool(parts) or told, subject + said

    @property
    def _new_value(self) -> bool:
        return self.case.result.net_value != self.case.conversion.net_value

    def _ids(self, *, state: State | None = None, **ruling: bool) -> list[int]:
        return [
            each.found.id
            for each in self.ruled
            if (state is None or each.found.state is state)
            and all(bool(getattr(each.ruling, name)) is wanted for name, wanted in ruling.items())
        ]

    def _delivered(self) -> list[int]:
        """Those that the network has: also one that a person was about to fire again."""
        return [
            each.found.id
            for each in self.ruled
            if each.found.state is State.DELIVERED
            or (each.ruling.returns and each.found.falls_back is State.DELIVERED)
        ]

    def _moved(self) -> list[str]:
        reasons = dict.fromkeys(each.ruling.void for each in self.ruled if each.ruling.void)
        parts = [
            f"voided {_names([each.found.id for each in self.ruled if each.ruling.void is reason])} as {reason}"
            for reason in reasons
        ]
        parts += [wish(number) for number in self._ids(state=State.FIRING, wish=True)]
        for words, numbers in (
            ("stopped the replay of", self._ids(returns=True)),
            ("reinstated", self._ids(reinstate=True)),
            ("ended the window of", self._ids(release_early=True)),
        ):
            if numbers:
                parts.append(f"{words} {_names(numbers)}")
        return parts

    def _late(self) -> list[str]:
        parts = []
        firing = self._ids(state=State.FIRING, wish=False)
        if firing and self._new_value:
            parts.append(f"{_names(firing)} was on the wire with the value before")
        told = [number for number in self._delivered() if number in self.corrected]
        if told:
            value = " with the value before" if self._new_value and self.case.result.net_value else ""
            parts.append(f"late: {_names(told)} had been delivered{value}")
            parts += [self.corrected[number].words for number in told]
        return parts


def _nothing(signal: Signal) -> str:
    match signal:
        case CreditCheckSignal() | ChargebackSignal():
            return f"{signal.type} {signal.outcome}: no policy of this conversion acts on it now"
    return f"{signal.type}: nothing was left to change"


def record(connection: Connection, done: list[Done]) -> None:
    """Write down, once, what each signal came to. One that names no conversion goes on waiting."""
    words: dict[int, list[tuple[bool, str]]] = defaultdict(list)
    for each in done:
        for signal in each.case.signals:
            if signal.waiting:
                words[signal.id].append(each.outcome(signal.event))
    rows = [
        {
            "id": number,
            "status": "applied" if any(applied for applied, _ in parts) else "noted",
            "outcome": "; ".join(said for _, said in parts),
        }
        for number, parts in words.items()
    ]
    if rows:
        connection.execute(
            text("""
            UPDATE signals s SET status = r.status, outcome = r.outcome
            FROM json_to_recordset(:rows) AS r(id bigint, status text, outcome text) WHERE s.id = r.id"""),
            {"rows": as_json(rows)},
        )


def record_wishes(connection: Connection, settled: dict[int, State], corrected: dict[int, FollowUp]) -> None:
    """Say in the signals that came while these postbacks were on the wire what became of them.

    ``corrected`` by postback: how the network is told of it.
    """
    if not settled:
        return
    signals = connection.execute(
        text("""
        SELECT id, outcome FROM signals WHERE id = ANY(ARRAY(
            SELECT s.id FROM postbacks p JOIN conversions c ON c.id = p.conversion_id
                JOIN signals s ON s.order_id = c.order_id OR s.conversion_event_id = c.event_id
            WHERE p.id = ANY(:ids))) ORDER BY id FOR UPDATE"""),
        {"ids": list(settled)},
    ).all()
    rows = []
    for signal in signals:  # one signal may have met several of them
        outcome = signal.outcome
        for number, state in settled.items():
            follow_up = corrected.get(number)
            answer = _answer_to_wish(number, state) + (f"; {follow_up.words}" if follow_up else "")
            outcome = outcome.replace(wish(number), answer)
        rows.append({"id": signal.id, "outcome": outcome})
    connection.execute(
        text("""
        UPDATE signals s SET outcome = r.outcome
        FROM json_to_recordset(:rows) AS r(id bigint, outcome text) WHERE s.id = r.id"""),
        {"rows": as_json(rows)},
    )


def wish(number: int) -> str:
    return f"pb_{number} was on the wire, no further attempt will be made"


def _answer_to_wish(number: int, state: State) -> str:
    if state is State.DELIVERED:
        return f"late: pb_{number} was on the wire and was delivered"
    return f"pb_{number} was on the wire and is {state}, no further attempt is made"


def _names(ids: list[int]) -> str:
    return ", ".join(f"pb_{number}" for number in ids)
