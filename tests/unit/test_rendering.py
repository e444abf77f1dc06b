"""From a gated postback to the exact request: net value, headers, secrets, and every reason not to send."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from infra.catalogue import load_catalogue
from infra.secrets import SecretError
from schemas.conversion import StoredConversion
from schemas.destination import Destination, DestinationVersion, join
from schemas.lifecycle import State
from schemas.network import AdjustmentKind
from schemas.postback import Correction, Gated, Prepared, Stopped
from schemas.signals import Outcome, VoidReason
from workers import rendering
from workers.rendering import NOT_NOW_RETRY_S, SECRETS_KEPT_S, USER_AGENT, Renderer, open_account, prepare

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
URL = "https://network.example/p?c={click_id}&v={value}&n={name}"
OPTIONAL_VALUE = {"name": "v", "value": "{value}", "optional": True}
SECRET = "k3y-Long/and+odd=secret"


class One:
    """The one version there is."""

    def __init__(self, version: DestinationVersion) -> None:
        self.only = version

    def version(self, version_id: int) -> DestinationVersion:
        return self.only


def version(url: str = URL, **table: Any) -> DestinationVersion:
    settings = {"url": url} | table.pop("settings", {})
    whole = {"network": "generic", "events": ["purchase"], "settings": settings, **table}
    return DestinationVersion(7, 1, join("d", Destination.model_validate(whole), load_catalogue()["generic"]))


def gated(**fields: Any) -> Gated:
    event = StoredConversion(
        "e",
        "shop",
        "purchase",
        NOW,
        "o-1",
        Decimal("49.90"),
        "EUR",
        {"generic": "nym1-tok.en_~."},
        None,
        None,
        {},
    )
    whole = Gated(
        postback_id=1,
        token=2,
        attempt_id=3,
        number=1,
        version_id=7,
        had_unknown=False,
        first_attempt_at=None,
        expires_at=None,
        net_value=Decimal("39.90"),
        event=event,
        now=NOW,
    )
    return replace(whole, **fields)


def prepared(which: DestinationVersion, **fields: Any) -> Prepared:
    result = prepare(gated(**fields), open_account(which))
    assert isinstance(result, Prepared), result
    return result


def stopped(which: DestinationVersion, **fields: Any) -> Stopped:
    result = prepare(gated(**fields), open_account(which))
    assert isinstance(result, Stopped), result
    return result


def test_what_is_left_of_the_value_is_sent() -> None:
    """The net value, plain, and the click id byte for byte."""
    assert prepared(version()).request.url == "https://network.example/p?c=nym1-tok.en_~.&v=39.90&n=purchase"


def test_the_network_gets_its_own_name_of_the_event() -> None:
    """``event_names`` is applied, case and all."""
    assert prepared(version(event_names={"purchase": "Sale!"})).request.url.endswith("&n=Sale%21")


def test_our_name_goes_along_unless_the_destination_gives_another() -> None:
    """User-Agent and Accept are there once each."""
    names = [name.lower() for name, _ in prepared(version()).request.headers]
    assert names == [b"user-agent", b"accept"]
    assert dict(prepared(version()).request.headers)[b"User-Agent"] == USER_AGENT.encode()
    own = prepared(version(headers={"user-agent": "theirs"})).request.headers
    assert [value for name, value in own if name.lower() == b"user-agent"] == [b"theirs"]


@pytest.mark.parametrize(
    ("auth", "header"),
    [
        ({"kind": "header", "name": "X-Key", "value": {"env": "HF_TEST_KEY"}}, (b"X-Key", SECRET.encode())),
        (
            {"kind": "bearer", "token": {"env": "HF_TEST_KEY"}},
            (b"Authorization", b"Bearer " + SECRET.encode()),
        ),
    ],
)
def test_credentials_are_in_the_request_and_masked_in_what_is_kept(
    auth: dict[str, Any], header: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wire gets the secret, the shown URL its mask, and the click id stays."""
    monkeypatch.setenv("HF_TEST_KEY", SECRET)
    result = prepared(version(URL + "&k={settings.key}", settings={"key": {"env": "HF_TEST_KEY"}}, auth=auth))
    assert header in result.request.headers
    assert "k3y-Long%2Fand" in result.request.url
    assert "[secret:" in result.shown_url
    assert "k3y" not in result.shown_url
    assert "nym1-tok.en_~." in result.shown_url


def test_past_the_age_limit_it_expires() -> None:
    """At the limit it still goes, a moment later it does not."""
    assert prepared(version(), expires_at=NOW)
    result = stopped(version(), expires_at=NOW - timedelta(microseconds=1))
    assert (result.state, result.delay_s) == (State.EXPIRED, None)
    assert "age limit" in result.reason


