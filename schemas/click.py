"""A click: what links the keys a business knows a person or an order by to the click ids that networks gave.

CRMs know the order, not the click. The landing page knows both for a moment: it registers the click, and a conversion
that comes without a click id is matched by the keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Protocol, get_args
from urllib.parse import unquote_plus, unquote_to_bytes

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.destination import DestinationVersion
from schemas.event import UNREPLACED_MACRO, Instant, Key, in_the_future, problems_of
from schemas.network import Network
from schemas.problem import Problem

KeyName = Literal["order_id", "lead_id", "customer_id", "device_id"]
KEYS: tuple[KeyName, ...] = get_args(KeyName)
"""What links a click to a conversion, the most telling first."""

CLICK: Final = "click"
"""What a click is called where the names of events are: in the scope of an API key."""
MAX_URL = 16_000
MAX_TOKEN = 4096

Parameters = Mapping[str, tuple[str, ...]]
"""For each network, or destination with parameters of its own: those of a landing page's URL that carry its click id."""


@dataclass(frozen=True, slots=True)
class Click:
    """A click as it is registered: ``click_ids`` by network or destination, verbatim, and at least one key."""

    click_ids: dict[str, str]
    clicked_at: datetime
    keys: dict[KeyName, str]
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """A click id found for a conversion by a key they share. ``click`` is the click's number in the register."""

    click: int
    token: str
    clicked_at: datetime
    key: KeyName


Matches = Mapping[str, Match]
"""By destination."""


def read_matches(stored: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Match]:
    """What ``wire_matches`` made."""
    return {
        destination: Match(
            each["click"], each["token"], datetime.fromisoformat(each["clicked_at"]), each["key"]
        )
        for destination, each in (stored or {}).items()
    }


def wire_matches(matches: Matches) -> dict[str, dict[str, Any]]:
    """Matches as JSON-ready values, to be kept with their conversion."""
    return {
        destination: {
            "click": each.click,
            "token": each.token,
            "clicked_at": each.clicked_at.isoformat(),
            "key": each.key,
        }
        for destination, each in matches.items()
    }


class Keyed(Protocol):
    """What may be matched: a conversion event, as read or as stored."""

    @property
    def order_id(self) -> str | None: ...
    @property
    def lead_id(self) -> str | None: ...
    @property
    def customer_id(self) -> str | None: ...
    @property
    def device_id(self) -> str | None: ...


def keys_of(event: Keyed) -> dict[KeyName, str]:
    """The keys that an event has, the most telling first."""
    return {name: value for name in KEYS if (value := getattr(event, name)) is not None}


class ClickRequest(BaseModel):
    """The JSON of ``POST /v1/clicks``. A click id in ``click_ids`` wins over one in ``url``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: (
        Annotated[
            str,
            Field(max_length=MAX_URL, description="the landing page's URL as it was visited, query and all"),
        ]
        | None
    ) = None
    click_ids: (
        Annotated[dict[Key, str], Field(max_length=50, description="network or destination → its token")]
        | None
    ) = None
    order_id: Key | None = None
    lead_id: Key | None = None
    customer_id: Key | None = None
    device_id: Key | None = None
    clicked_at: Annotated[Instant, Field(description="now, if left out")] | None = None
    source: (
        Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$")] | None
    ) = None


def parameters_of(
    networks: Iterable[Network], versions: Iterable[DestinationVersion]
) -> dict[str, tuple[str, ...]]:
    """Where click ids stand: of every network in the catalogue, and of destinations that have parameters of their own."""
    found = {network.slug: network.click_parameters for network in networks if network.click_parameters}
    for version in versions:
        if version.contract.destination.click_parameters:
            found[version.contract.name] = version.contract.destination.click_parameters
    return found


def click_ids_in(url: str, parameters: Parameters) -> tuple[dict[str, str], list[Problem]]:
    """The click ids in the query of a landing page's URL, and what stands there in place of one.

    Percent-decoded once and else verbatim: a trailing period and a ``+`` stay, as tokens have both and a space has no
    place in one. Of a parameter that stands there several times the first with a value counts, as browsers read it.
    """
    query = url.partition("#")[0].partition("?")[2]
    values: dict[str, str] = {}
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if value:
            values.setdefault(unquote_plus(name), value)
    found: dict[str, str] = {}
    problems: dict[str, Problem] = {}
    for network, names in parameters.items():
        for name in names:
            if name not in values:
                continue
            token = _decoded(values[name])
            if (problem := _fault(f"url: {name}", token)) is not None:
                problems[name] = problem
                continue
            assert token is not None
            found[network] = token
            break
    return found, list(problems.values())


def read_click(raw: object, parameters: Parameters, now: datetime) -> tuple[Click | None, list[Problem]]:
    """A click from its JSON, already decoded, and every problem. Without a click: nothing of it can be registered.

    Problems beside a click are of tokens that were left out of it. ``now`` is when the click was, if it does not say.
    """
    try:
        request = ClickRequest.model_validate(raw)
    except ValidationError as error:
        return None, problems_of(error)
    found, problems = click_ids_in(request.url or "", parameters)
    for network, token in (request.click_ids or {}).items():
        if (problem := _fault(f"click_ids.{network}", token)) is not None:
            problems.append(problem)
        else:
            found[network] = token
    keys = keys_of(request)
    ahead = in_the_future({"clicked_at": request.clicked_at} if request.clicked_at else {}, now)
    if found and keys and not ahead:
        return Click(found, request.clicked_at or now, keys, request.source), problems
    return None, [*problems, *ahead, *_lacking(found, keys, problems, request, parameters)]


def _lacking(
    found: dict[str, str],
    keys: dict[KeyName, str],
    problems: list[Problem],
    request: ClickRequest,
    parameters: Parameters,
) -> Iterator[Problem]:
    if not found and not problems:
        known = ", ".join(sorted({name for names in parameters.values() for name in names}))
        yield Problem(
            "no_click_id",
            "click_ids" if request.url is None else "url",
            "has no click id of any network",
            f"Send the landing page's URL as it was visited, with one of {known}; or click_ids; or give the "
            "destination click_parameters of its own",
        )
    if not keys:
        yield Problem(
            "no_key",
            KEYS[1],
            "no key says whose click it is",
            f"Add one of {', '.join(KEYS)}, as the conversion will carry it",
        )


def _decoded(value: str) -> str | None:
    """Percent-decoded, or None where that gives no text."""
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeError:
        return None


def _fault(field: str, token: str | None) -> Problem | None:
    """Why this cannot be a click id, or None if it can."""
    if token is None or "\ufffd" in token:
        reason, remedy = "is no UTF-8 once percent-decoded", "Send the URL as the landing page received it"
        return Problem("undecodable_click_id", field, reason, remedy)
    if UNREPLACED_MACRO.match(token):
        remedy = "Check the landing page URL in the network's ad: its macro was not filled in"
        return Problem("unreplaced_macro", field, f"is the unreplaced macro {token}", remedy)
    if not token or not token.isprintable():
        reason = "has unprintable characters" if token else "is empty"
        return Problem(
            "unprintable_click_id", field, reason, "Send the token exactly as the landing page received it"
        )
    if len(token) > MAX_TOKEN:
        return Problem(
            "string_too_long", field, f"has more than {MAX_TOKEN} characters", "Check what stands there"
        )
    return None
