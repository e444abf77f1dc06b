"""A conversion as it stands in the store, and what a conversion event is made into."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import orjson

from schemas.click import Match, Matches, keys_of
from schemas.destination import Contract, DestinationVersion, Requirement
from schemas.event import ConversionEvent
from schemas.hold import release_at
from schemas.lifecycle import State
from schemas.macros import RenderError, render
from schemas.money import plain


@dataclass(frozen=True, slots=True)
class PlannedPostback:
    """A postback to be held: everything about it is fixed here, under the contract version of this moment."""

    version_id: int
    state: State
    """``held``, or ``rejected`` when it can never be rendered for its network (``reason`` says why)."""
    release_at: datetime
    expires_at: datetime | None
    dedupe_key: bytes
    reason: str | None = None
    manual: bool = False
    """Whether it waits for a release by hand once its window has ended."""
    destination: str = ""


@dataclass(frozen=True, slots=True)
class StoredConversion:
    """A conversion event read back from the store: it was validated when it was taken, so it is only unpacked.

    Thousands a second pass the fire gate; validating each again would cost as much as sending it.
    """

    event_id: str
    source: str
    name: str
    occurred_at: datetime
    order_id: str | None
    value: Decimal | None
    currency: str | None
    click_ids: dict[str, str]
    partner_id: str | None
    sequence: int | None
    params: dict[str, str]


def read_stored_conversion(
    text: str, matched: Mapping[str, Mapping[str, str]] | None = None
) -> StoredConversion:
    """Unpack a stored conversion event from its JSON text, with the click ids that were found for it.

    ``matched`` is as ``schemas.click.wire_matches`` wrote it.
    """
    raw = orjson.loads(text)
    get = raw.get
    click_ids = get("click_ids") or {}
    if matched:
        click_ids |= {destination: each["token"] for destination, each in matched.items()}
    return StoredConversion(
        raw["event_id"],
        raw["source"],
        raw["name"],
        datetime.fromisoformat(raw["occurred_at"]),
        get("order_id"),
        None if get("value") is None else Decimal(raw["value"]),
        get("currency"),
        click_ids,
        get("partner_id"),
        get("sequence"),
        get("params") or {},
    )


def attributed(event: ConversionEvent, matches: Matches) -> ConversionEvent:
    """The event with the click ids that were found for it, each under its destination's name."""
    if not matches:
        return event
    found = {destination: match.token for destination, match in matches.items()}
    return event.model_copy(update={"click_ids": event.click_ids | found})


NO_MATCHES: Matches = {}


def route(
    event: ConversionEvent,
    versions: list[DestinationVersion],
    received_at: datetime,
    matches: Matches = NO_MATCHES,
    *,
    now: datetime | None = None,
) -> list[PlannedPostback]:
    """The postbacks one conversion event gets: one for every destination that takes it, none if none does.

    A destination takes an event whose name it lists and which carries what its protocol attributes by: a
    click id for its network, its own or one of ``matches``, or a partner id; and what it requires beside that.
    ``received_at`` is the database's clock at intake; ``now``, if it is later, when a click routes it again.
    """
    event = attributed(event, matches)
    return [
        _plan(event, version, received_at, matches.get(version.contract.name), now or received_at)
        for version in versions
        if takes(version.contract, event)
    ]


def takes(contract: Contract, event: ConversionEvent) -> bool:
    """Whether the destination takes the event as it stands."""
    return (
        event.name in contract.destination.events
        and _attributes(contract, event)
        and not lacking(contract, event)
    )


def _attributes(contract: Contract, event: ConversionEvent) -> bool:
    if contract.protocol == "partner":
        return event.partner_id is not None
    return contract.network.slug in event.click_ids or contract.name in event.click_ids


def lacking(contract: Contract, event: ConversionEvent) -> list[Requirement]:
    """What the destination requires and the event does not carry."""
    given = contract.name in event.click_ids or contract.network.slug in event.click_ids
    return [
        name
        for name in contract.destination.require
        if not (given if name == "click_id" else getattr(event, name) is not None)
    ]


def wanting(event: ConversionEvent, versions: list[DestinationVersion]) -> list[Contract]:
    """Destinations that would take the event if a click id were found for it by a key that it carries."""
    named = (version.contract for version in versions if event.name in version.contract.destination.events)
    left = [contract for contract in named if not takes(contract, event)]
    if not left or not keys_of(event):
        return []
    with_it = event.model_copy(
        update={"click_ids": event.click_ids | {contract.name: "found" for contract in left}}
    )
    return [contract for contract in left if takes(contract, with_it)]


def still_open(contract: Contract, event: ConversionEvent, clicked_at: datetime, now: datetime) -> bool:
    """Whether a click that comes late may still route the event: its network would count it, or nothing says no."""
    limit = contract.network.age_limit
    if limit is None:
        return now <= event.occurred_at + contract.destination.register_horizon
    return now <= (clicked_at if limit.measured_from == "click" else event.occurred_at) + limit.wait


def click_id_for(contract: Contract, event: ConversionEvent | StoredConversion) -> str | None:
    """The token this account attributes by: ``click_ids`` may name the destination, or else the network.

    None under the partner protocol: a rebill that carried its click id along would be refused as that click's
    duplicate.
    """
    if contract.protocol == "partner":
        return None
    return event.click_ids.get(contract.name) or event.click_ids.get(contract.network.slug)


