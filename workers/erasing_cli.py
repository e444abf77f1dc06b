"""``holdfire erase``: forget what is known of one person's order, click, lead or customer id."""

from __future__ import annotations

from typing import Annotated

import orjson
import typer

from infra.filters import AskingError
from infra.open import open_store
from infra.store import audit
from infra.store.keeping.erasing import Order
from schemas.erasing import Kind, Traces
from workers import erasing
from workers.erasing import Erased
from workers.keeping_cli import Reason, Who, log_aside, said


def register(app: typer.Typer) -> None:
    app.command()(erase)


def erase(  # noqa: PLR0913 — a command's options are its parameters
    *,
    order: Annotated[str | None, typer.Option("--order", help="All of this order.")] = None,
    click_id: Annotated[str | None, typer.Option("--click-id", help="All that this click led to.")] = None,
    lead: Annotated[str | None, typer.Option("--lead", help="All of this lead.")] = None,
    customer: Annotated[str | None, typer.Option("--customer", help="All of this customer.")] = None,
    never_again: Annotated[
        bool,
        typer.Option("--and-never-again", help="Also refuse what comes later under the person's own ids."),
    ] = False,
    reason: Reason = None,
    who: Who = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would reach and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Erase what is known of one person's order, click, lead or customer id, everywhere.

    Payloads and evidence become unreadable, what is held is voided, and what comes
    later about it is refused. Sums, states and times stay: the ledger balances.
    It cannot be undone. Interrupted, the same command does the rest.

    \b
    holdfire erase --order 1234 --dry-run
    holdfire erase --order 1234 --reason "request of 12 March"
    """
    kind, value = _subject({"order": order, "click": click_id, "lead": lead, "customer": customer})
    name = who or audit.operator()
    wanted = Order(kind, value, name, "" if dry_run else said("erase", reason), never_again)
    log_aside()
    with open_store() as engine:
        foreseen = erasing.foresee(engine, wanted)
        if dry_run:
            _print(foreseen, wanted, as_json=as_json)
            return
        _check_signature(wanted, foreseen.reach.traces)
        quiet = as_json
        done = erasing.erase(
            engine, wanted, (lambda _: None) if quiet else (lambda words: typer.echo(words, err=True))
        )
    _print(done, wanted, as_json=as_json)


def _subject(given: dict[str, str | None]) -> tuple[Kind, str]:
    named = [(kind, value) for kind, value in given.items() if value]
    if len(named) != 1:
        raise AskingError("erase: give one of --order, --click-id, --lead and --customer")
    kind, value = named[0]
    return kind, value  # type: ignore[return-value]  # one of the four kinds by construction


def _check_signature(order: Order, traces: Traces) -> None:
    """What is kept of an erasure must not name what was erased."""
    for option, words in (("--reason", order.reason), ("--as", order.who)):
        if traces.in_text(words):
            raise AskingError(f"erase: {option} names what is to be erased, and is kept; say it without")


def _print(erased: Erased, order: Order, *, as_json: bool) -> None:
    if as_json:
        typer.echo(orjson.dumps(_json(erased)).decode())
        return
    for line in _lines(erased, order):
        typer.echo(line)


def _lines(erased: Erased, order: Order) -> list[str]:
    reach, planned = erased.reach, erased.number is None
    will = "would be erased" if planned else "erased"
    sums = f"{len(reach.conversions)} conversions, {len(reach.postbacks)} postbacks, {len(reach.signals)} signals"
    lines = [f"{sums} and {len(reach.attempts)} attempts and checks {will}."]
    lines += [
        f"  {table}: {count} rows {will}"
        for table, count in sorted(erased.counts.items())
        if table not in _OWN
    ]
    lines += [f"  archive {file}: {'would be ' if planned else ''}written anew" for file in erased.archives]
    waiting = sum(reach.states.get(state, 0) for state in ("held", "leased", "retrying"))
    if waiting:
        lines.append(f"{waiting} that wait {'would be' if planned else 'were'} voided: they never fire.")
    if reach.states.get("delivered"):
        lines.append(
            f"{reach.states['delivered']} were delivered: they cannot be corrected, retracted or found in a network's "
            "report any more; what the network has of them is the network's to erase."
        )
    for kind, values in reach.shared.items():
        if values:
            others = {
                "order": "orders",
                "click": "click ids",
                "lead": "lead ids",
                "customer": "customer ids",
                "device": "device ids",
            }
            lines.append(
                f"{len(values)} {others[kind]} belong to other conversions as well: they stay there, and may come again."
            )
    if not erased.found:
        lines.append(
            "Nothing is known by it." if planned else "Nothing was known by it; what comes by it is refused."
        )
    elif not planned:
        lines.append(
            f"Erasure {erased.number} is done. Backups, logs and PostgreSQL's dead rows: see docs/keeping.md."
        )
    if not order.never_again and order.kind in {"lead", "customer"}:
        lines.append("A new order under the same id is taken as before; --and-never-again refuses it.")
    return lines


_OWN = {"conversions", "postbacks", "signals", "attempts"}


def _json(erased: Erased) -> dict[str, object]:
    reach = erased.reach
    return {
        "erasure": erased.number,
        "conversions": len(reach.conversions),
        "postbacks": reach.states,
        "signals": len(reach.signals),
        "attempts": len(reach.attempts),
        "rows": erased.counts,
        "archives": erased.archives,
        "shared": {kind: len(values) for kind, values in reach.shared.items() if values},
    }
