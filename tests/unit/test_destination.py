"""A destination held against its network's contract: what is refused, what is warned of, and the remedy for each."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from infra.catalogue import load_catalogue
from schemas.checking import Findings, check
from schemas.destination import Contract, Destination, join
from schemas.macros import render
from schemas.network import host_allowed
from schemas.support import Support
from schemas.verdict import Dedupe, VerdictKind

XANDR: dict[str, Any] = {"network": "xandr", "events": ["purchase"], "settings": {"id": "25619"}}
PERSONAM: dict[str, Any] = {
    "network": "ad-personam",
    "events": ["purchase"],
    "settings": {"id": "59633", "url": "http://sspx-router.adnxs.net/sspx"},
}
GENERIC: dict[str, Any] = {
    "network": "generic",
    "events": ["purchase"],
    "settings": {"url": "https://h.example/?c={click_id}"},
}
KNOREX: dict[str, Any] = {
    "network": "knorex-xpo",
    "events": ["purchase"],
    "settings": {"url": "https://postback.example/xpo"},
}


BACK = "https://h.example/back?c={click_id}"
EVERFLOW: dict[str, Any] = {
    "network": "everflow",
    "events": ["purchase"],
    "settings": {"url": "https://track.example/", "nid": "1"},
}


def _correcting(
    kind: str = "retraction", settings: dict[str, str] | None = None, **adjustment: Any
) -> dict[str, Any]:
    """A generic destination with one correction."""
    return GENERIC | {
        "settings": GENERIC["settings"] | (settings or {}),
        "rules": {"adjustments": {kind: {"url": BACK} | adjustment}},
    }


def _contract(table: dict[str, Any]) -> Contract:
    return join("main", Destination.model_validate(table), load_catalogue()[table["network"]])


def _check(table: dict[str, Any]) -> Findings:
    return check(_contract(table))


def _url(url: str) -> dict[str, Any]:
    return GENERIC | {"settings": {"url": url}}


def test_a_destination_that_keeps_its_contract_has_no_findings() -> None:
    """The shortest useful Xandr destination."""
    assert _check(XANDR) == Findings([], [])


@pytest.mark.parametrize(
    ("table", "code", "field"),
    [
        (XANDR | {"settings": {}}, "missing", "settings.id"),
        (XANDR | {"settings": {"id": "pixel"}}, "pattern", "settings.id"),
        (XANDR | {"settings": {"id": "1", "pixel": "2"}}, "unknown_setting", "settings.pixel"),
        (XANDR | {"settings": {"id": "1", "url": "https://evil.example/sspx"}}, "host", "settings.url"),
        (XANDR | {"settings": {"id": "1", "url": "https://x.adnxs.com/sspx?a=1"}}, "pattern", "settings.url"),
        (XANDR | {"protocol": "partner"}, "protocol", "protocol"),
        (XANDR | {"rules": {"redirects": "never"}}, "fixed_rules", "rules"),
        (XANDR | {"parameters": [{"name": "sspdata", "value": "x"}]}, "parameter_twice", "parameters.0.name"),
        (XANDR | {"parameters": [{"name": "a", "value": "{clickid}"}]}, "unknown_macro", "settings"),
        (PERSONAM, "plain_http", "settings.url"),
        (_url("ftp://h.example/"), "url", "settings.url"),
        (_url("h.example/?c={click_id}"), "url", "settings.url"),
        (_url("https://h.example/a b"), "url", "settings.url"),
        (_url("https://h.example/é"), "url", "settings.url"),
        (_url("https://[::1/"), "url", "settings.url"),
        (_url("https://h.example:99999/"), "url", "settings.url"),
        (_url("https://user:pw@h.example/"), "url", "settings.url"),
        (_url("https://h.example/?c={click_id}#top"), "url", "settings.url"),
        (_url("https://h.example/?c=[SSPDATA]"), "unknown_macro", "settings.url"),
        (_url("https://h.example/?c=${SSP_DATA}"), "unknown_macro", "settings.url"),
        (_url("https://h.example/?c={Click_Id}"), "unknown_macro", "settings.url"),
        (_url("https://h.example/?c=%%CID%%"), "unknown_macro", "settings.url"),
        (_url("https://h.example/?p={payout}"), "unknown_macro", "settings"),
        (_url("https://h.example/?k={settings.key}"), "unknown_macro", "settings"),
        (
            GENERIC | {"settings": GENERIC["settings"] | {"method": "GET /"}},
            "pattern",
            "settings.method",
        ),
        (GENERIC | {"settings": GENERIC["settings"] | {"body": "{click_id}"}}, "content_type", "headers"),
        (
            GENERIC | {"rules": {"age_limit": {"wait": "14d"}}, "hold": {"kind": "refund", "wait": "13d"}},
            "age_limit",
            "hold.wait",
        ),
        (_correcting(url="ftp://h.example/"), "url", "rules.adjustments.retraction.url"),
        (_correcting(url="http://h.example/{click_id}"), "plain_http", "rules.adjustments.retraction.url"),
        (_correcting(url="https://h.example/?c=[CID]"), "unknown_macro", "rules.adjustments.retraction.url"),
        (_correcting(url="https://h.example/?c={clickid}"), "unknown_macro", "rules.adjustments.retraction"),
        (_correcting(url=BACK + "&k={settings.key}"), "unknown_macro", "rules.adjustments.retraction"),
        (_correcting(url="{settings.back}", settings={"back": "h.example/"}), "url", "settings.back"),
        (_correcting(body="{click_id}"), "content_type", "rules.adjustments.retraction.headers"),
        (_correcting("restatement"), "restatement_without_amount", "rules.adjustments.restatement"),
        (_url("https://h.example/?d={delta}"), "unknown_macro", "settings"),
        (
            EVERFLOW | {"settings": EVERFLOW["settings"] | {"reversal_url": "http://track.example/reversal"}},
            "plain_http",
            "settings.reversal_url",
        ),
    ],
)
def test_a_broken_contract_is_refused_with_its_key_and_a_remedy(
    table: dict[str, Any], code: str, field: str
) -> None:
    """Every finding names where it stands, why it is wrong and what to write instead."""
    problem = next((found for found in _check(table).problems if found.code == code), None)
    assert problem is not None, _check(table)
    assert problem.field == f"destinations.main.{field}"
    assert problem.reason
    assert problem.remedy


def test_plain_http_that_is_asked_for_is_warned_of_and_not_rewritten() -> None:
    """ad:personam's page shows an http URL: with allow_http it goes out as the account has it."""
    contract = _contract(PERSONAM | {"allow_http": True})
    found = check(contract)
    assert found.problems == []
    assert [warning.code for warning in found.warnings] == ["plain_http"]
    url = render(contract.template, contract.plain_settings() | {"click_id": "t."}).url
    assert url == "http://sspx-router.adnxs.net/sspx?id=59633&sspdata=t."


