"""PostgreSQL: reachable, of an age we know, durable, on our clock, migrated; and what stands still in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from infra.db.migrate import status
from infra.doctor.finding import Finding, fail, ok, warn
from infra.store import health
from infra.store.releasing import backlog, waiting_by_destination
from infra.store.stopping.stopping import stops
from schemas.event import FUTURE_TOLERANCE
from schemas.lifecycle import State

OLDEST_VERSION = 140000
CLOCK_APART = timedelta(seconds=2)
OVERDUE_LATE_S = 30.0
OVERDUE_STUCK_S = 600.0

_STANDING = {
    State.IN_DOUBT: "only a person can tell whether it was counted: `holdfire find --state in_doubt`, then `holdfire trail`",
    State.DEAD: "see what ended them with `holdfire dead`, and fire again what was mended",
    State.REJECTED: "see what the network said with `holdfire find --state rejected` and `holdfire transcript`",
}


def examine_server(engine: Engine) -> list[Finding]:
    """Whether it answers, and how. A first finding of ``fail`` means that nothing else can be asked."""
    asked = datetime.now(UTC)
    try:
        found = health.server(engine)
    except OperationalError as error:
        said = str(error.orig).strip().splitlines()
        reason = said[0] if said else "no reason given"
        return [
            fail("PostgreSQL", f"does not answer: {reason}", "check HOLDFIRE_DATABASE_URL and the server")
        ]
    apart = abs(found.at - (asked + (datetime.now(UTC) - asked) / 2))
    return [_version(found), _durability(found), clock("PostgreSQL", apart)]


def _version(found: health.Server) -> Finding:
    if found.version_number < OLDEST_VERSION:
        oldest = OLDEST_VERSION // 10000
        return fail("PostgreSQL", f"is version {found.version}", f"use version {oldest} or newer")
    return ok("PostgreSQL", f"version {found.version} answers")


def _durability(found: health.Server) -> Finding:
    if found.durable:
        return ok("durability", "a committed event survives a power cut")
    remedy = "switch it on: what is acknowledged must be kept"
    return warn("durability", f"{', '.join(found.relaxed)}: a power cut loses committed events", remedy)


def clock(whose: str, apart: timedelta) -> Finding:
    """``apart``: how far its clock and this host's are from each other."""
    says = f"{whose} and this host are {apart.total_seconds():.2f} s apart"
    remedy = "set both by NTP: due times follow the database, but an event from ahead of it is refused"
    if apart >= FUTURE_TOLERANCE:
        return fail("clock", says, remedy)
    return warn("clock", says, remedy) if apart >= CLOCK_APART else ok("clock", says)


def examine_tables(engine: Engine) -> Finding:
    """Whether the tables are those of this version; only then may the rest be asked."""
    found = status(engine)
    if found.current:
        return ok("migrations", f"at revision {found.at}")
    says = (
        "the database has no tables yet"
        if found.at is None
        else f"at revision {found.at}, not {found.wanted}"
    )
    return fail("migrations", says, "run `holdfire migrate`")


def examine_ledger(engine: Engine) -> list[Finding]:
    """What is late, what stands still, and whether the evidence has room for the coming month."""
    return [_partitions(engine), _overdue(engine), *_stopped(engine), *_standing(engine)]


def _partitions(engine: Engine) -> Finding:
    missing = health.missing_partitions(engine)
    if missing:
        return warn(
            "partitions", f"missing: {', '.join(missing)}", "run `holdfire migrate`; workers do so daily"
        )
    return ok("partitions", "this month's and the next one's are there")


def _overdue(engine: Engine) -> Finding:
    found = backlog(engine)
    says = f"{found.due} due, the oldest for {found.oldest_s:.0f} s"
    if found.oldest_s >= OVERDUE_STUCK_S:
        return fail(
            "overdue postbacks", says, "start a clock and workers: `holdfire up`, or `clock` and `work`"
        )
    if found.oldest_s >= OVERDUE_LATE_S:
        return warn("overdue postbacks", says, "see that a clock and enough workers run, or add workers")
    return ok("overdue postbacks", says if found.due else "none")


def _stopped(engine: Engine) -> list[Finding]:
    """Destinations at which nothing is fired just now, and how much waits there."""
    findings = []
    stopped = stops(engine)
    waiting = waiting_by_destination(engine) if stopped else {}
    for name, stop in stopped.items():
        says = f"{name} is {stop.words} ({waiting.get(name, 0)} wait)"
        if stop.kind == "paused":
            remedy = f"`holdfire resume {name}` goes on; age limits are not paused"
        else:
            remedy = f"ask the network; it is tried by itself, or at once by `holdfire resume {name}`"
        findings.append(warn("stopped destinations", says, remedy))
    return findings


def _standing(engine: Engine) -> list[Finding]:
    found = health.standstill(engine)
    findings = [
        warn(f"{state} postbacks", str(found.by_state[state]), remedy)
        for state, remedy in _STANDING.items()
        if state in found.by_state
    ]
    if found.lost_leases:
        says = f"{found.lost_leases} ended over a minute ago and were not taken back"
        findings.append(fail("leases", says, "start a clock and a worker: they rescue"))
    if found.rejects_today:
        says = f"{found.rejects_today} events in the last 24 hours could not be taken"
        findings.append(
            warn("rejects", says, "read why with `holdfire find --rejects`, mend the producer, send again")
        )
    if found.unrouted_today:
        says = f"{found.unrouted_today} of the last 24 hours go to no destination"
        remedy = "read what would change that with `holdfire find --unrouted`"
        findings.append(warn("unrouted conversions", says, remedy))
    if found.waiting_signals:
        says = f"{found.waiting_signals} wait for their conversion"
        findings.append(ok("early signals", says))
    return findings
