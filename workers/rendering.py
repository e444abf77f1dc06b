"""From a gated postback to the exact request: macros filled, secrets put in, and a masked copy for the log."""

from __future__ import annotations

import threading
import time
import traceback
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

import structlog

from infra.secrets import SecretError, read_secret
from infra.version import VERSION
from schemas.adjustment import NOTHING, credited, kind_of, stands
from schemas.auth import Auth, BearerAuth, HeaderAuth
from schemas.conversion import event_values
from schemas.destination import Contract, DestinationVersion
from schemas.exchange import Headers, OutboundRequest
from schemas.ids import show
from schemas.lifecycle import State, came_from
from schemas.macros import Rendered, RenderError, render
from schemas.postback import Correction, Gated, Prepared, Stopped
from schemas.redaction import Redactor
from schemas.signals import VoidReason

SECRETS_KEPT_S = 30.0
"""After this long a secret is read again, so that a rotated file is taken up without a restart."""
NOT_NOW_RETRY_S = 30.0
USER_AGENT = f"holdfire/{VERSION}"

log = structlog.get_logger()


class Versions(Protocol):
    """Where applied destination versions are found."""

    def version(self, version_id: int) -> DestinationVersion: ...


@dataclass(frozen=True, slots=True)
class Account:
    """A contract with its secrets read: what rendering, sending and masking need of it."""

    version: DestinationVersion
    settings: dict[str, str]
    headers: Headers
    secrets: dict[str, str]
    redactor: Redactor


class Renderer:
    """Renders postbacks under the version they were held with. Safe to use from several threads."""

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self._accounts: dict[int, tuple[float, Account]] = {}
        self._lock = threading.Lock()

    def account(self, version_id: int) -> Account:
        """The version with its secrets. Raises ``SecretError`` when one of them cannot be read."""
        with self._lock:
            kept = self._accounts.get(version_id)
            if kept is not None and time.monotonic() - kept[0] < SECRETS_KEPT_S:
                return kept[1]
            account = open_account(self._versions.version(version_id))
            self._accounts[version_id] = (time.monotonic(), account)
            return account

    def contract(self, version_id: int) -> Contract:
        """The contract of a version, secrets or no secrets."""
        return self._versions.version(version_id).contract

    def try_account(self, version_id: int) -> Account | SecretError:
        """The version with its secrets, or why there is none."""
        try:
            return self.account(version_id)
        except SecretError as error:
            return error


def prepare(gated: Gated, account: Account | SecretError) -> Prepared | Stopped:
    """The request to send, or why this postback must not be sent now. Never raises: others share its transaction."""
    try:
        return _prepare(gated, account)
    except Exception as error:
        # Not foreseen, so not the postback's fault: it waits. The error's own text may quote a secret.
        where = "".join(traceback.format_tb(error.__traceback__))
        log.error(
            "postback.not_prepared",
            postback=show("pb", gated.postback_id),
            error=type(error).__name__,
            at=where,
        )
        return _waits(gated, f"cannot be prepared ({type(error).__name__}, see the worker's log)")


def _prepare(gated: Gated, account: Account | SecretError) -> Prepared | Stopped:
    if gated.expires_at is not None and gated.now > gated.expires_at:
        limit = f"the network's age limit ended at {gated.expires_at.isoformat()}"
        return Stopped(gated, State.EXPIRED, limit)
    if isinstance(account, SecretError):
        # Somebody forgot a variable on this machine: the postback waits, no attempt is spent.
        return _waits(gated, str(account))
    contract, correction = account.version.contract, gated.correction
    policy = contract.destination.hold_for(gated.event)
    amounts = _correcting(gated, correction, contract) if correction else _Amounts(gated.net_value)
    if amounts is None:
        return Stopped(gated, State.VOIDED, "nothing is left to correct", void_reason=VoidReason.WITHDRAWN)
    undecided = policy.needs_decision and "credit_check.approved" not in gated.outcomes and not gated.let_go
    if correction is None and undecided:
        reason = "no credit decision came within its window"
        return Stopped(gated, State.VOIDED, reason, void_reason=VoidReason.UNCONFIRMED)
    settings = contract.defaults_for(gated.adjustment) | account.settings
    values = settings | event_values(
        contract, gated.event, show("pb", gated.postback_id), amounts.value, amounts.delta
    )
    click_id = values["click_id"]
    try:
        rendered = render(contract.template_for(gated.adjustment), values)
    except RenderError as error:
        reason = account.redactor.in_text(f"cannot be rendered: {error}", click_id)
        return Stopped(gated, State.REJECTED, reason)
    return Prepared(
        gated=gated,
        version=account.version,
        request=request_of(rendered, account.headers),
        shown_url=account.redactor.in_text(rendered.url, click_id),
        click_id=click_id,
        notes=tuple(account.redactor.in_text(note, click_id) for note in (*_by_whom(gated), *rendered.notes)),
        value=amounts.value,
    )


