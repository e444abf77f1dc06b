"""Event envelope, version 1: what a producer sends. Pydantic on the wire only.

An event is a *conversion event* or a *signal* about one (refund, chargeback, credit_check, cancel). It is
validated before it leaves the producer and again at intake, by the same ``read_event``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from schemas.money import MAX_DECIMAL_PLACES, MAX_INTEGER_DIGITS, MINOR_DIGITS, plain, precision
from schemas.problem import GENERAL_REMEDIES, InvalidInputError, Problem, plain_reason

ENVELOPE_VERSION = 1
MAX_EVENTS_PER_MESSAGE = 500
FUTURE_TOLERANCE = timedelta(minutes=5)
"""How far a producer's clock may run ahead of ours before its ``occurred_at`` is taken for a mistake."""

EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)

UNREPLACED_MACRO = re.compile(
    r"""^(?: \$?\{\{?[^{}]*\}\}? | \[\[?[A-Za-z_][A-Za-z0-9_.:-]*\]\]? | %%[^%]+%% | <[A-Za-z_][^<>]*> | __[A-Z_]+__
        | \#[A-Za-z_]+\# | \$[A-Z_]{2,}\$? | %(?:24%)?7B.*%7D | %5B[A-Za-z_]+%5D )$""",
    re.VERBOSE | re.IGNORECASE,
)
"""A click id that is still the ad server's placeholder: ``[SSPDATA]``, ``${SSP_DATA}``, ``{click_id}``, ``%%CID%%``…"""


def _money(value: object) -> Decimal:
    if isinstance(value, bool | float):
        raise PydanticCustomError("money_as_number", "money must be a string such as '49.90', never a float")
    if isinstance(value, int):
        value = str(value)
    if isinstance(value, Decimal):
        value = plain(value)
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]+(\.[0-9]+)?", value, re.ASCII):
        raise PydanticCustomError(
            "money_shape", "money must be digits with an optional decimal point, such as '49.90'"
        )
    whole, _, places = value.partition(".")
    if len(whole.lstrip("0")) > MAX_INTEGER_DIGITS:
        raise PydanticCustomError("money_size", "amount has more than 15 digits before the point")
    if len(places) > MAX_DECIMAL_PLACES:
        raise PydanticCustomError("too_precise", "amount has more than 6 decimal places, as no currency does")
    return Decimal(value)


def _currency(value: str) -> str:
    if value not in MINOR_DIGITS:
        raise PydanticCustomError(
            "unknown_currency", "'{code}' is not an ISO 4217 currency code", {"code": value}
        )
    return value


def _click_ids(tokens: dict[str, str]) -> dict[str, str]:
    for network, token in tokens.items():
        if UNREPLACED_MACRO.match(token):
            raise PydanticCustomError(
                "unreplaced_macro",
                "click id of {network} is the unreplaced macro {token}",
                {"network": network, "token": token},
            )
        if not token.isprintable():
            raise PydanticCustomError(
                "unprintable_click_id",
                "click id of {network} has unprintable characters",
                {"network": network},
            )
    return tokens


def _not_naive(value: object) -> object:
    """RFC 3339 with an offset: a number or a date alone would be read as an instant that nobody wrote."""
    if isinstance(value, int | float) or (isinstance(value, str) and "T" not in value and " " not in value):
        raise PydanticCustomError("instant_shape", "an instant must be RFC 3339 text with a UTC offset")
    return value


def _in_range(value: datetime) -> datetime:
    # Also keeps every sum of an instant and a wait inside what datetime and PostgreSQL can both hold.
    if not EARLIEST <= value < LATEST:
        raise PydanticCustomError("instant_range", "an instant must lie between the years 2000 and 2200")
    return value


Money = Annotated[Decimal, BeforeValidator(_money)]
CurrencyCode = Annotated[str, AfterValidator(_currency)]
Instant = Annotated[AwareDatetime, BeforeValidator(_not_naive), AfterValidator(_in_range)]
Token = Annotated[str, Field(min_length=1, max_length=4096)]
Key = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
ParamValue = Annotated[str, Field(max_length=1000, pattern=r"^[^\x00]*$")]