def test_a_sink_may_stand_in_for_a_network_with_a_warning() -> None:
    """allow_private opens private addresses and hosts that are not the network's."""
    sink = XANDR | {
        "settings": {"id": "1", "url": "http://127.0.0.1:8099/xandr/sspx"},
        "allow_private": True,
        "allow_http": True,
    }
    found = _check(sink)
    assert found.problems == []
    assert {warning.code for warning in found.warnings} == {"allow_private", "plain_http"}
    assert _contract(sink).fetch_limits.allowed_hosts == ()


def test_a_literal_ipv6_host_is_no_leftover_macro() -> None:
    """Its brackets belong to the host."""
    assert _check(_url("https://[2606:4700::1111]/?c={click_id}")).problems == []


def test_a_secret_written_into_the_file_is_refused_without_repeating_it() -> None:
    """The message must not carry the secret on into a log."""
    network = load_catalogue()["generic"]
    key = {"about": "the account's key", "secret": True, "pattern": "[a-z]+"}
    strict = network.model_validate(
        network.model_dump() | {"settings": network.model_dump()["settings"] | {"key": key}}
    )
    table = GENERIC | {"settings": GENERIC["settings"] | {"key": "S3CRET-IN-FILE"}}
    [problem] = check(join("main", Destination.model_validate(table), strict)).problems
    assert (problem.code, problem.field) == ("secret", "destinations.main.settings.key")
    assert "S3CRET" not in str(problem)


