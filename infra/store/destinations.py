"""Applied destinations: immutable versions, one of each current, taken up by every worker within seconds."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Literal

import orjson
from sqlalchemy import Connection, Engine, Row, text

from schemas.destination import Contract, DestinationVersion

REFRESH_S = 1.0
"""How long a worker may go on with the current versions it last read."""
_LOCK = 0x44657374  # "Dest": one apply at a time

_CURRENT = "SELECT id, number, contract FROM destination_versions WHERE current ORDER BY destination"


@dataclass(frozen=True, slots=True)
class Change:
    """What applying would do to one destination, and from which version number."""

    name: str
    kind: Literal["added", "changed", "removed", "unchanged"]
    number: int | None
    fields: tuple[str, ...] = ()
    """Dotted paths that differ, for a changed one."""


def _version(row: Row[tuple[int, int, dict[str, object]]]) -> DestinationVersion:
    return DestinationVersion(row.id, row.number, Contract.model_validate(row.contract))


class Destinations:
    """Reads versions and keeps them: a version never changes, and the current ones are read anew each second."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._by_id: dict[int, DestinationVersion] = {}
        self._current: list[DestinationVersion] = []
        self._read_at = float("-inf")
        self._lock = threading.Lock()

    def current(self) -> list[DestinationVersion]:
        """The current version of every destination, by name."""
        with self._lock:
            if time.monotonic() - self._read_at > REFRESH_S:
                with self._engine.connect() as connection:
                    self._current = [self._remember(row) for row in connection.execute(text(_CURRENT))]
                self._read_at = time.monotonic()
            return self._current

    def version(self, version_id: int, connection: Connection | None = None) -> DestinationVersion:
        """One version, current or not; read over ``connection`` where its transaction must not wait for another one.

        Raises ``KeyError`` for an id that was never applied.
        """
        known = self._by_id.get(version_id)
        if known is not None:
            return known
        if connection is not None:
            return self._remember(_read(connection, version_id))
        with self._engine.connect() as own:
            return self._remember(_read(own, version_id))

    def _remember(self, row: Row[tuple[int, int, dict[str, object]]]) -> DestinationVersion:
        return self._by_id.setdefault(row.id, self._by_id.get(row.id) or _version(row))


def read_version(connection: Connection, version_id: int) -> DestinationVersion:
    """One version. Raises ``KeyError`` for an id that was never applied."""
    return _version(_read(connection, version_id))


def _read(connection: Connection, version_id: int) -> Row[tuple[int, int, dict[str, object]]]:
    query = text("SELECT id, number, contract FROM destination_versions WHERE id = :id")
    row = connection.execute(query, {"id": version_id}).one_or_none()
    if row is None:
        raise KeyError(f"no destination version {version_id}")
    return row


def names(engine: Engine) -> list[str]:
    """Every destination that was ever applied, retired ones included: they may still hold postbacks."""
    with engine.connect() as connection:
        query = text("SELECT DISTINCT destination FROM destination_versions ORDER BY 1")
        return list(connection.execute(query).scalars())


def difference(engine: Engine, contracts: dict[str, Contract]) -> list[Change]:
    """What ``apply`` would change, by destination name. Changes nothing."""
    with engine.connect() as connection:
        return _difference(connection, contracts)


def apply(engine: Engine, contracts: dict[str, Contract], *, who: str) -> list[Change]:
    """Make ``contracts`` the current versions; what is held keeps the version it was held under.

    A destination that is no longer named is retired: it takes no new events, and what it holds still fires.
    """
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        changes = _difference(connection, contracts)
        for change in changes:
            if change.kind == "unchanged":
                continue
            connection.execute(
                text("UPDATE destination_versions SET current = false WHERE destination = :name AND current"),
                {"name": change.name},
            )
            if change.kind != "removed":
                _insert(connection, contracts[change.name], who)
            detail = {"destination": change.name, "kind": change.kind, "fields": change.fields}
            connection.execute(
                text("INSERT INTO audit (who, action, detail) VALUES (:who, 'destinations.apply', :detail)"),
                {"who": who, "detail": orjson.dumps(detail).decode()},
            )
    return changes


def _insert(connection: Connection, contract: Contract, who: str) -> None:
    connection.execute(
        text("""
            INSERT INTO destination_versions (destination, number, contract, applied_by)
            SELECT :name, coalesce(max(number), 0) + 1, :contract, :who
            FROM destination_versions WHERE destination = :name"""),
        {"name": contract.name, "contract": contract.model_dump_json(), "who": who},
    )


def _difference(connection: Connection, contracts: dict[str, Contract]) -> list[Change]:
    current = {row.contract["name"]: row for row in connection.execute(text(_CURRENT))}
    changes = []
    for name in sorted(current.keys() | contracts.keys()):
        if name not in contracts:
            changes.append(Change(name, "removed", current[name].number))
        elif name not in current:
            changes.append(Change(name, "added", None))
        else:
            wanted = orjson.loads(contracts[name].model_dump_json())
            fields = tuple(_differing(current[name].contract, wanted))
            changes.append(Change(name, "changed" if fields else "unchanged", current[name].number, fields))
    return changes


def _differing(old: object, new: object, path: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            field
            for key in sorted(old.keys() | new.keys())
            for field in _differing(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if old == new else [path]
