"""A destination: a configured account at a network, with its own policy and secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from schemas.backoff import RetryPolicy
from schemas.durations import Duration, show
from schemas.event import ConversionEvent
from schemas.exchange import FetchLimits
from schemas.hold import HoldPolicy, HoldRule, show_wait
from schemas.macros import EVENT_MACROS, MACRO, Template, names_in
from schemas.network import AgeLimit, Network, QueryParameter, host_allowed
from schemas.problem import Problem
from schemas.verdict import AnswerRules, Dedupe


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SecretRef(_Config):
    """Where a secret is found: never the secret itself. Exactly one of the two."""

    env: str | None = None
    file: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _named_not_written(cls, given: object) -> object:
        # Said here and not by the type, whose own message would not tell what to write instead.
        # An applied contract is stored whole and comes back with the other place named and empty.
        places = [
            place for place in ("env", "file") if isinstance(given, dict) and given.get(place) is not None
        ]
        if isinstance(given, str) or (isinstance(given, dict) and len(places) != 1):
            raise PydanticCustomError("secret_ref", 'a secret is { env = "NAME" } or { file = "PATH" }')
        return given


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


class HeaderAuth(_Config):
    """An API key in a header."""

    kind: Literal["header"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")] = "X-API-Key"
    value: SecretRef


class BearerAuth(_Config):
    """RFC 6750: ``Authorization: Bearer …`` with a token that does not change by itself."""

    kind: Literal["bearer"]
    token: SecretRef


class ClientCredentialsAuth(_Config):
    """RFC 6749 §4.4: a token fetched with the client's own credentials, cached and renewed before it ends."""

    kind: Literal["client_credentials"]
    token_url: Annotated[str, Field(pattern=r"^https?://")]
    client_id: str
    client_secret: SecretRef
    scope: str | None = None


Auth = Annotated[HeaderAuth | BearerAuth | ClientCredentialsAuth, Field(discriminator="kind")]


class Rules(_Config):
    """Rules of a network that leaves them open; only those that are given replace the network's own."""

    answer: AnswerRules = AnswerRules()
    redirects: Literal["follow", "never"] = "never"
    allowed_hosts: tuple[str, ...] = ()
    delivered_means: Literal["answered", "tried"] = "answered"
    sub_id: bool = False
    age_limit: AgeLimit | None = None


class Destination(_Config):
    """One ``[destinations.NAME]`` table of ``holdfire.toml``."""

    network: str
    events: Annotated[tuple[str, ...], Field(min_length=1)]
    settings: dict[str, str | SecretRef] = Field(default_factory=dict)
    event_names: dict[str, str] = Field(default_factory=dict)
    """What the network calls our events, where it differs; case and all."""
    protocol: Literal["transaction", "partner"] | None = None
    hold: HoldPolicy = HoldPolicy()
    holds: tuple[HoldRule, ...] = ()
    """Policies for some of its events; ``hold`` is for the others."""
    retry: RetryPolicy | None = None
    limits: Limits = Limits()
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

    def policies(self) -> dict[str, HoldPolicy]:
        """Every hold policy of the destination, by the key that gives it."""
        return {f"holds.{place}.hold": rule.hold for place, rule in enumerate(self.holds)} | {
            "hold": self.hold
        }

    def hold_for(self, event: ConversionEvent) -> HoldPolicy:
        """The policy of the first rule that takes the event, or the destination's own."""
        return next((rule.hold for rule in self.holds if rule.takes(event)), self.hold)

    def secret_refs(self) -> dict[str, SecretRef]:
        """Every secret the destination needs, by the place that names it."""
        refs = {f"settings.{name}": ref for name, ref in self.settings.items() if isinstance(ref, SecretRef)}
        match self.auth:
            case HeaderAuth(value=ref):
                refs["auth.value"] = ref
            case BearerAuth(token=ref):
                refs["auth.token"] = ref
            case ClientCredentialsAuth(client_secret=ref):
                refs["auth.client_secret"] = ref
        return refs


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
    def retry(self) -> RetryPolicy:
        return self.destination.retry or self.network.retry or RetryPolicy()

    @cached_property
    def template(self) -> Template:
        return self.network.template(self.destination.parameters, self.destination.headers)

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