@pytest.mark.parametrize(("number", "state"), [(1, State.HELD), (2, State.RETRYING)])
def test_without_its_secret_it_waits_where_it_came_from(number: int, state: State) -> None:
    """The reason is the secret's own, and no attempt is spent."""
    result = prepare(gated(number=number), SecretError("environment variable HF_X is not set"))
    assert result == Stopped(
        gated(number=number), state, "environment variable HF_X is not set", NOT_NOW_RETRY_S
    )


def test_what_cannot_be_rendered_is_rejected_for_good() -> None:
    """A value that a void order no longer has, and the reason names the macro."""
    result = stopped(version(), net_value=None)
    assert (result.state, result.delay_s) == (State.REJECTED, None)
    assert "{value}" in result.reason


# A credit decision -----------------------------------------------------------------------------------

CREDIT = {"kind": "credit_check", "wait": "30d"}


def test_without_a_credit_decision_it_is_voided() -> None:
    """The window ended, and nobody approved the application."""
    result = stopped(version(hold=CREDIT))
    assert (result.state, result.void_reason, result.delay_s) == (State.VOIDED, VoidReason.UNCONFIRMED, None)
    assert "no credit decision came" in result.reason


@pytest.mark.parametrize(
    ("hold", "outcomes"),
    [
        (CREDIT, ("credit_check.approved",)),
        (CREDIT | {"on_timeout": "release"}, ()),
        ({"kind": "refund", "wait": "14d"}, ()),
    ],
)
def test_approved_or_not_in_need_of_it_it_is_sent(
    hold: dict[str, Any], outcomes: tuple[Outcome, ...]
) -> None:
    """Only a policy that asks for a decision waits for one."""
    assert prepared(version(hold=hold), outcomes=outcomes)


def test_the_policy_of_its_own_event_and_value_decides() -> None:
    """A rule for dear orders asks for a decision, the destination's own policy does not."""
    holds = [{"hold": CREDIT, "min_value": "49.90", "currency": "EUR"}]
    assert stopped(version(holds=holds)).void_reason is VoidReason.UNCONFIRMED
    holds[0]["min_value"] = "49.91"
    assert prepared(version(holds=holds))


def test_past_the_age_limit_it_expires_whatever_was_decided() -> None:
    """The limit is looked at first: it says why nothing could have been sent any more."""
    assert stopped(version(hold=CREDIT), expires_at=NOW - timedelta(days=1)).state is State.EXPIRED


# Corrections -----------------------------------------------------------------------------------------

ADJUSTMENTS = {
    "retraction": {"url": "https://network.example/back?c={click_id}&v={value}&d={delta}"},
    "restatement": {"url": "https://network.example/now?c={click_id}&v={value}&d={delta}", "revives": True},
}
REFUNDED: tuple[Outcome, ...] = ("refund",)


def adjusting(url: str = URL, **table: Any) -> DestinationVersion:
    return version(url, rules={"adjustments": ADJUSTMENTS}, **table)


def correction(kind: AdjustmentKind, reported: str | None = "49.90", **fields: Any) -> Correction:
    return Correction(kind, None if reported is None else Decimal(reported), **{"retracted": False} | fields)


@pytest.mark.parametrize(
    ("of", "left", "outcomes", "sent"),
    [
        (correction("retraction"), "0", REFUNDED, "back?c=nym1-tok.en_~.&v=0.00&d=-49.90"),
        (correction("retraction"), "49.90", ("cancel",), "back?c=nym1-tok.en_~.&v=0.00&d=-49.90"),
        (correction("retraction", by_hand=True), "49.90", (), "back?c=nym1-tok.en_~.&v=0.00&d=-49.90"),
        (correction("restatement"), "39.90", (), "now?c=nym1-tok.en_~.&v=39.90&d=-10.00"),
        (correction("restatement", "39.90"), "19.90", (), "now?c=nym1-tok.en_~.&v=19.90&d=-20.00"),
        (correction("restatement", "39.90"), "49.90", (), "now?c=nym1-tok.en_~.&v=49.90&d=10.00"),
        (correction("restatement", retracted=True), "39.90", (), "now?c=nym1-tok.en_~.&v=39.90&d=39.90"),
    ],
)
def test_an_adjustment_tells_what_stands_and_how_that_differs_from_what_was_told(
    of: Correction, left: str, outcomes: tuple[Outcome, ...], sent: str
) -> None:
    """The value is the new total, the delta its signed change, both with the value's own places."""
    result = prepared(adjusting(), correction=of, net_value=Decimal(left), outcomes=outcomes)
    assert result.request.url == f"https://network.example/{sent}"