@dataclass(frozen=True, slots=True)
class _Amounts:
    """What a postback tells: the worth of the conversion now, and of an adjustment its change from what was told."""

    value: Decimal | None
    delta: Decimal | None = None


def _correcting(gated: Gated, correction: Correction, contract: Contract) -> _Amounts | None:
    """What an adjustment tells, or None when what it is for needs no correction any more, or another one."""
    told = NOTHING if correction.retracted else credited(contract, correction.reported)
    wish = VoidReason.BY_HAND if correction.by_hand else None
    standing = stands(contract, gated.event, gated.net_value, gated.outcomes, wish)
    if told == standing or kind_of(contract, told, standing) != correction.kind:
        return None
    reported = correction.reported
    if reported is None:
        # Without a value the conversion itself is all there is to take back or to bring back.
        return _Amounts(None)
    zero = reported - reported  # with the decimal places that the network knows the value by
    worth = (standing.amount or zero) + zero
    return _Amounts(worth, worth - ((told.amount or zero) + zero))


def _by_whom(gated: Gated) -> tuple[str, ...]:
    """Who fired it again and why, with the attempt that this brought about."""
    run = gated.run
    if run is None or gated.trigger != "replay":
        return ()
    return (f"fired again in {show('rn', run.id)} by {run.who}: {run.reason}",)


def _waits(gated: Gated, reason: str) -> Stopped:
    return Stopped(gated, came_from(gated.number - 1), reason, delay_s=NOT_NOW_RETRY_S)


def open_account(version: DestinationVersion) -> Account:
    """Read a version's secrets and make ready what every one of its requests shares. Raises ``SecretError``."""
    contract = version.contract
    secrets = {place: read_secret(ref) for place, ref in contract.destination.secret_refs().items()}
    settings = contract.plain_settings()
    settings |= {place: value for place, value in secrets.items() if place.startswith("settings.")}
    return Account(
        version,
        settings,
        auth_headers(contract.destination.auth, "auth", secrets),
        secrets,
        Redactor(tuple(secrets.values())),
    )


def request_of(rendered: Rendered, auth: Headers) -> OutboundRequest:
    """The rendered postback as a request, with our name on it and the account's credentials."""
    given = tuple((name.encode("latin-1"), text.encode("utf-8")) for name, text in rendered.headers)
    ours: Headers = ((b"User-Agent", USER_AGENT.encode()), (b"Accept", b"*/*"))
    named = {name.lower() for name, _ in given}
    headers = (*(field for field in ours if field[0].lower() not in named), *given, *auth)
    return OutboundRequest(rendered.method, rendered.url, headers, rendered.body.encode())


def auth_headers(auth: Auth | None, place: str, secrets: dict[str, str]) -> Headers:
    """The header that carries credentials which need no fetching; ``place`` is the key that names them."""
    match auth:
        case HeaderAuth(name=name):
            return ((name.encode(), secrets[f"{place}.value"].encode()),)
        case BearerAuth():
            return ((b"Authorization", b"Bearer " + secrets[f"{place}.token"].encode()),)
    return ()
