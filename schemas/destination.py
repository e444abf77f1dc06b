"""A destination: a configured account at a network, with its own policy and secrets."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.auth import Auth, BearerAuth, ClientCredentialsAuth, HeaderAuth, SecretRef
from schemas.backoff import RetryPolicy
from schemas.breaker import BreakerPolicy
from schemas.check import ReleaseCheck
from schemas.durations import Duration
from schemas.exchange import FetchLimits
from schemas.hold import HoldPolicy, HoldRule, Priced
from schemas.keeping import Age
from schemas.macros import Template, names_in
from schemas.network import (
    Adjustment,
    AdjustmentKind,
    Adjustments,
    AgeLimit,
    Network,
    ParameterName,
    QueryParameter,
)
from schemas.verdict import AnswerRules, Dedupe


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Requirement = Literal[
    "click_id", "partner_id", "order_id", "lead_id", "customer_id", "device_id", "value", "sequence"
]
"""What a destination may insist on: a click id for its network, also one found by a click, or a field of the event."""


class Limits(_Config):
    """How hard the destination may be driven, and how long one attempt may take.

    ``per_second``: attempts that may start in a second, over all processes together; a release pass may draw a
    quarter of a second ahead. ``concurrency``: attempts on the wire at a time in each firing process. ``deadline``: for the whole
    attempt, every hop and body included. ``body_cap``: bytes of a response body that are kept.
    """

    per_second: Annotated[float, Field(gt=0, le=100_000)] | None = None
    concurrency: Annotated[int, Field(ge=1, le=500)] = 50
    deadline: Annotated[Duration, Field(gt=timedelta(0), le=timedelta(minutes=2))] = timedelta(seconds=10)
    connect: Annotated[Duration, Field(gt=timedelta(0), le=timedelta(minutes=1))] = timedelta(seconds=5)
    body_cap: Annotated[int, Field(ge=0, le=1_048_576)] = 16_384


class AdjustPolicy(_Config):
    """What is done when a conversion that was delivered is taken back, in whole or in part.

    ``send``: fire the adjustment that the network takes; otherwise what stands wrong there is recorded as lost.
    ``wait``: how long an adjustment is held first, so that several refunds make one.
    """

    send: bool = True
    wait: Annotated[Duration, Field(ge=timedelta(0))] = timedelta(0)


class Rules(_Config):
    """Rules of a network that leaves them open; only those that are given replace the network's own."""

    answer: AnswerRules = AnswerRules()
    redirects: Literal["follow", "never"] = "never"
    allowed_hosts: tuple[str, ...] = ()
    delivered_means: Literal["answered", "tried"] = "answered"
    sub_id: bool = False
    age_limit: AgeLimit | None = None
    adjustments: Adjustments = Adjustments()


