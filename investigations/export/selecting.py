"""From ids and filters to what is handed over: which conversions, and which of their postbacks and attempts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sqlalchemy import Engine

from infra.filters import AskingError
from infra.store.evidence import read_lives
from infra.store.searching import search
from infra.store.searching.search import Criteria
from investigations.export.exhibit import Narrowing, narrowed
from investigations.lookup import by_id, conversion_of
from schemas.ids import parse


@dataclass(frozen=True, slots=True)
class Selection:
    """``conversions`` by id; ``narrowing`` says what of them; ``networks`` are those their postbacks went to."""

    conversions: frozenset[int]
    narrowing: Narrowing
    networks: frozenset[str]


def by_ids(
    engine: Engine, ids: Iterable[str], *, destination: str | None = None, network: str | None = None
) -> Selection:
    """``cv_N`` and event ids are whole conversions, ``pb_N`` one postback with its corrections, ``at_N`` one attempt.

    All of one kind: half of one conversion beside the whole of another would be hard to read. Raises UnknownIdError,
    and AskingError for a mixture and for what is no conversion.
    """
    chosen: dict[str, set[int]] = {"cv": set(), "pb": set(), "at": set()}
    conversions: set[int] = set()
    for text in ids:
        parsed = parse(text) or ("event", 0)
        if parsed[0] in chosen:
            chosen[parsed[0]].add(parsed[1])
            conversions.add(conversion_of(engine, *parsed))
            continue
        found = by_id(engine, text).conversions if parsed[0] == "event" else []
        if not found:
            raise AskingError(
                f"export: {text} is no conversion, postback or attempt; `holdfire trail` tells what it is"
            )
        chosen["cv"] |= set(found)
        conversions |= set(found)
    if len(kinds := [f"{prefix}_N" for prefix, numbers in chosen.items() if numbers]) > 1:
        raise AskingError(
            f"export: {' and '.join(kinds)} together; give ids of one kind, and the others apart"
        )
    narrowing = Narrowing(
        postbacks=frozenset(chosen["pb"]) or None,
        attempts=frozenset(chosen["at"]) or None,
        destinations=frozenset({destination}) if destination else None,
        network=network,
    )
    return Selection(frozenset(conversions), narrowing, _networks(engine, conversions, narrowing))


def by_filters(engine: Engine, criteria: Criteria) -> Selection:
    """What ``find`` lists by them: these postbacks, and nothing of what the same conversions sent elsewhere."""
    conversions, postbacks, networks = set(), set(), set()
    for found in search.search_all(engine, criteria):
        conversions.add(found.conversion_id)
        postbacks.add(found.postback_id)
        networks.add(found.network)
    return Selection(frozenset(conversions), Narrowing(postbacks=frozenset(postbacks)), frozenset(networks))


def for_one_network(selection: Selection) -> tuple[Selection, str]:
    """The selection as its one network's support may see it, and which network that is. Raises AskingError."""
    if len(selection.networks) != 1:
        went = ", ".join(sorted(selection.networks)) or "no network"
        raise AskingError(
            f"--network-format: what was chosen went to {went}; choose one with --network or --destination"
        )
    (network,) = selection.networks
    return replace(selection, narrowing=replace(selection.narrowing, network=network)), network


def _networks(engine: Engine, conversions: Iterable[int], narrowing: Narrowing) -> frozenset[str]:
    lives = read_lives(engine, conversions, hops_of=lambda _: ())
    return frozenset(
        each.version.contract.network.slug for life in lives for each in narrowed(life, narrowing).postbacks
    )
