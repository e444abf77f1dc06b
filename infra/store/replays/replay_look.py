"""Looking at postbacks that are to be fired again: what the rules want to know of each, read under its lock or without."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from infra.store.dedupe import Holder, read_holders
from infra.store.destinations import read_version
from infra.store.firing import stored_event
from infra.store.searching.paging import Narrowing
from infra.store.selection import Selection
from schemas.adjustment import NOTHING, credited, kind_of, stands
from schemas.conversion import StoredConversion, click_id_for, dedupe_key, unrenderable
from schemas.destination import Contract, DestinationVersion
from schemas.event import ConversionEvent
from schemas.lifecycle import State
from schemas.replaying import PER_SECOND, Again, Decision, Postback, Refused, Rival, decide
from schemas.verdict import Dedupe

ERASED: Decision = Refused("it was erased at a person's request: what it reported is not known any more")

# In the order of ids that all keep to: what a correction corrects before it, and each before its own corrections.
LOCK = text("""
    SELECT id FROM postbacks WHERE id = ANY(ARRAY(
        SELECT unnest(CAST(:ids AS bigint[]))
        UNION SELECT id FROM postbacks WHERE adjusts = ANY(:ids)
        UNION SELECT adjusts FROM postbacks WHERE id = ANY(:ids) AND adjusts IS NOT NULL))
    ORDER BY id FOR UPDATE""")

_READ = """
    SELECT p.id, p.conversion_id, p.version_id, p.state, p.attempts, p.release_at, p.expires_at, p.had_unknown, p.reason,
        p.void_reason, p.retracted_at, p.adjustments, p.adjustment, p.adjusts, p.freed, p.settled_at, p.first_attempt_at,
        p.budget_from, p.run_id, v.destination, c.event::text AS event, c.matched, c.name, c.value, c.currency, c.net_value,
        c.outcomes, c.erasure_id, now() AS now, coalesce(latest.verdict, p.archived_verdict) = 'duplicate' AS called_duplicate,
        original.state AS of_state, original.reported AS of_reported, original.retracted_at AS of_retracted_at,
        original.void_reason AS of_void_reason, EXISTS (
            SELECT FROM postbacks other WHERE other.adjusts = p.adjusts AND other.adjusts IS NOT NULL
                AND other.id <> p.id AND other.state IN ('held', 'leased', 'firing', 'retrying')) AS correcting
    FROM postbacks p JOIN conversions c ON c.id = p.conversion_id JOIN destination_versions v ON v.id = p.version_id
        LEFT JOIN postbacks original ON original.id = p.adjusts
        LEFT JOIN LATERAL (SELECT a.verdict FROM attempts a WHERE a.postback_id = p.id AND p.state = 'rejected'
            ORDER BY a.number DESC, a.id DESC LIMIT 1) latest ON true
    WHERE p.id = ANY(:ids) AND {where} ORDER BY p.id"""


@dataclass(frozen=True, slots=True)
class Options:
    """How a run fires again: whether against warnings, under which version, and how many a second."""

    force: bool = False
    with_current_version: bool = False
    per_second: float = PER_SECOND


@dataclass(frozen=True, slots=True)
class Looked:
    """A postback as it stands, the version it would be fired under, and what the rules say.

    ``key``: the dedupe key that it has to claim before it may fire, None if it holds its own.
    """

    row: Row[Any]
    version: DestinationVersion
    event: ConversionEvent | StoredConversion
    key: bytes | None
    decision: Decision

    @property
    def click_id(self) -> str | None:
        return click_id_for(self.version.contract, self.event)


def not_looked_at(run_id: int) -> Narrowing:
    """Without those that the run has looked at before and not put back."""
    anew = """NOT EXISTS (SELECT FROM replays r
        WHERE r.run_id = :run AND r.postback_id = p.id AND r.came_to IS DISTINCT FROM 'put back')"""
    return Narrowing(anew, {"run": run_id})


def look(
    connection: Connection,
    selection: Selection,
    ids: Sequence[int],
    options: Options,
) -> list[Looked]:
    """Those of ``ids`` that still match, in their order, with a decision on each.

    Of two of one batch that their network would take for one another, the first is looked at as if it fired.
    """
    where, values = selection.conditions()
    rows = execute(connection, _READ.format(where=where), values | {"ids": list(ids)}).all()
    versions = Versions(connection)
    # Tried again by a correction of one, a network is not told by another of the same.
    correcting: set[int] = set()
    places = _Places(connection)
    candidates = [_candidate(row, versions, options) for row in rows]
    places.read(each.key for each in candidates if each.key is not None)
    found = []
    for each in candidates:
        rival = places.rival(each)
        postback = _postback(each, rival, correcting=each.row.adjusts in correcting)
        erased = each.row.erasure_id is not None
        decision = ERASED if erased else decide(postback, each.row.now, force=options.force)
        claims = each.key is not None and rival is None and not places.holds(each)
        found.append(Looked(each.row, each.version, each.event, each.key if claims else None, decision))
        if isinstance(decision, Again):
            places.take(each)
            correcting.add(each.row.adjusts or 0)
    return found


@dataclass(frozen=True, slots=True)
class _Candidate:
    row: Row[Any]
    event: ConversionEvent | StoredConversion
    version: DestinationVersion
    retired: bool
    key: bytes | None
    """None of a correction."""


class _Places:
    """Who holds the keys of the candidates; of two with one key, the first to fire again takes it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._holders: dict[bytes, Holder] = {}

    def read(self, keys: Iterable[bytes]) -> None:
        wanted = set(keys)
        self._holders = read_holders(self._connection, wanted, lock=False) if wanted else {}

    def holds(self, each: _Candidate) -> bool:
        holder = self._holders.get(each.key or b"")
        return holder is not None and holder.id == each.row.id and not holder.gives_away

    def rival(self, each: _Candidate) -> Rival | None:
        holder = self._holders.get(each.key or b"")
        if holder is None or holder.id == each.row.id or holder.gives_away:
            return None
        return Rival(holder.id, holder.state)

    def take(self, each: _Candidate) -> None:
        if each.key is not None and self.rival(each) is None:
            self._holders[each.key] = Holder(each.row.id, State.RETRYING, freed=False)


