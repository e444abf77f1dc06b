"""The demo's script: what happens when, what is shown of it, and whether the promise held."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from infra.demo import sample
from infra.demo.comparison import Comparison, compare
from infra.demo.stage import DemoError, Stage

Say = Callable[[str], None]
UNSETTLED = "SELECT count(*) FROM postbacks WHERE state IN ('held', 'leased', 'firing', 'retrying')"


def run(folder: Path, console: Console) -> bool:
    """Run the demo in ``folder`` (emptied first). True only if every check of it held. Raises ``DemoError``."""
    expected = sample.load()
    began = time.monotonic()

    def say(words: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:5.1f} s[/dim]  {words}", soft_wrap=True)

    say("starting PostgreSQL, Valkey, a sink that plays five ad networks, one clock and two workers")
    with Stage(folder, expected) as stage:
        _send_orders(stage, expected, say)
        _pull_plugs(stage, say)
        _wait_until_settled(stage, say)
        _refund_too_late(stage, expected, say)
        found = compare(expected, _all_requests(stage), stage.sink.credits(), stage.engine)
        story = _a_story(stage)
        ledger = stage.command("ledger")
        found.faults += _other_faults(stage, expected, ledger.returncode)
        say("settled")
    _show(console, found, story, ledger.stdout, folder / "data")
    return not found.faults


def _send_orders(stage: Stage, expected: sample.Sample, say: Say) -> None:
    say(
        f"a shop, a lender and an app send {expected.orders} orders, some twice, some broken, one refund before its order"
    )
    senders = [
        stage.begin("enqueue", "--rejects", str(stage.folder / f"{name}.rejects"), str(sample.path(name)))
        for name in sample.ORDERS
    ]
    codes = [sender.wait(60) for sender in senders]
    if codes != [1, 0, 0]:
        raise DemoError(
            f"the orders were not taken as expected (exit codes {codes}); the logs are in {stage.folder}"
        )
    say(f"{expected.rejected_lines} lines were refused by name and kept; the rest is committed and held")
    code = stage.begin("enqueue", str(sample.path(sample.SIGNALS))).wait(60)
    if code:
        raise DemoError(f"the signals were not taken (exit code {code}); the logs are in {stage.folder}")
    voided = stage.count("SELECT count(*) FROM postbacks WHERE state = 'voided'")
    say(f"refunds, cancellations and credit decisions arrive: {voided} postbacks voided in their windows")


def _pull_plugs(stage: Stage, say: Say) -> None:
    stage.sink.hold({"profile": "knorex-xpo"}, limit=5)
    stage.wait("attempts on the wire", lambda: len(stage.sink.held()) >= 3, timeout_s=30)
    worker = stage.kill_a_firing_worker()
    say(f"worker {worker} killed with SIGKILL while its postbacks were on the wire")
    stage.sink.release()
    stage.wait(
        "leased postbacks",
        lambda: (
            stage.count(
                "SELECT count(*) FROM postbacks p JOIN destination_versions v ON v.id = p.version_id "
                "WHERE v.destination = 'xandr-main' AND p.state <> 'held' AND p.state <> 'voided'"
            )
            > 0
        ),
        timeout_s=30,
    )
    stage.kill_and_empty_the_broker()
    say("broker killed with SIGKILL, emptied of every queued hint, and started again")


def _wait_until_settled(stage: Stage, say: Say) -> None:
    left = stage.count(UNSETTLED)
    end = time.monotonic() + 60
    while left:
        if time.monotonic() > end:
            raise DemoError(f"{left} postbacks did not settle within 60 s; the logs are in {stage.folder}")
        say(f"{left} postbacks left to settle")
        until = time.monotonic() + 2
        while left and time.monotonic() < until:
            time.sleep(0.1)
            left = stage.count(UNSETTLED)


def _refund_too_late(stage: Stage, expected: sample.Sample, say: Say) -> None:
    if stage.begin("enqueue", str(sample.path(sample.LATE))).wait(60):
        raise DemoError(f"the late refunds were not taken; the logs are in {stage.folder}")
    late = stage.count("SELECT count(*) FROM signals WHERE outcome LIKE '%late%'")
    say(f"{late} refunds came after delivery: recorded as late")


def _all_requests(stage: Stage) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while page := stage.sink.requests(since=len(found), limit=1000):
        found += page
    return found


def _a_story(stage: Stage) -> str:
    """The trail of a postback that the killed worker had on the wire."""
    lost = stage.count("SELECT coalesce(min(postback_id), 0) FROM attempts WHERE error_class = 'WorkerLost'")
    return stage.command("trail", f"pb_{lost}").stdout


def _other_faults(stage: Stage, expected: sample.Sample, ledger_code: int) -> list[str]:
    faults = [] if ledger_code == 0 else ["the ledger does not balance"]
    rejected = sum(len(path.read_text().splitlines()) for path in stage.folder.glob("*.rejects"))
    if rejected != expected.rejected_lines:
        faults.append(f"{rejected} lines were kept as rejects, not {expected.rejected_lines}")
    lost = stage.count("SELECT count(*) FROM attempts WHERE error_class = 'WorkerLost'")
    if not lost:
        faults.append("no attempt was lost with the killed worker: the demo did not show what it is for")
    return faults


def _show(console: Console, found: Comparison, story: str, ledger: str, data: Path) -> None:
    console.rule("one conversion's life: holdfire trail")
    console.print(story, markup=False, highlight=False, soft_wrap=True)
    console.rule("the balance: holdfire ledger")
    console.print(ledger, markup=False, highlight=False, soft_wrap=True)
    console.rule("the ledger beside the sink's own count")
    table = Table(box=None)
    for heading in (
        "network",
        "stood",
        "counted by the sink",
        "delivered",
        "voided",
        "voided but fired",
        "sent again",
    ):
        table.add_column(heading, justify="left" if heading == "network" else "right")
    for line in found.lines:
        table.add_row(
            line.network,
            *map(
                str, (line.stood, line.counted, line.delivered, line.voided, line.voided_fired, line.repeats)
            ),
        )
    console.print(table)
    console.print("\nSent again, and why:")
    for (network, why), postbacks in sorted(found.repeats.items()):
        console.print(Padding(Text(f"{network}: {why}"), (0, 0, 0, 2)))
        console.print(Padding(Text(" ".join(postbacks)), (0, 0, 0, 4)))
    console.print()
    for fault in found.faults:
        console.print(f"  FAULT: {fault}", style="bold red", markup=False)
    if not found.faults:
        console.print(
            "Every conversion that stood was counted once; none that was voided fired; none fired early.",
            style="bold green",
            soft_wrap=True,
        )
    console.print(
        f"Ask it yourself: HOLDFIRE_DATA_DIR={shlex.quote(str(data))} holdfire find --since 1h",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
