"""Salesforce: SOAP in, SOAP out, several records a message."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from producers.hooks.registry import HOOKS
from tests.unit.hooks.eight import delivery, event, events, fixture, refusals, taken, verified

MESSAGE = fixture("salesforce_opportunity.xml")
WON: dict[str, Any] = {"events": {"Opportunity.StageName=Closed Won": "purchase"}}
BOTH: dict[str, Any] = {**WON, "signals": {"Opportunity.StageName=Closed Lost": "cancel"}}


def test_the_key_in_the_url_makes_it_genuine() -> None:
    """Salesforce signs nothing; an allow list of its addresses can be asked for besides."""
    sent = delivery(MESSAGE, url="https://door.example.com/hooks/it?key=sesame", peer="13.108.0.1")
    assert verified("salesforce", sent, "sesame", allow=["13.108.0.0/14"]) is None
    assert verified("salesforce", sent, "sesame", allow=["10.0.0.0/8"]) is not None
    assert verified("salesforce", sent, "other") is not None


def test_each_record_is_an_event_of_its_own_notification() -> None:
    """One won, one lost, in one message."""
    assert events("salesforce", MESSAGE, **BOTH, click_ids={"xandr": "Click_Id__c"}) == [
        {
            "type": "conversion",
            "event_id": "salesforce:04l0800002nrC5BAAU",
            "name": "purchase",
            "order_id": "0062400000abcdeAAA",
            "occurred_at": "2026-09-21T14:13:20Z",
            "value": "49.90",
            "currency": "EUR",
            "click_ids": {"xandr": "3f9c1b2a7d"},
        },
        {
            "type": "cancel",
            "event_id": "salesforce:04l0800002nrC5CAAU",
            "order_id": "0062400000abcdfAAA",
            "occurred_at": "2026-09-21T14:13:21Z",
            "reason": "Opportunity.StageName=Closed Lost",
        },
    ]


def test_the_answer_is_the_acknowledgement_that_salesforce_waits_for() -> None:
    """Without it the message is sent again for a day."""
    answer = HOOKS["salesforce"].answer
    acknowledged = ET.fromstring(answer.body).find(".//{http://soap.sforce.com/2005/09/outbound}Ack")
    assert acknowledged is not None
    assert (acknowledged.text, answer.media_type, answer.status) == ("true", "text/xml", 200)


def test_the_session_id_is_not_kept() -> None:
    """What is kept maps to the same events; it opens nobody's account."""
    kept = HOOKS["salesforce"].conceal(MESSAGE)
    assert b"AQ4AQFnoT" not in kept
    assert b"<SessionId>[secret]</SessionId>" in kept
    assert events("salesforce", kept, **BOTH) == events("salesforce", MESSAGE, **BOTH)
    without = re.sub(rb"<SessionId>.*</SessionId>", b'<SessionId xsi:nil="true"/>', MESSAGE)
    assert HOOKS["salesforce"].conceal(without) == without
    prefixed = MESSAGE.replace(b"<SessionId>", b"<n:SessionId >").replace(b"</SessionId>", b"</n:SessionId>")
    assert b"AQ4AQFnoT" not in HOOKS["salesforce"].conceal(prefixed)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_xml_with_a_document_type_is_refused_in_any_encoding(encoding: str) -> None:
    """Entities that unfold to gigabytes or read files begin there."""
    bomb = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]><a>&b;</a>'
    (problem,) = refusals("salesforce", bomb.encode(encoding))
    assert problem.startswith("body: declares a document type")


def test_what_is_no_message_is_refused_in_words() -> None:
    """Cut short, too deep, or some other XML."""
    assert "body: is no XML" in refusals("salesforce", MESSAGE[:600])[0]
    assert "body: is nested too deep" in refusals("salesforce", b"<a>" * 50 + b"</a>" * 50)[0]
    assert "body: has no notifications" in refusals("salesforce", b"<a/>")[0]


def test_messages_of_another_organisation_are_refused() -> None:
    """The id of 15 characters is that of 18."""
    assert len(events("salesforce", MESSAGE, **BOTH, organization="00D24000000abcd")) == 2
    (problem,) = refusals("salesforce", MESSAGE, **BOTH, organization="00D24000000other")
    assert problem.startswith("OrganizationId: is '00D24000000abcdEAA'")


def test_a_message_that_is_sent_again_has_the_same_ids() -> None:
    """Its notifications are those it had, in whatever order."""
    first, second = re.findall(rb"<Notification>.*?</Notification>", MESSAGE, re.DOTALL)
    swapped = MESSAGE.replace(first, b"@").replace(second, first).replace(b"@", second)
    assert taken("salesforce", swapped, **BOTH).dedupe_id == taken("salesforce", MESSAGE, **BOTH).dedupe_id
    ids = [{each["event_id"] for each in events("salesforce", body, **BOTH)} for body in (MESSAGE, swapped)]
    assert ids[0] == ids[1]


def test_fields_are_those_that_the_table_names() -> None:
    """Order id, value and what was given back may stand in any field."""
    named = {
        "order_id": "Click_Id__c",
        "signals": {"Opportunity": "refund"},
        "refunded": "Amount",
        "events": {"Opportunity.StageName=Closed Lost": ""},
    }
    found = event("salesforce", MESSAGE, **named)
    assert (found["type"], found["order_id"], found["amount"], found["amount_is"]) == (
        "refund",
        "3f9c1b2a7d",
        "49.90",
        "cumulative",
    )


def test_a_message_without_its_instant_happened_when_it_came() -> None:
    """A message has only the fields that were chosen for it."""
    bare = re.sub(rb"<sf:LastModifiedDate>.*?</sf:LastModifiedDate>", b"", MESSAGE)
    assert event("salesforce", bare, **WON)["occurred_at"] == "2026-11-22T10:00:00Z"


def test_records_nobody_asked_for_are_named() -> None:
    """With what a topic looks like."""
    assert "Opportunity" in (taken("salesforce", MESSAGE).ignored or "")
    lead = MESSAGE.replace(b"sf:Opportunity", b"sf:Lead")
    assert event("salesforce", lead, events={"Lead.StageName=Closed Won": "lead"})["name"] == "lead"


def test_a_currency_is_asked_for_where_the_organisation_has_one() -> None:
    """Only organisations with several send CurrencyIsoCode."""
    plain = re.sub(rb"<sf:CurrencyIsoCode>.*?</sf:CurrencyIsoCode>", b"", MESSAGE)
    assert "CurrencyIsoCode: is missing" in refusals("salesforce", plain, **WON)[0]
    assert event("salesforce", plain, **WON, currency="CHF")["currency"] == "CHF"