@pytest.mark.parametrize(
    ("of", "left", "outcomes"),
    [
        (correction("retraction"), "49.90", ()),
        (correction("retraction"), "39.90", ()),
        (correction("retraction", retracted=True), "0", REFUNDED),
        (correction("restatement"), "49.90", ()),
        (correction("restatement", "39.90"), "39.9", ()),
        (correction("restatement", "0.00"), "0", REFUNDED),
        (correction("restatement", retracted=True), "0", REFUNDED),
    ],
)
def test_what_is_right_by_now_is_not_corrected(
    of: Correction, left: str, outcomes: tuple[Outcome, ...]
) -> None:
    """It is withdrawn at the gate: a dispute was won, or the network knows it already."""
    result = stopped(adjusting(), correction=of, net_value=Decimal(left), outcomes=outcomes)
    assert (result.state, result.void_reason, result.delay_s) == (State.VOIDED, VoidReason.WITHDRAWN, None)
    assert result.reason == "nothing is left to correct"


@pytest.mark.parametrize(
    ("of", "outcomes", "sent"),
    [
        (correction("retraction", None), ("cancel",), "back?c=nym1-tok.en_~."),
        (correction("restatement", None, retracted=True), (), "now?c=nym1-tok.en_~."),
        (correction("retraction", None), (), None),
        (correction("restatement", None), (), None),
    ],
)
def test_a_conversion_without_value_is_taken_back_and_brought_back_as_such(
    of: Correction, outcomes: tuple[Outcome, ...], sent: str | None
) -> None:
    """An amount that nobody knows is not made up."""
    bare = {
        kind: each | {"url": each["url"].partition("&")[0]} | {"parameters": [OPTIONAL_VALUE]}
        for kind, each in ADJUSTMENTS.items()
    }
    which = version(rules={"adjustments": bare})
    lead = replace(gated().event, value=None, currency=None)
    fields = {"correction": of, "net_value": None, "outcomes": outcomes, "event": lead}
    if sent is None:
        assert stopped(which, **fields).void_reason is VoidReason.WITHDRAWN
    else:
        assert prepared(which, **fields).request.url == f"https://network.example/{sent}"


def test_a_correction_asks_for_no_credit_decision() -> None:
    """What was delivered was decided; that it was revised is what is corrected."""
    which = adjusting(hold=CREDIT)
    assert prepared(which, correction=correction("retraction"), outcomes=("credit_check.declined",))
    assert stopped(which, correction=correction("retraction")).void_reason is VoidReason.WITHDRAWN


def test_the_accounts_headers_go_along_with_an_adjustment_unless_it_has_its_own() -> None:
    """A correction comes from the same account as what it corrects."""
    own = {"retraction": ADJUSTMENTS["retraction"] | {"headers": {"x-kind": "back"}}}
    which = version(rules={"adjustments": own}, headers={"X-Account": "a-1", "X-Kind": "sale"})
    headers = prepared(which, correction=correction("retraction"), outcomes=("cancel",)).request.headers
    assert [field for field in headers if field[0].lower().startswith(b"x-")] == [
        (b"X-Account", b"a-1"),
        (b"x-kind", b"back"),
    ]


def test_a_reason_never_quotes_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parameter that refuses the secret's form is told with the secret masked."""
    monkeypatch.setenv("HF_TEST_KEY", SECRET)
    parameter = {"name": "k", "value": "{settings.key}", "pattern": "[a-z]+"}
    where = version(
        URL + "&x={settings.key}", settings={"key": {"env": "HF_TEST_KEY"}}, parameters=[parameter]
    )
    result = stopped(where)
    assert "k3y" not in result.reason
    assert "[secret:" in result.reason


def test_what_nobody_foresaw_waits_and_takes_no_other_along() -> None:
    """An event that breaks rendering in a new way raises nothing into the gate's transaction."""
    broken = replace(gated().event, occurred_at="no instant")  # type: ignore[type-var]
    result = stopped(version(), event=broken)
    assert (result.state, result.delay_s) == (State.HELD, NOT_NOW_RETRY_S)
    assert "AttributeError" in result.reason


def test_a_rotated_secret_is_taken_up_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that changed is read again after ``SECRETS_KEPT_S``, not before."""
    key = tmp_path / "key"
    key.write_text("first-secret")
    renderer = Renderer(One(version(auth={"kind": "bearer", "token": {"file": str(key)}})))
    now = 1000.0
    monkeypatch.setattr(rendering.time, "monotonic", lambda: now)
    assert renderer.account(7).secrets == {"auth.token": "first-secret"}
    key.write_text("second-secret")
    now += SECRETS_KEPT_S - 1
    assert renderer.account(7).secrets == {"auth.token": "first-secret"}
    now += 2
    assert renderer.account(7).secrets == {"auth.token": "second-secret"}
    key.unlink()
    now += SECRETS_KEPT_S + 1
    assert isinstance(renderer.try_account(7), SecretError)