@dataclass(frozen=True, slots=True)
class Findings:
    """What ``check`` found: problems refuse the configuration, warnings do not."""

    problems: list[Problem]
    warnings: list[Problem]


def check(contract: Contract) -> Findings:
    """Hold a destination against its network's contract. Every finding names the key and the remedy."""
    findings = Findings([], [])
    where = f"destinations.{contract.name}"
    _check_settings(contract, where, findings)
    _check_macros(contract, where, findings)
    _check_parameters(contract, where, findings)
    _check_body(contract, where, findings)
    _check_url(contract, where, findings)
    _check_age(contract, where, findings)
    _check_dedupe_window(contract, where, findings)
    if contract.destination.rules is not None and not contract.network.open_rules:
        findings.problems.append(
            Problem(
                "fixed_rules",
                f"{where}.rules",
                f"{contract.network.title} has rules of its own",
                'Remove it, or use network = "generic"',
            )
        )
    if contract.destination.protocol and contract.destination.protocol not in contract.network.protocols:
        findings.problems.append(
            Problem(
                "protocol",
                f"{where}.protocol",
                f"{contract.network.title} has no {contract.destination.protocol} protocol",
                f"Use one of {', '.join(contract.network.protocols)}",
            )
        )
    return findings


def _check_settings(contract: Contract, where: str, findings: Findings) -> None:
    known = contract.network.settings
    for name, setting in known.items():
        value = contract.destination.settings.get(name, setting.default)
        place = f"{where}.settings.{name}"
        if value is None:
            if setting.required:
                findings.problems.append(Problem("missing", place, "is missing", f"Add it: {setting.about}"))
        elif isinstance(value, str):
            if setting.secret:
                findings.problems.append(
                    Problem(
                        "secret", place, "is a secret written in the file", 'Write { env = "NAME" } instead'
                    )
                )
            elif setting.pattern is not None and not re.fullmatch(setting.pattern, value):
                findings.problems.append(
                    Problem(
                        "pattern",
                        place,
                        f"{value!r} does not match {setting.pattern}",
                        f"It is {setting.about}",
                    )
                )
    # The generic network takes any setting its own template names.
    free = {name.removeprefix("settings.") for name in _macros(contract)}
    for name in contract.destination.settings.keys() - known.keys() - free:
        findings.problems.append(
            Problem(
                "unknown_setting",
                f"{where}.settings.{name}",
                f"{contract.network.title} has no such setting",
                f"Known: {', '.join(known) or 'none'}",
            )
        )


def _macros(contract: Contract) -> frozenset[str]:
    template, settings = contract.template, contract.plain_settings()
    texts = [template.url, template.body, *settings.values(), *(text for _, text in template.headers)]
    texts += [text for parameter in template.parameters for text in (parameter.name, parameter.value)]
    return frozenset().union(*(names_in(text) for text in texts))


def _check_macros(contract: Contract, where: str, findings: Findings) -> None:
    given = contract.plain_settings().keys() | {
        f"settings.{name}" for name in (*contract.destination.settings, *contract.network.settings)
    }
    for macro in sorted(_macros(contract)):
        if macro in EVENT_MACROS or macro in given or macro.startswith("params."):
            continue
        findings.problems.append(
            Problem(
                "unknown_macro",
                f"{where}.settings",
                f"{{{macro}}} is no macro",
                f"Use one of {', '.join(sorted(EVENT_MACROS))}, params.NAME or settings.NAME",
            )
        )


def _check_parameters(contract: Contract, where: str, findings: Findings) -> None:
    own = {parameter.name for parameter in contract.network.parameters}
    for number, parameter in enumerate(contract.destination.parameters):
        if parameter.name in own:
            findings.problems.append(
                Problem(
                    "parameter_twice",
                    f"{where}.parameters.{number}.name",
                    f"{contract.network.title} sends {parameter.name} already",
                    "Remove it; the event or a setting fills the network's own",
                )
            )


def _check_body(contract: Contract, where: str, findings: Findings) -> None:
    has_body = bool(contract.network.body.removeprefix("{settings.body}")) or bool(
        contract.destination.settings.get("body")
    )
    headers = {name.lower() for name, _ in contract.template.headers}
    if has_body and "content-type" not in headers:
        findings.problems.append(
            Problem(
                "content_type",
                f"{where}.headers",
                "has no Content-Type, so it is not known how values are written into the body",
                'Add headers = { Content-Type = "application/json" }',
            )
        )