def test_secrets_are_named_by_where_they_stand() -> None:
    """Every secret a destination needs is found, wherever it is used."""
    table = GENERIC | {
        "settings": {"url": "https://h.example/{settings.key}?c={click_id}", "key": {"env": "KEY"}},
        "auth": {"kind": "bearer", "token": {"file": "/run/secrets/token"}},
    }
    destination = Destination.model_validate(table)
    assert destination.secret_refs().keys() == {"settings.key", "auth.token"}
    assert _check(table).problems == []
    assert "settings.key" not in _contract(table).plain_settings()


@pytest.mark.parametrize("secret", [{}, {"env": "A", "file": "b"}, {"environment": "A"}])
def test_a_secret_has_exactly_one_place(secret: dict[str, str]) -> None:
    """Neither none nor two."""
    with pytest.raises(ValidationError):
        Destination.model_validate(GENERIC | {"settings": {"url": "https://h.example/", "key": secret}})


@pytest.mark.parametrize(
    ("parameter", "key"),
    [
        ({"name": "a&b", "value": "x"}, "name"),
        ({"name": "", "value": "x"}, "name"),
        ({"name": "a", "value": "x&sspdata=y"}, "value"),
        ({"name": "a", "value": "x#y"}, "value"),
        ({"name": "a", "value": "x y"}, "value"),
        ({"name": "a", "value": "x", "max_length": 0}, "max_length"),
        ({"name": "a", "value": "x", "pattern": "("}, "pattern"),
    ],
)
def test_a_parameter_cannot_end_itself(parameter: dict[str, Any], key: str) -> None:
    """Its literal text goes on the wire as it stands, so it may hold nothing that starts another."""
    with pytest.raises(ValidationError) as refused:
        Destination.model_validate(XANDR | {"parameters": [parameter]})
    assert refused.value.errors()[0]["loc"] == ("parameters", 0, key)


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "a" * 65, "a\x1fb"])
def test_a_destinations_name_is_plain(name: str) -> None:
    """It stands in keys, commands and log lines."""
    with pytest.raises(ValidationError):
        join(name, Destination.model_validate(XANDR), load_catalogue()["xandr"])


@pytest.mark.parametrize("table", [XANDR, PERSONAM, GENERIC, KNOREX])
def test_a_stored_contract_reads_back_as_it_was(table: dict[str, Any]) -> None:
    """What is held keeps the contract it was held under, to the millisecond and the byte, but not whom to turn to."""
    retry = {"base": "1500ms", "cap": "1.5h", "horizon": "3d"}
    contract = _contract(table | {"retry": retry, "limits": {"deadline": "2500ms"}})
    stored = Contract.model_validate_json(contract.model_dump_json())
    assert stored.network == contract.network.model_copy(update={"support": Support()})
    assert stored.model_copy(update={"network": contract.network}) == contract
    assert stored.retry.base == timedelta(milliseconds=1500)
    assert stored.template == contract.template


def test_the_dedupe_rule_follows_the_protocol_unless_the_account_says_otherwise() -> None:
    """A rebill cannot be told from a repeat, so under the partner protocol nothing is resent on suspicion."""
    assert _contract(KNOREX).dedupe is Dedupe.REJECTED
    assert _contract(KNOREX | {"protocol": "partner"}).dedupe is Dedupe.COUNTED_TWICE
    assert _contract(KNOREX | {"protocol": "partner", "dedupe": "harmless"}).dedupe is Dedupe.HARMLESS


def test_the_generic_networks_rules_are_the_accounts() -> None:
    """Only those that are given replace what the network's file says."""
    rules = {"redirects": "follow", "answer": {"duplicate": ["409"], "body_required": True}}
    contract = _contract(GENERIC | {"rules": rules})
    assert contract.fetch_limits.follow_redirects
    assert contract.network.answer.by_status(409) is VerdictKind.DUPLICATE
    assert contract.network.answer.body_required
    assert contract.network.sub_id == load_catalogue()["generic"].sub_id