def _candidate(row: Row[Any], versions: Versions, options: Options) -> _Candidate:
    current = versions.current(row.destination) if options.with_current_version else None
    version = current or versions.read(row.version_id)
    event = stored_event(row)
    key = None if row.adjusts is not None else dedupe_key(version.contract, event)
    return _Candidate(row, event, version, options.with_current_version and current is None, key)


class Versions:
    """Destination versions as they are read over one connection, each once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._by_id: dict[int, DestinationVersion] = {}
        self._current: dict[str, DestinationVersion | None] = {}

    def read(self, number: int) -> DestinationVersion:
        if number not in self._by_id:
            self._by_id[number] = read_version(self._connection, number)
        return self._by_id[number]

    def current(self, destination: str) -> DestinationVersion | None:
        """None once it is retired."""
        if destination not in self._current:
            query = text("SELECT id FROM destination_versions WHERE destination = :name AND current")
            number = self._connection.execute(query, {"name": destination}).scalar_one_or_none()
            self._current[destination] = None if number is None else self.read(number)
        return self._current[destination]


def _postback(each: _Candidate, rival: Rival | None, *, correcting: bool) -> Postback:
    row, contract, state = each.row, each.version.contract, State(each.row.state)
    renders = state is not State.REJECTED or not (row.reason or "").startswith("cannot be rendered")
    return Postback(
        state=state,
        attempts=row.attempts,
        release_at=row.release_at,
        dedupe=_dedupe(row, contract),
        expires_at=row.expires_at,
        had_unknown=row.had_unknown,
        called_duplicate=bool(row.called_duplicate),
        void_reason=row.void_reason,
        taken_back=contract.destination.hold_for(row).void_reason(frozenset(row.outcomes)),
        retracted=row.retracted_at is not None,
        corrections=row.adjustments,
        rival=rival,
        unrenderable=None if renders or row.adjusts else unrenderable(contract, each.event),
        retired=each.retired,
        adjustment=row.adjusts is not None,
        stands=row.adjusts is None or (not correcting and _still_to_be_told(row, contract)),
    )


def _dedupe(row: Row[Any], contract: Contract) -> Dedupe:
    """What the network does with it a second time, now: one that knows a repeat for a while counts it twice after that."""
    known = contract.network.dedupe_window if row.adjusts is None else None
    since = row.first_attempt_at or row.settled_at
    if known is not None and since is not None and row.now > since + known:
        return Dedupe.COUNTED_TWICE
    return contract.dedupe_for(row.adjustment)


def _still_to_be_told(row: Row[Any], contract: Contract) -> bool:
    """Whether a correction tells what has to be told now, and nothing else is about to."""
    reported = row.value if row.of_reported is None else row.of_reported
    told = NOTHING if row.of_retracted_at is not None else credited(contract, reported)
    standing = stands(contract, row, row.net_value, row.outcomes, row.of_void_reason)
    wanted = None if told == standing else kind_of(contract, told, standing)
    return row.of_state == State.DELIVERED and wanted == row.adjustment and not row.correcting


def execute(connection: Connection, statement: str, values: dict[str, Any]) -> Any:
    """Run a statement with those of ``values`` that it names."""
    bound = text(statement)
    return connection.execute(bound, {name: values[name] for name in bound.compile().params})


def needing_keys(looked: Collection[Looked]) -> dict[bytes, int]:
    """Keys to be claimed for those that are fired again, by key."""
    return {each.key: each.row.id for each in looked if each.key is not None}


def as_before(row: Row[Any]) -> dict[str, datetime | str | int | bool | None]:
    """What a postback was before it was fired again, whole: it is put back by this."""
    names = (
        "version_id", "expires_at", "first_attempt_at", "settled_at", "reason", "void_reason", "budget_from",
        "had_unknown", "freed", "run_id",
    )  # fmt: skip
    return {name: getattr(row, name) for name in names}