def _check_url(contract: Contract, where: str, findings: Findings) -> None:
    url = contract.network.url
    place = f"{where}.network"
    if url.startswith("{settings.url}"):
        place = f"{where}.settings.url"
        given = contract.plain_settings().get("settings.url")
        if given is None:  # missing, which is said elsewhere, or a secret, which is not read here
            return
        url = given + url.removeprefix("{settings.url}")
    parts = _split(url)
    if parts is None or not parts.hostname:
        findings.problems.append(
            Problem(
                "url",
                place,
                f"{url!r} is no http(s) URL",
                "Write https://host/path, other characters encoded",
            )
        )
        return
    if foreign := _FOREIGN_MACRO.search(MACRO.sub("", f"{parts.path}?{parts.query}")):
        findings.problems.append(
            Problem(
                "unknown_macro",
                place,
                f"has {foreign[0]}, which nothing here replaces",
                "Write Holdfire's macro in its place, such as {click_id}; a bracket that is meant is %5B or %7B",
            )
        )
    if "@" in parts.netloc:
        findings.problems.append(
            Problem(
                "url",
                place,
                "carries a user or password",
                'Use auth = { kind = "header", name = "Authorization", value = { env = "NAME" } }',
            )
        )
    if parts.fragment:
        findings.problems.append(Problem("url", place, "has a #fragment, which is never sent", "Remove it"))
    _check_host(contract, where, place, parts, findings)


_FOREIGN_MACRO = re.compile(r"\$?\{[^{}]*\}|\[\w+\]|%%\w+%%|[{}\[\]]")
"""A placeholder that is left in a URL once Holdfire's own macros are taken out."""


def _split(url: str) -> SplitResult | None:
    """The parts of an http(s) URL that can be sent as it stands, or None."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.scheme in ("https", "http") and re.fullmatch(r"[!-~]+", url) else None


def _check_host(contract: Contract, where: str, place: str, parts: SplitResult, findings: Findings) -> None:
    if parts.scheme == "http":
        target = findings.warnings if contract.destination.allow_http else findings.problems
        target.append(
            Problem(
                "plain_http",
                place,
                "is plain http: ids travel unencrypted",
                "Use https, or set allow_http = true",
            )
        )
    allowed = contract.fetch_limits.allowed_hosts
    host = parts.hostname or ""
    if allowed and "{" not in host and not host_allowed(host, allowed):
        findings.problems.append(
            Problem(
                "host",
                place,
                f"{host} is not a host of {contract.network.title} ({', '.join(allowed)})",
                "Correct the host, or set allow_private = true for a sink of your own",
            )
        )
    if contract.destination.allow_private:
        findings.warnings.append(
            Problem(
                "allow_private",
                f"{where}.allow_private",
                "private addresses may be contacted",
                "For tests only",
            )
        )


def _check_age(contract: Contract, where: str, findings: Findings) -> None:
    limit = contract.network.age_limit
    if limit is None:
        return
    horizon = contract.retry.horizon
    for place, hold in contract.destination.policies().items():
        wait = hold.longest_wait
        if wait + horizon <= limit.wait:
            continue
        most = f" (at most {show(wait)})" if wait != hold.wait else ""
        findings.problems.append(
            Problem(
                "age_limit",
                f"{where}.{place}.wait",
                f"wait {show_wait(hold.wait)}{most} + retry horizon {show(horizon)} = {show(wait + horizon)}, but "
                f"{contract.network.title} ignores conversions {show(limit.wait)} after the {limit.measured_from}",
                "Shorten the wait or retry.horizon",
            )
        )


def _check_dedupe_window(contract: Contract, where: str, findings: Findings) -> None:
    """A repeat counts once only while the network remembers the first."""
    window, horizon = contract.network.dedupe_window, contract.retry.horizon
    if window is None or contract.dedupe is Dedupe.COUNTED_TWICE or horizon < window:
        return
    findings.problems.append(
        Problem(
            "dedupe_window",
            f"{where}.retry.horizon",
            f"{show(horizon)} is too long: {contract.network.title} counts a repeat again after {show(window)}",
            f'Make it shorter than {show(window)}, or set dedupe = "counted_twice"',
        )
    )