class Destination(_Config):
    """One ``[destinations.NAME]`` table of ``holdfire.toml``."""

    network: str
    events: Annotated[tuple[str, ...], Field(min_length=1)]
    settings: dict[str, str | SecretRef] = Field(default_factory=dict)
    event_names: dict[str, str] = Field(default_factory=dict)
    """What the network calls our events, where it differs; case and all."""
    require: tuple[Requirement, ...] = ()
    """What an event must carry to be taken, beside what the protocol attributes by."""
    click_parameters: tuple[ParameterName, ...] = ()
    """Parameters of the landing page's URL that carry this account's click id, in place of its network's."""
    register_horizon: Annotated[Duration, Field(gt=timedelta(0), le=timedelta(days=3650))] = timedelta(
        days=90
    )
    """How long after a conversion a click that comes late may still route it, at a network without an age limit."""
    keep: Annotated[Age, Field(exclude=True)] = None
    """How long its evidence stays in the database, where ``[keeping]`` shall not say. It is no part of the contract that
    postbacks are held under, and changing it makes no new version."""
    protocol: Literal["transaction", "partner"] | None = None
    hold: HoldPolicy = HoldPolicy()
    holds: tuple[HoldRule, ...] = ()
    """Policies for some of its events; ``hold`` is for the others."""
    retry: RetryPolicy | None = None
    limits: Limits = Limits()
    breaker: BreakerPolicy | Literal[False] = BreakerPolicy()
    """When its network counts as down, and is left alone; False: never."""
    adjust: AdjustPolicy = AdjustPolicy()
    dedupe: Dedupe | None = None
    """The account's own rule where the network lets it be set."""
    rules: Rules | None = None
    """Only where the network leaves its rules open."""
    parameters: tuple[QueryParameter, ...] = ()
    headers: dict[str, str] = Field(default_factory=dict)
    auth: Auth | None = None
    allow_http: bool = False
    allow_private: bool = False
    """For a sink or relay inside: private addresses and hosts outside the network's list are then allowed."""

    @property
    def breaker_policy(self) -> BreakerPolicy | None:
        return self.breaker or None

    def policies(self) -> dict[str, HoldPolicy]:
        """Every hold policy of the destination, by the key that gives it."""
        return {f"holds.{place}.hold": rule.hold for place, rule in enumerate(self.holds)} | {
            "hold": self.hold
        }

    def hold_for(self, event: Priced) -> HoldPolicy:
        """The policy of the first rule that takes the event, or the destination's own."""
        return next((rule.hold for rule in self.holds if rule.takes(event)), self.hold)

    def check_for(self, event: Priced) -> tuple[str, ReleaseCheck] | None:
        """What is asked before the event's postback is released, and the key that says so."""
        hold = self.hold_for(event)
        if hold.check is None:
            return None
        place = next(place for place, policy in self.policies().items() if policy is hold)
        return f"{place}.check", hold.check

    def secret_refs(self) -> dict[str, SecretRef]:
        """Every secret the destination needs, by the place that names it."""
        refs = {f"settings.{name}": ref for name, ref in self.settings.items() if isinstance(ref, SecretRef)}
        refs |= _auth_refs(self.auth, "auth")
        for place, policy in self.policies().items():
            if policy.check is not None:
                refs |= _auth_refs(policy.check.auth, f"{place}.check.auth")
        return refs


def _auth_refs(auth: Auth | None, place: str) -> dict[str, SecretRef]:
    match auth:
        case HeaderAuth(value=ref):
            return {f"{place}.value": ref}
        case BearerAuth(token=ref):
            return {f"{place}.token": ref}
        case ClientCredentialsAuth(client_secret=ref):
            return {f"{place}.client_secret": ref}
    return {}