class _Envelope(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1]
    event_id: Key
    source: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$")]
    occurred_at: Instant


class ConversionEvent(_Envelope):
    """A creditable fact: a purchase, an approved loan, an install."""

    type: Literal["conversion"]
    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
    order_id: Key | None = None
    lead_id: Key | None = None
    customer_id: Key | None = None
    device_id: Key | None = None
    value: Money | None = None
    currency: CurrencyCode | None = None
    click_ids: Annotated[dict[Key, Token], Field(max_length=50), AfterValidator(_click_ids)] = Field(
        default_factory=dict
    )
    clicked_at: Instant | None = None
    partner_id: Key | None = None
    sequence: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    params: Annotated[dict[Key, ParamValue], Field(max_length=50)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _value_in_its_currency(self) -> ConversionEvent:
        _check_precision(self.value, self.currency, "value")
        return self


class _Signal(_Envelope):
    order_id: Key | None = None
    conversion_event_id: Key | None = None
    sequence: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Of the rebill that is meant, where several share the order id."""
    reason: Annotated[str, Field(max_length=500, pattern=r"^[^\x00]*$")] | None = None

    @model_validator(mode="after")
    def _names_its_conversion(self) -> _Signal:
        if self.order_id is None and self.conversion_event_id is None:
            raise PydanticCustomError(
                "no_target", "a signal must name its conversion by order_id or conversion_event_id"
            )
        if self.sequence is not None and (self.order_id is None or self.conversion_event_id is not None):
            raise PydanticCustomError(
                "sequence_without_order",
                "sequence tells the rebills of one order_id apart, and a conversion_event_id names one alone",
                {"name": "sequence"},
            )
        return self


class RefundSignal(_Signal):
    """Money went back. Without an amount: all of it."""

    type: Literal["refund"]
    amount: Money | None = None
    amount_is: Literal["delta", "cumulative"] = "delta"
    currency: CurrencyCode | None = None

    @model_validator(mode="after")
    def _amount_in_its_currency(self) -> RefundSignal:
        if self.currency is not None:
            _check_precision(self.amount, self.currency, "amount")
        return self


class ChargebackSignal(_Signal):
    """The buyer's bank disputes the payment."""

    type: Literal["chargeback"]
    outcome: Literal["opened", "won", "lost"]
    amount: Money | None = None
    currency: CurrencyCode | None = None


class CreditCheckSignal(_Signal):
    """A lender's decision."""

    type: Literal["credit_check"]
    outcome: Literal["approved", "declined", "review"]


class CancelSignal(_Signal):
    """The order, application or install was called off."""

    type: Literal["cancel"]


Signal = RefundSignal | ChargebackSignal | CreditCheckSignal | CancelSignal
Event = ConversionEvent | Signal

_ADAPTERS: dict[str, TypeAdapter[Any]] = {
    "conversion": TypeAdapter(ConversionEvent),
    "refund": TypeAdapter(RefundSignal),
    "chargeback": TypeAdapter(ChargebackSignal),
    "credit_check": TypeAdapter(CreditCheckSignal),
    "cancel": TypeAdapter(CancelSignal),
}

_REMEDIES = {
    "money_as_number": "Send it as a string",
    "money_shape": "Send it as a string such as '49.90', without sign, currency or separators",
    "unknown_currency": "Use an upper-case three-letter code such as EUR",
    "too_precise": "Round it to the currency's minor unit before sending",
    "value_without_currency": "Add the currency, or leave both out",
    "unreplaced_macro": "Check the landing page URL in the network's ad: its macro was not filled in",
    "instant_range": "Check the year",
    "money_size": "Check the unit: amounts are in the currency itself, not in cents",
    "unprintable_click_id": "Send the token exactly as the landing page received it",
    "timezone_aware": "Add a UTC offset such as Z or +01:00",
    "instant_shape": "Write it like 2026-11-22T10:00:00Z",
    "extra_forbidden": "Remove it, or put it under params",
    "missing": "Add it",
    "no_target": "Add order_id or conversion_event_id",
    "sequence_without_order": "Give order_id and sequence, or conversion_event_id alone",
}


def _check_precision(amount: Decimal | None, currency: str | None, name: str) -> None:
    if amount is None:
        return
    if currency is None:
        raise PydanticCustomError(
            "value_without_currency", "{name} is given without a currency", {"name": name}
        )
    if precision(amount) > MINOR_DIGITS[currency]:
        raise PydanticCustomError(
            "too_precise",
            "{amount} has more than {digits} decimal places, which {currency} does not have",
            {"name": name, "amount": str(amount), "digits": MINOR_DIGITS[currency], "currency": currency},
        )


def read_event(raw: object, now: datetime) -> Event:
    """Validate one event as it came off the wire (a JSON object already decoded).

    ``now`` is an aware instant; ``occurred_at`` may be at most ``FUTURE_TOLERANCE`` after it.
    Raises ``InvalidInputError`` with every problem found: code, field, reason and remedy.
    """
    if not isinstance(raw, Mapping):
        raise InvalidInputError(
            [
                Problem(
                    "malformed",
                    "event",
                    f"is {type(raw).__name__}, not a JSON object",
                    "Send one object an event",
                )
            ]
        )
    version = raw.get("version")
    if version != ENVELOPE_VERSION or isinstance(version, bool):
        raise InvalidInputError(
            [Problem("unknown_version", "version", f"is {version!r}", "This Holdfire reads version 1")]
        )
    kind = raw.get("type")
    adapter = _ADAPTERS.get(kind) if isinstance(kind, str) else None
    if adapter is None:
        known = ", ".join(_ADAPTERS)
        raise InvalidInputError([Problem("unknown_type", "type", f"is {kind!r}", f"Use one of {known}")])
    try:
        event: Event = adapter.validate_python(raw)
    except ValidationError as error:
        raise InvalidInputError(problems_of(error)) from None
    instants = {"occurred_at": event.occurred_at}
    if isinstance(event, ConversionEvent) and event.clicked_at is not None:
        instants["clicked_at"] = event.clicked_at
    ahead = in_the_future(instants, now)
    if ahead:
        raise InvalidInputError(ahead)
    return event


def in_the_future(instants: Mapping[str, datetime], now: datetime) -> list[Problem]:
    """A problem for each instant, by its field, that no clock can be trusted with."""
    return [
        Problem(
            f"future_{field}",
            field,
            f"{instant.isoformat()} lies in the future (it is {now.isoformat()} here)",
            "Check the sender's clock and UTC offset; send the event once it has happened",
        )
        for field, instant in instants.items()
        if instant > now + FUTURE_TOLERANCE
    ]


def read_stored(text: str) -> Event:
    """Read an event that was validated when it was taken, from its stored JSON text."""
    raw = json.loads(text)
    event: Event = _ADAPTERS[raw["type"]].validate_python(raw)
    return event


def problems_of(error: ValidationError) -> list[Problem]:
    """What pydantic found, each with its field, the reason and the remedy."""
    problems = []
    for fault in error.errors(include_url=False):
        code = fault["type"]
        # A rule over several fields has no place of its own and says in its context which field it means.
        where = ".".join(str(part) for part in fault["loc"]) or fault.get("ctx", {}).get("name", "order_id")
        remedy = _REMEDIES.get(code) or GENERAL_REMEDIES.get(code, "See the event envelope in docs/events.md")
        reason = plain_reason(code, fault["msg"], fault["input"], fault.get("ctx", {}))
        problems.append(Problem(code, where, reason, remedy))
    return problems


def wire(event: Event) -> dict[str, Any]:
    """The event as JSON-ready values: instants as RFC 3339, money as strings, unset fields left out."""
    return event.model_dump(mode="json", exclude_none=True)


def json_schema() -> dict[str, Any]:
    """JSON Schema of the envelope, for producers in other languages."""
    return TypeAdapter(Annotated[Event, Field(discriminator="type")]).json_schema()
