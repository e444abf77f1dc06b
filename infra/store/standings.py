"""Signals and conversions: what stands of each by its signals, and what that does to its postbacks, in bulk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Sequence
from datetime import datetime
from functools import partial

from sqlalchemy import Connection, text

from infra.db.engine import as_json
from infra.store import correcting, rulings
from infra.store.destinations import Destinations
from infra.store.naming import Case, conversions_named, signals_about
from infra.store.rulings import Found, Ruled
from infra.store.said import Done, record
from schemas.destination import DestinationVersion
from schemas.event import ConversionEvent, Signal
from schemas.lifecycle import State
from schemas.ruling import Postback, rule
from schemas.signals import names, standing


def apply(  # noqa: PLR0913 — what is applied to what, by which versions, as of when
    connection: Connection,
    destinations: Destinations,
    now: datetime,
    conversions: Sequence[ConversionEvent],
    signals: Sequence[Signal],
    *,
    among: Container[int] | None = None,
) -> int:
    """Apply new signals to their conversions, and signals that came first to new conversions.

    Runs inside intake's transaction; ``now`` is its instant by the database's clock. ``among``: only these postbacks,
    which conversions that were there before have just got. Returns the number of postbacks voided.
    """
    early = signals_about(connection, (c.order_id for c in conversions), (c.event_id for c in conversions))
    targets = [*signals, *(received.event for received in early)]
    if not targets:
        return 0
    cases = _cases(connection, targets, {(c.source, c.event_id) for c in conversions})
    found = [each for each in rulings.lock(connection, list(cases)) if among is None or each.id in among]
    _keep(connection, [case for case in cases.values() if case.differs])
    version = partial(destinations.version, connection=connection)
    ruled = [_rule(cases[each.conversion_id], each, version(each.version_id), now) for each in found]
    rulings.carry_out(connection, now, ruled)
    late = [each.found.id for each in ruled if each.found.state is State.DELIVERED or each.ruling.returns]
    corrected = correcting.look_again(connection, late, version)
    of: dict[int, list[Ruled]] = defaultdict(list)
    for each in ruled:
        of[each.found.conversion_id].append(each)
    record(connection, [Done(case, of[number], corrected) for number, case in cases.items()])
    return sum(each.ruling.void is not None for each in ruled)


def _cases(
    connection: Connection, targets: Sequence[Signal], arriving: set[tuple[str, str]]
) -> dict[int, Case]:
    """By id, the conversions of which something else stands, or about which a signal has just come."""
    named = conversions_named(connection, targets)
    received = signals_about(connection, (c.order_id for c in named), (c.event_id for c in named))
    cases = {}
    for conversion in named:
        signals = [each for each in received if names(each.event, conversion)]
        result = standing(conversion.value, conversion.currency, [each.event for each in signals])
        arrives = (conversion.source, conversion.event_id) in arriving
        case = Case(conversion, signals, result, arrives)
        if case.differs or arrives or any(each.waiting for each in signals):
            cases[conversion.id] = case
    return cases


def _rule(case: Case, found: Found, version: DestinationVersion, now: datetime) -> Ruled:
    policy = version.contract.destination.hold_for(case.conversion)
    before = case.conversion.outcomes
    postback = Postback(found.state, found.release_at, found.void_reason, before, found.falls_back)
    return Ruled(
        found, version.contract, policy, rule(postback, policy, case.result.outcomes, case.confirmed, now)
    )


def _keep(connection: Connection, cases: list[Case]) -> None:
    """Write down what stands. Under the locks of all its postbacks: the gate reads it under the same."""
    rows = [
        {
            "id": case.conversion.id,
            "net": None if case.result.net_value is None else str(case.result.net_value),
            "outcomes": sorted(case.result.outcomes),
        }
        for case in cases
    ]
    if rows:
        connection.execute(
            text("""
            UPDATE conversions c SET net_value = r.net,
                outcomes = ARRAY(SELECT json_array_elements_text(r.outcomes))
            FROM json_to_recordset(:rows) AS r(id bigint, net numeric, outcomes json) WHERE c.id = r.id"""),
            {"rows": as_json(rows)},
        )
