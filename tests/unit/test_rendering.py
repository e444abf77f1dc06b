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
from schemas.postback import Gated, Prepared, Stopped
from workers import rendering
from workers.rendering import NOT_NOW_RETRY_S, SECRETS_KEPT_S, USER_AGENT, Renderer, open_account, prepare

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
URL = "https://network.example/p?c={click_id}&v={value}&n={name}"
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
        "e", "shop", "purchase", NOW, "o-1", "EUR", {"generic": "nym1-tok.en_~."}, None, None, {}
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
