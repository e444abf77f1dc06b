"""A network: an ad or affiliate platform's contract, as data. One TOML file each in ``schemas/networks``."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from schemas.backoff import RetryPolicy
from schemas.durations import Duration
from schemas.event import CurrencyCode
from schemas.macros import Parameter, Template, names_in
from schemas.support import Support
from schemas.verdict import AnswerRules, Dedupe, regular_expression

AdjustmentKind = Literal["retraction", "restatement"]
ADJUSTMENT_KINDS: tuple[AdjustmentKind, ...] = get_args(AdjustmentKind)


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Setting(_Data):
    """Something an account has to give. ``secret``: only by environment variable or file, never in the config.

    ``pattern`` is a regular expression for the whole value.
    """

    about: str
    required: bool = True
    default: str | None = None
    pattern: Annotated[str, AfterValidator(regular_expression)] | None = None
    secret: bool = False


def _inside_a_parameter(text: str) -> str:
    found = re.search(r"[&#]", text)
    if found:
        raise PydanticCustomError(
            "parameter_text",
            "{text} has {found}, which ends a parameter: percent-encode it",
            {"text": repr(text), "found": found[0]},
        )
    return text


ParameterName = Annotated[str, Field(pattern=r"^[!-~]+$", max_length=100)]


class QueryParameter(_Data):
    """See ``schemas.macros.Parameter``, whose fields these are."""

    # The text between macros goes on the wire as it stands, so it must not end the parameter or the query.
    name: Annotated[str, Field(pattern=r"^[!-~]+$"), AfterValidator(_inside_a_parameter)]
    value: Annotated[str, Field(pattern=r"^[!-~]*$"), AfterValidator(_inside_a_parameter)]
    optional: bool = False
    keep_empty: bool = False
    encoded: bool = False
    last: bool = False
    max_length: Annotated[int, Field(ge=1)] | None = None
    pattern: Annotated[str, AfterValidator(regular_expression)] | None = None

    def plain(self) -> Parameter:
        return Parameter(**self.model_dump())


class AgeLimit(_Data):
    """After ``wait`` from ``measured_from`` the network ignores a conversion."""

    wait: Annotated[Duration, Field(gt=timedelta(0))]
    measured_from: Literal["event", "click"] = "click"


class Example(_Data):
    """A rendering to be compared byte for byte. ``event`` holds macro values, ``source`` says whose example it is."""

    source: str
    settings: dict[str, str] = Field(default_factory=dict)
    event: dict[str, str] = Field(default_factory=dict)
    headers: dict[str, str] = Field(default_factory=dict)
    """Of the destination."""
    url: str
    method: str = "GET"
    body: str = ""


class Adjustment(_Data):
    """How one postback that was delivered is corrected. Its parts are like the network's own, and stand alone.

    Macros are the conversion's, but ``{value}`` is the new total that stands now and ``{delta}`` the signed change from
    what the network was told last, such as ``-10.00``. A setting that its URL or a parameter of it needs may be left
    out by an account, which then cannot correct. ``basis``: the page's words, or what is missing there.
    """

    method: Literal["GET", "POST", "PUT"] = "GET"
    url: str
    parameters: tuple[QueryParameter, ...] = ()
    headers: dict[str, str] = Field(default_factory=dict)
    body: str = ""
    answer: AnswerRules | None = None
    """The network's own rules if left out."""
    dedupe: Dedupe = Dedupe.COUNTED_TWICE
    """What the network does with the same adjustment twice; nothing said is the safe rule."""
    basis: str = ""
    defaults: dict[str, str] = Field(default_factory=dict)
    """What a setting is here where the account gives none: an event that has no id is sent without one, but corrected
    as event 0."""
    revives: bool = False
    """Of a restatement: it also brings back what was retracted, as after a dispute that was won."""
    age_limit: AgeLimit | None = None
    examples: tuple[Example, ...] = ()

    def template(self, headers: Mapping[str, str] | None = None) -> Template:
        """What to render. ``headers`` are the account's, which go along unless the adjustment names them too."""
        named = {name.lower() for name in self.headers}
        own = {name: text for name, text in (headers or {}).items() if name.lower() not in named}
        return Template(
            method=self.method,
            url=self.url,
            parameters=tuple(parameter.plain() for parameter in self.parameters),
            headers=tuple({**own, **self.headers}.items()),
            body=self.body,
        )

    @property
    def needed_settings(self) -> frozenset[str]:
        """Names of the settings without which it cannot be rendered."""
        left_out = [each for each in self.parameters if each.optional or each.keep_empty]
        macros = frozenset().union(*(names_in(text) for text in self.texts(without=left_out)))
        named = {name.removeprefix("settings.") for name in macros if name.startswith("settings.")}
        return frozenset(named - self.defaults.keys())

    def texts(self, without: Container[QueryParameter] = ()) -> list[str]:
        """Every text of it that may carry macros."""
        kept = [each for each in self.parameters if each not in without]
        given = [text for each in kept for text in (each.name, each.value)]
        return [self.url, self.body, *self.headers.values(), *given]


class Adjustments(_Data):
    """The corrections a network takes: ``retraction`` takes a conversion back, ``restatement`` gives it another value."""

    retraction: Adjustment | None = None
    restatement: Adjustment | None = None

    @model_validator(mode="after")
    def _only_a_value_revives(self) -> Adjustments:
        if self.retraction is not None and self.retraction.revives:
            raise PydanticCustomError(
                "retraction_revives",
                "a retraction takes back, it revives nothing: move revives to the restatement",
            )
        return self

    def of(self, kind: AdjustmentKind) -> Adjustment | None:
        return self.retraction if kind == "retraction" else self.restatement

    def all(self) -> dict[AdjustmentKind, Adjustment]:
        """Those there are."""
        return {kind: found for kind in ADJUSTMENT_KINDS if (found := self.of(kind)) is not None}