class Contract(BaseModel):
    """A destination joined with its network's rules, as it was applied: what held postbacks are held under.

    Stored whole, so that neither an edited config nor a newer catalogue rewrites what is already held.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    destination: Destination
    network: Network

    @property
    def protocol(self) -> Literal["transaction", "partner"]:
        return self.destination.protocol or self.network.protocols[0]

    @property
    def dedupe(self) -> Dedupe:
        if self.destination.dedupe is not None:
            return self.destination.dedupe
        # Under the partner protocol rebills are legitimate, so a network cannot tell a repeat from a rebill.
        return Dedupe.COUNTED_TWICE if self.protocol == "partner" else self.network.dedupe

    @cached_property
    def asks(self) -> bool:
        """Whether any of its policies asks a service before release."""
        return any(policy.check is not None for policy in self.destination.policies().values())

    @cached_property
    def retry(self) -> RetryPolicy:
        return self.destination.retry or self.network.retry or RetryPolicy()

    @cached_property
    def template(self) -> Template:
        return self.network.template(self.destination.parameters, self.destination.headers)

    def adjustment(self, kind: AdjustmentKind) -> Adjustment | None:
        """How the network is told of a correction of this kind, or None if it cannot be.

        It cannot where the network has none, the destination wants none sent, or the account left out a setting for it.
        """
        found = self.network.adjustments.of(kind) if self.destination.adjust.send else None
        return None if found is None or self.missing_for(found) else found

    def missing_for(self, adjustment: Adjustment) -> list[str]:
        """Names of the settings that the account would have to give for it."""
        given = self.destination.settings.keys() | {
            name for name, setting in self.network.settings.items() if setting.default is not None
        }
        return sorted(adjustment.needed_settings - given)

    @cached_property
    def tells_value(self) -> bool:
        """Whether its postbacks carry the value at all; to a network that never learns it, none can be wrong.

        A URL or body that is a secret is not read here: it may.
        """
        hidden = {"settings.url", "settings.body"} & self.destination.secret_refs().keys()
        return bool(hidden) or any("value" in names_in(text) for text in self.texts)

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """Every text of its template that may carry macros, the account's own texts that it names included."""
        template, settings = self.template, self.plain_settings()
        parameters = [text for each in template.parameters for text in (each.name, each.value)]
        texts = [template.url, template.body, *(text for _, text in template.headers), *parameters]
        named = frozenset().union(*(names_in(text) for text in texts))
        return (*texts, *(settings[name] for name in sorted(named & settings.keys())))

    def template_for(self, kind: AdjustmentKind | None) -> Template:
        """What to render: the conversion's own postback, or an adjustment of it. ``kind`` must be one the network takes."""
        if kind is None:
            return self.template
        found = self.network.adjustments.of(kind)
        assert found is not None
        return found.template(self.destination.headers)

    def defaults_for(self, kind: AdjustmentKind | None) -> dict[str, str]:
        """``settings.*`` macro values that stand in there for what the account does not give."""
        found = None if kind is None else self.network.adjustments.of(kind)
        return {} if found is None else {f"settings.{name}": text for name, text in found.defaults.items()}

    def answer_for(self, kind: AdjustmentKind | None) -> AnswerRules:
        """How an answer to it is judged."""
        found = None if kind is None else self.network.adjustments.of(kind)
        return self.network.answer if found is None or found.answer is None else found.answer

    def dedupe_for(self, kind: AdjustmentKind | None) -> Dedupe:
        """What the network does with it a second time."""
        found = None if kind is None else self.network.adjustments.of(kind)
        return self.dedupe if found is None else found.dedupe

    @cached_property
    def fetch_limits(self) -> FetchLimits:
        limits = self.destination.limits
        return FetchLimits(
            deadline_s=limits.deadline.total_seconds(),
            connect_s=limits.connect.total_seconds(),
            body_cap_bytes=limits.body_cap,
            follow_redirects=self.network.redirects == "follow",
            allowed_hosts=() if self.destination.allow_private else self.network.allowed_hosts,
            allow_private=self.destination.allow_private,
            allow_http=self.destination.allow_http,
        )

    def plain_settings(self) -> dict[str, str]:
        """``settings.*`` macro values that are no secrets, the network's defaults filled in."""
        values = {
            f"settings.{name}": setting.default
            for name, setting in self.network.settings.items()
            if setting.default is not None
        }
        values |= {
            f"settings.{name}": value
            for name, value in self.destination.settings.items()
            if isinstance(value, str)
        }
        return values

    def event_name(self, name: str) -> str:
        return self.destination.event_names.get(name, name)


def join(name: str, destination: Destination, network: Network) -> Contract:
    """A destination under its network's rules, or its own where the network leaves them open.

    Raises ``pydantic.ValidationError`` for a ``name`` that is none.
    """
    rules = destination.rules
    if rules is not None and network.open_rules:
        network = network.model_copy(update={key: getattr(rules, key) for key in rules.model_fields_set})
    return Contract(name=name, destination=destination, network=network)


@dataclass(frozen=True, slots=True)
class DestinationVersion:
    """An applied contract: ``id`` identifies it for ever, ``number`` counts the destination's versions from 1."""

    id: int
    number: int
    contract: Contract
