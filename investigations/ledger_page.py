"""The balance as it is printed: each equation with both its sides, then what everything is worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import groupby

from rich.text import Text

from infra.store.ledger import Amount, Entry, Ledger, Loss
from investigations.page import STATE_STYLES, line
from investigations.words import clock
from schemas.lifecycle import State
from schemas.money import plain

_GROUPS: tuple[tuple[str, frozenset[State]], ...] = (
    ("delivered", frozenset({State.DELIVERED})),
    ("held", frozenset({State.HELD, State.LEASED, State.FIRING, State.RETRYING})),
    ("voided", frozenset({State.VOIDED})),
    ("not reported", frozenset({State.REJECTED, State.DEAD, State.EXPIRED, State.DUPLICATE})),
    ("in doubt", frozenset({State.IN_DOUBT})),
)
"""How an accountant sees the states: each is in one group."""


def ledger_page(ledger: Ledger) -> Iterator[Text]:
    """The whole balance."""
    yield line(("ledger", "bold"), f" as of {clock(ledger.at)} UTC")
    for entry in ledger.entries:
        if not entry.never:
            yield line("")
            yield from _equation(entry)
    yield line("")
    for entry in ledger.entries:
        if entry.never:
            yield from _never(entry)
    if ledger.amounts:
        yield line("")
        yield from _worth(ledger.amounts)
    if ledger.losses:
        yield line("")
        yield from _lost(ledger.losses)
    yield line("")
    wrong = [entry for entry in ledger.entries if not entry.balances]
    if wrong:
        yield line((f"The ledger does not balance: {', '.join(entry.key for entry in wrong)}.", "bold red"))
    else:
        yield line(("The ledger balances.", "bold green"))


def _equation(entry: Entry) -> Iterator[Text]:
    mark = ("ok", "green") if entry.balances else (f"off by {entry.difference:+}", "bold red")
    yield line((entry.says, "bold"), "  ", mark)
    terms = [term for term in entry.right if term.count] or [entry.right[0]]
    total = sum(term.count for term in entry.right)
    width = max(len(str(entry.left.count)), len(str(total)))
    sign = "=" if entry.balances else "≠"
    yield line(f"  {entry.left.count:>{width}}  {entry.left.label}")
    for number, term in enumerate(terms):
        style = STATE_STYLES.get(term.label.rpartition(", ")[2], "")
        yield line(f"{sign if number == 0 else '+'} {term.count:>{width}}  ", (term.label, style))
    if not entry.balances and len(terms) > 1:
        yield line((f"  {total:>{width}}  in all", "red"))


def _never(entry: Entry) -> Iterator[Text]:
    found = entry.right[0].count
    yield line(f"  {found:>5}  {entry.says}", "  ", ("must be 0", "bold red") if found else ("ok", "green"))


def _worth(amounts: Sequence[Amount]) -> Iterator[Text]:
    """By currency. Net is what is left to report; a conversion counts once for each of its postbacks."""
    rows = [("value of postbacks", "currency", "postbacks", "value", "net of refunds")]
    for currency, group in groupby(amounts, key=lambda amount: amount.currency):
        of_currency = list(group)
        for name, states in _GROUPS:
            inside = [amount for amount in of_currency if amount.state in states]
            if inside:
                value = plain(sum((amount.value for amount in inside), Decimal(0)))
                net = plain(sum((amount.net for amount in inside), Decimal(0)))
                rows.append((name, currency, str(sum(amount.postbacks for amount in inside)), value, net))
    yield from _table(rows, left=2)


def _lost(losses: Sequence[Loss]) -> Iterator[Text]:
    """By currency, what networks show that does not stand: nothing can be done about it from here."""
    rows = [("lost at networks", "currency", "postbacks", "shown too much", "shown too little")]
    for loss in losses:
        amounts = ("-", "-") if loss.currency is None else (plain(loss.too_much), plain(loss.too_little))
        rows.append(("cannot be told", loss.currency or "no amount", str(loss.postbacks), *amounts))
    yield from _table(rows, left=2)


def _table(rows: Sequence[tuple[str, ...]], *, left: int) -> Iterator[Text]:
    """A header and its rows; all but the first ``left`` columns are numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        cells = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield line(("  ".join(cells), "dim" if number == 0 else ""))
