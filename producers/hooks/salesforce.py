"""Salesforce outbound messages: SOAP with up to 100 records, answered with SOAP. It signs nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final
from xml.etree import ElementTree as ET

from producers.hooks import meaning, unsigned
from producers.hooks.fields import text
from producers.hooks.hook import Answer, Delivery, Envelope, Hook, Mapped, MappingError, Options
from producers.hooks.verifying import KeyInUrl
from schemas.problem import Problem

ACKNOWLEDGEMENT: Final = (
    b'<?xml version="1.0" encoding="UTF-8"?>'
    b'<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>'
    b'<notificationsResponse xmlns="http://soap.sforce.com/2005/09/outbound"><Ack>true</Ack></notificationsResponse>'
    b"</soapenv:Body></soapenv:Envelope>"
)
_OUTBOUND: Final = "{http://soap.sforce.com/2005/09/outbound}"
_TYPE: Final = "{http://www.w3.org/2001/XMLSchema-instance}type"
_MAX_DEPTH: Final = 16
_SESSION: Final = re.compile(rb"(<(?:\w+:)?SessionId\b[^>]*(?<!/)>)[^<]+(?=<)")
_OWN: Final = {
    "organization": "the id of the organisation whose messages are taken",
    "order_id": "the record's field with the order id; Id otherwise",
    "value": "the record's field with the value; Amount otherwise",
    "refunded": "the record's field with what was given back so far; all of it otherwise",
    "occurred_at": "the record's field with the instant; LastModifiedDate otherwise",
}
_INSTANTS: Final = ("LastModifiedDate", "SystemModstamp", "CreatedDate")


def conceal(body: bytes) -> bytes:
    """The message without its session id: that opens the organisation's API to whoever reads it."""
    return _SESSION.sub(rb"\1[secret]", body)


def map_delivery(payload: bytes, delivery: Delivery, options: Options) -> Mapped:
    """Topics are ``Opportunity.StageName=Closed Won`` (a field's value) or ``Opportunity`` (any message of it)."""
    message = _message(payload)
    _check_organization(message, options)
    events, unmapped, topics = [], [], set()
    for notification in message.findall(f"{_OUTBOUND}Notification"):
        try:
            id_, kind, record = _record(notification)
            topics.add(kind)
            event = _event(id_, kind, record, delivery, options)
        except MappingError as error:
            unmapped.append(error)
        else:
            if event is not None:
                events.append(event)
    if not events and not unmapped:
        kinds = ", ".join(sorted(topics)) or "no record at all"
        return meaning.ignored(
            f"none of its records is in the source's events or signals: {kinds}",
            'Add a topic such as "Opportunity.StageName=Closed Won"',
        )
    return Mapped(events, unmapped=unmapped)


def _event(
    id_: str, kind: str, record: Mapping[str, str], delivery: Delivery, options: Options
) -> Envelope | None:
    topics = [*(f"{kind}.{field}={value}" for field, value in record.items()), kind]
    meant = meaning.meaning(options, topics)
    if meant is None:
        return None
    at_field = options.text("occurred_at", "") or next((name for name in _INSTANTS if name in record), "")
    # A message has only the fields that were chosen for it; when it came is near when it happened.
    written = record.get(at_field) or delivery.received_at.isoformat()
    value, currency = _amount(record, meant, options)
    order_id = options.text("order_id", "Id")
    return meaning.event(
        meant,
        f"salesforce:{id_}",
        meaning.instant(written, at_field),
        record.get(order_id) or None,
        value=value,
        currency=currency,
        amount_is="cumulative",
        **meaning.whose(record, options, keys={"lead_id": "Id"} if kind == "Lead" else None),
        reason=meant.topic,
    )


def _amount(
    record: Mapping[str, str], meant: meaning.Meaning, options: Options
) -> tuple[str | None, str | None]:
    """A conversion's value, or what a field says was taken back so far; without such a field it is all of it."""
    field = options.text("value", "Amount") if meant.kind == "conversion" else options.text("refunded", "")
    if not record.get(field):
        return None, None
    currency = meaning.currency_of(record, ["CurrencyIsoCode"], options)
    value = meaning.money(record[field], currency, field)
    if value.startswith("-"):
        raise MappingError(field, "is negative", "Look at the record in Salesforce")
    return value, currency


class _Records(ET.TreeBuilder):
    """Builds no tree of a document that declares a type: entities, and all that is unsafe in XML, begin there."""

    depth = 0

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise MappingError("body", "declares a document type", "Send what Salesforce sends, unchanged")

    def start(self, tag: Any, attrs: Any) -> Any:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise MappingError("body", "is nested too deep", "Send what Salesforce sends, unchanged")
        return super().start(tag, attrs)

    def end(self, tag: Any) -> Any:
        self.depth -= 1
        return super().end(tag)


def _message(payload: bytes) -> ET.Element:
    try:
        root = ET.fromstring(payload, ET.XMLParser(target=_Records()))  # noqa: S314 — _Records refuses entities
    except (ET.ParseError, ValueError, LookupError) as error:
        if isinstance(error, MappingError):
            raise
        raise MappingError("body", f"is no XML ({error})", "Send what Salesforce sends, unchanged") from None
    message = root.find(f".//{_OUTBOUND}notifications")
    if message is None:
        raise MappingError("body", "has no notifications", "Send an outbound message of Salesforce")
    return message


def _check_organization(message: ET.Element, options: Options) -> None:
    expected = options.text("organization", "")
    given = message.findtext(f"{_OUTBOUND}OrganizationId") or ""
    # An id has 15 characters, and three more that only guard against folded case.
    if expected and given[:15] != expected[:15]:
        raise MappingError("OrganizationId", f"is {given[:18]!r}, another organisation's", "Check the source")


def _record(notification: ET.Element) -> tuple[str, str, dict[str, str]]:
    """A notification's id, its record's type, and the record's fields."""
    id_ = text({"Id": notification.findtext(f"{_OUTBOUND}Id")}, "Id")
    record = notification.find(f"{_OUTBOUND}sObject")
    if id_ is None or record is None:
        raise MappingError("Notification", "has no Id or no sObject", "Send what Salesforce sends, unchanged")
    kind = record.get(_TYPE, "").rpartition(":")[2]
    return id_, kind, {field.tag.rpartition("}")[2]: field.text or "" for field in record}


def dedupe(payload: bytes, _: Delivery) -> str:
    """The notifications' ids: a message that was not acknowledged is sent again, perhaps with others beside it."""
    found = _message(payload).findall(f"{_OUTBOUND}Notification")
    ids = sorted(_record(notification)[0] for notification in found)
    return ids[0] if len(ids) == 1 else hashlib.sha256("\n".join(ids).encode()).hexdigest()


def check(options: Options) -> list[Problem]:
    return [*meaning.check(options, *_OWN), *unsigned.check(options)]


HOOK = Hook(
    slug="salesforce",
    title="Salesforce outbound messages",
    docs="https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/sforce_api_om_outboundmessaging_notifications.htm",
    payload="xml",
    verifier=KeyInUrl(),
    verifier_for=unsigned.verifier_for,
    map=map_delivery,
    dedupe=dedupe,
    conceal=conceal,
    answer=Answer(body=ACKNOWLEDGEMENT, media_type="text/xml"),
    options=meaning.TABLES | unsigned.OPTIONS | _OWN,
    check=check,
)