class Network(_Data):
    """One platform's contract. ``delivered_means`` says what a delivered answer is worth as evidence."""

    slug: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: str
    docs: str
    confidence: Literal["exact", "secondary", "unverified"] = "exact"
    """Where the rules are from: the vendor's page, a secondary page or public code, or memory."""
    unverified: tuple[str, ...] = ()
    """Rules that no page was found for, by their dotted place: ``answer``, ``parameters.sum``, ``settings.url``."""
    protocols: tuple[Literal["transaction", "partner"], ...] = ("transaction",)
    """What attributes a conversion: the click's token, or the partner's id. The first is the default."""

    method: Literal["GET", "POST", "PUT", "{settings.method}"] = "GET"
    url: str
    parameters: tuple[QueryParameter, ...] = ()
    headers: dict[str, str] = Field(default_factory=dict)
    body: str = ""
    settings: dict[str, Setting] = Field(default_factory=dict)

    click_parameters: tuple[ParameterName, ...] = ()
    """Parameters of the landing page's URL that carry the click id, the usual one first."""
    click_parameters_basis: str = ""
    """The page's words on them. Empty: unverified, for no page names what an account writes into its own URL."""
    currencies: tuple[CurrencyCode, ...] = ()
    """Currencies a value may be in, where the network converts none; empty means any."""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts the postback and its redirects may go to, ``*.example.net`` for subdomains; empty means any public one."""
    redirects: Literal["follow", "never"] = "never"
    answer: AnswerRules = AnswerRules()
    delivered_means: Literal["answered", "tried"] = "answered"
    """``tried``: the network answers 200 also when it counted nothing."""
    dedupe: Dedupe
    dedupe_basis: str
    """Why ``dedupe`` is as it is: the page's words, or that the page is silent and the safe rule was taken."""
    dedupe_window: Annotated[Duration, Field(gt=timedelta(0))] | None = None
    """How long the network remembers a conversion; later a second one counts again. None: for ever, or not said."""
    sub_id: bool = False
    """Whether the network tells conversions of one click apart by order id."""
    age_limit: AgeLimit | None = None
    adjustments: Adjustments = Adjustments()
    retry: RetryPolicy | None = None
    open_rules: bool = False
    """Whether a destination may set rules of its own (``schemas.destination.Rules``): the generic network."""
    examples: tuple[Example, ...] = ()
    support: Annotated[Support, Field(exclude=True)] = Support()
    """What its support asks for today. No part of a contract, so it is not kept with what is held."""

    @model_validator(mode="after")
    def _unverified_rules_exist(self) -> Network:
        for place in self.unverified:
            if place not in self._places():
                raise PydanticCustomError(
                    "unverified",
                    "{place} is no rule of this network: write answer, parameters.NAME, settings.NAME or another key",
                    {"place": repr(place)},
                )
        return self

    def _places(self) -> set[str]:
        """Every rule that can be unverified, by its dotted place."""
        return {
            *Network.model_fields,
            *(f"answer.{name}" for name in AnswerRules.model_fields),
            *(f"parameters.{parameter.name}" for parameter in self.parameters),
            *(f"settings.{name}" for name in self.settings),
            *(f"adjustments.{kind}" for kind in self.adjustments.all()),
        }

    def template(
        self, extra: tuple[QueryParameter, ...] = (), headers: Mapping[str, str] | None = None
    ) -> Template:
        """What to render. ``extra`` parameters come before the network's own that must be last."""
        ordinary = [parameter.plain() for parameter in self.parameters if not parameter.last]
        last = [parameter.plain() for parameter in self.parameters if parameter.last]
        # Before the network's last: an account's own wish to be last never beats the network's rule.
        own = [parameter.plain() for parameter in extra]
        return Template(
            method=self.method,
            url=self.url,
            parameters=(*ordinary, *own, *last),
            headers=tuple({**self.headers, **(headers or {})}.items()),
            body=self.body,
        )


def host_allowed(host: str, allowed: tuple[str, ...]) -> bool:
    """Whether ``host`` is one of ``allowed``: exact names, or ``*.example.net`` for any subdomain of it."""
    host = host.lower().rstrip(".")
    return any(
        host == name.lower() or (name.startswith("*.") and host.endswith(name[1:].lower()))
        for name in allowed
    )


def catalogue_table(networks: Iterable[Network]) -> str:
    """The networks as a Markdown table for ``docs/networks.md``; optional settings in brackets."""
    rows = [
        "| network | title | confidence | unverified | landing page | needs | a second postback | corrections |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for network in networks:
        unverified = ", ".join(f"`{place}`" for place in network.unverified) or "none"
        landing = ", ".join(f"`{name}`" for name in network.click_parameters) or "none"
        landing += "" if network.click_parameters_basis or not network.click_parameters else " (unverified)"
        needs = ", ".join(_need(name, setting) for name, setting in network.settings.items())
        rows.append(
            f"| [`{network.slug}`](../schemas/networks/{network.slug}.md) | {network.title} | {network.confidence} "
            f"| {unverified} | {landing} | {needs} | {network.dedupe.replace('_', ' ')} "
            f"| {', '.join(network.adjustments.all()) or 'none'} |"
        )
    return "\n".join(rows)


def _need(name: str, setting: Setting) -> str:
    text = f"`{name}`" + (" (secret)" if setting.secret else "")
    return text if setting.required and setting.default is None else f"[{text}]"


def read_network(data: dict[str, Any]) -> Network:
    """Validate a network file already parsed from TOML. Raises ``pydantic.ValidationError``."""
    return Network.model_validate(data)