def test_the_rules_of_a_network_that_has_its_own_stay() -> None:
    """They are refused by the check, and not applied before it."""
    contract = _contract(XANDR | {"rules": {"redirects": "never"}})
    assert contract.network == load_catalogue()["xandr"]


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("sspx-router.adnxs.com", True),
        ("SECURE.ADNXS.COM.", True),
        ("a.b.adnxs.com", True),
        ("adnxs.com", False),
        ("evil-adnxs.com", False),
        ("adnxs.com.evil.example", False),
    ],
)
def test_a_wildcard_covers_subdomains_alone(host: str, allowed: bool) -> None:
    """Neither the bare domain nor one that merely ends alike."""
    assert host_allowed(host, ("*.adnxs.com",)) is allowed


# Corrections -----------------------------------------------------------------------------------------


def test_a_correction_that_keeps_its_contract_has_no_findings() -> None:
    """With settings of its own, a total or a change, and a body with its Content-Type."""
    table = _correcting(
        "restatement",
        {"back": "https://h.example/back?v={delta}", "key": "k1"},
        url="{settings.back}",
        method="POST",
        body='{"c": "{click_id}", "k": "{settings.key}"}',
        headers={"Content-Type": "application/json"},
    )
    assert _check(table) == Findings([], [])


def test_a_setting_that_only_corrections_need_is_warned_of_when_it_is_missing() -> None:
    """The network could be told, this account cannot: the warning says what is lost, and how to be rid of it."""
    (warning,) = _check(EVERFLOW).warnings
    assert warning.field == "destinations.main.settings.reversal_url"
    assert "refunds after delivery will be recorded as lost" in warning.reason
    assert "adjust = { send = false }" in warning.remedy
    assert _check(EVERFLOW | {"adjust": {"send": False}}) == Findings([], [])


def test_an_account_corrects_once_it_has_what_that_needs() -> None:
    """Missing setting, no correction; and none where the destination wants none sent."""
    given = EVERFLOW | {"settings": EVERFLOW["settings"] | {"reversal_url": "https://track.example/reversal"}}
    assert _contract(EVERFLOW).adjustment("retraction") is None
    assert _contract(given).adjustment("retraction") is not None
    assert _contract(given).adjustment("restatement") is None
    assert _contract(given | {"adjust": {"send": False}}).adjustment("retraction") is None


def test_a_setting_named_by_variable_or_given_by_default_is_there() -> None:
    """A secret is not read here, and a default of the network is as good as given."""
    keitaro = {"url": "https://tracker.example", "key": {"env": "HF_TEST_KEY"}}
    table = {"network": "keitaro", "events": ["purchase"], "settings": keitaro}
    assert _contract(table).adjustment("retraction") is not None
    assert _contract(table).adjustment("restatement") is not None


def test_adjust_at_a_network_that_takes_no_corrections_is_warned_of() -> None:
    """Who asks for it would wait in vain."""
    assert [warning.code for warning in _check(XANDR | {"adjust": {"wait": "1d"}}).warnings] == [
        "no_corrections"
    ]
    assert _check(XANDR | {"adjust": {"send": False}}) == Findings([], [])


def test_a_retraction_that_revives_is_refused() -> None:
    """It takes back; a restatement brings back."""
    with pytest.raises(ValidationError, match="move revives to the restatement"):
        Destination.model_validate(_correcting(revives=True))


@pytest.mark.parametrize(
    ("table", "tells"),
    [
        (GENERIC, False),
        (_url("https://h.example/?c={click_id}&v={value}"), True),
        (GENERIC | {"parameters": [{"name": "v", "value": "{value}", "optional": True}]}, True),
        (GENERIC | {"settings": {"url": {"env": "HF_TEST_URL"}}}, True),
        (XANDR, True),
        (
            {"network": "zeropark", "events": ["purchase"], "settings": {"uuid": {"env": "HF_TEST_KEY"}}},
            False,
        ),
    ],
)
def test_it_is_known_whether_a_network_learns_the_value(table: dict[str, Any], tells: bool) -> None:
    """A network that was never told an amount shows no wrong one; a URL that is not read here may tell it."""
    assert _contract(table).tells_value is tells