def why_unrouted(event: ConversionEvent, versions: list[DestinationVersion]) -> str:
    """For the record and the reader: why no destination takes the event, and what would change that."""
    if not versions:
        return "no destination has been applied; run `holdfire destinations apply`"
    naming = [version.contract for version in versions if event.name in version.contract.destination.events]
    if not naming:
        return f"no destination lists the event name {event.name!r}; add it to its `events`"
    wanted = sorted(
        "a partner_id" if contract.protocol == "partner" else f"a click id for {contract.network.slug}"
        for contract in naming
        if not _attributes(contract, event)
    )
    said = [f"the event carries none of: {', '.join(dict.fromkeys(wanted))}"] if wanted else []
    return "; ".join([*said, *(f"{name} {reason}" for name, reason in refusals(event, versions).items())])


def refusals(event: ConversionEvent, versions: list[DestinationVersion]) -> dict[str, str]:
    """By destination that lists the event's name: what it requires and does not get."""
    found = {}
    for contract in (version.contract for version in versions):
        if event.name in contract.destination.events and (lacks := lacking(contract, event)):
            found[contract.name] = f"requires {', '.join(lacks)}"
    return found


def dedupe_key(contract: Contract, event: ConversionEvent | StoredConversion) -> bytes:
    """16 bytes that two postbacks share exactly when the network would take them for the same conversion.

    Transaction protocol: destination, name, click id, and the order id where the network has a sub-id.
    Partner protocol: destination, name, partner id, order id and sequence, since rebills are legitimate there
    and this ledger is the only dedupe; an event with neither stands for itself.
    """
    if contract.protocol == "partner":
        sequence = "" if event.sequence is None else str(event.sequence)
        own = "" if event.order_id or sequence else f"{event.source}\x1f{event.event_id}"
        parts = ["partner", event.partner_id or "", event.order_id or "", sequence, own]
    else:
        parts = ["transaction", click_id_for(contract, event) or ""]
        parts.append((event.order_id or "") if contract.network.sub_id else "")
    text = "\x1f".join([contract.name, contract.event_name(event.name), *parts])
    return hashlib.sha256(text.encode()).digest()[:16]


def _plan(
    event: ConversionEvent,
    version: DestinationVersion,
    received_at: datetime,
    match: Match | None,
    now: datetime,
) -> PlannedPostback:
    contract = version.contract
    clicked_at = event.clicked_at if match is None else match.clicked_at
    limit = contract.network.age_limit
    expires_at = None
    if limit is not None:
        start = clicked_at if limit.measured_from == "click" and clicked_at else event.occurred_at
        expires_at = start + limit.wait
    reason = unrenderable(contract, event)
    hold = contract.destination.hold_for(event)
    return PlannedPostback(
        version_id=version.id,
        state=State.REJECTED if reason else State.HELD,
        release_at=release_at(
            hold,
            occurred_at=event.occurred_at,
            clicked_at=clicked_at,
            received_at=received_at,
            now=now,
        ),
        expires_at=expires_at,
        dedupe_key=dedupe_key(contract, event),
        reason=reason,
        manual=hold.release == "manual",
        destination=contract.name,
    )


def unrenderable(contract: Contract, event: ConversionEvent | StoredConversion) -> str | None:
    """Why this event can never be rendered for the destination, or None. Secrets are stood in for."""
    taken = contract.network.currencies
    if event.value is not None and taken and event.currency not in taken:
        return (
            f"cannot be rendered: value is in {event.currency}, but {contract.network.title} takes it in "
            f"{', '.join(taken)} only. Convert it at the source, or send the event without value"
        )
    stand_ins = {
        place: "secret" for place in contract.destination.secret_refs() if place.startswith("settings.")
    }
    values = contract.plain_settings() | stand_ins | event_values(contract, event, "0", event.value)
    try:
        render(contract.template, values)
    except RenderError as error:
        return f"cannot be rendered: {error}"
    return None


def event_values(
    contract: Contract,
    event: ConversionEvent | StoredConversion,
    postback_id: str,
    net_value: Decimal | None,
    delta: Decimal | None = None,
) -> dict[str, str | None]:
    """The macro values an event fills. ``net_value`` is what is left of its value after refunds, ``delta`` of an
    adjustment the signed change from what the network was told last.

    Of click id and partner id only the one its protocol attributes by.
    """
    values: dict[str, str | None] = {
        "click_id": click_id_for(contract, event),
        "order_id": event.order_id,
        "value": None if net_value is None else plain(net_value),
        "currency": event.currency,
        "name": contract.event_name(event.name),
        "event_id": event.event_id,
        "source": event.source,
        "partner_id": event.partner_id if contract.protocol == "partner" else None,
        "sequence": None if event.sequence is None else str(event.sequence),
        "occurred_at": event.occurred_at.isoformat(),
        "occurred_unix": str(int(event.occurred_at.timestamp())),
        "postback_id": postback_id,
    }
    if delta is not None:
        values["delta"] = plain(delta)
    for name, value in event.params.items():
        values[f"params.{name}"] = value
    return values
