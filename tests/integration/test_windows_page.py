"""The cookbook of docs/windows.md: every policy is applied as it stands there, and every drawing is played."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from sqlalchemy import Engine, Row
from typer.testing import CliRunner

from infra.catalogue import load_config
from infra.sink import SinkThread
from infra.store import releasing
from infra.store.destinations import Destinations
from schemas.auth import SecretRef
from schemas.destination import Contract, Destination, join
from tests.integration.clock import StoppedClock
from tests.integration.drawing import Moment, Recipe, Script, UnreadableError, read_drawing, read_page
from tests.integration.ground import Ground, Gun, cleared
from workers.destinations_cli import commands
from workers.intake import take_message

PAGE = Path(__file__).parents[2] / "docs" / "windows.md"
RECIPES = list(read_page(PAGE.read_text("utf-8")))
DRAWN = [recipe for recipe in RECIPES if recipe.drawing]
REFUSED = [recipe for recipe in RECIPES if recipe.said]

AMOUNTS = ("value", "amount", "sum", "payout", "revenue")
"""What the page's networks call the value."""
TELLS = {None: "fires", "restatement": "restates", "retraction": "retracts"}
A_MOMENT = timedelta(minutes=1)
LONG = timedelta(days=400)
INSIDE = {"allow_http": True, "allow_private": True}
SERVICE = "/service"
"""Where at the sink the service is that is asked before release."""
ANSWERS = re.compile(r"^the shop says (\d+)$")


@pytest.fixture(scope="module")
def clock(engine: Engine) -> StoppedClock:
    return StoppedClock(engine)


@pytest.fixture(scope="module")
def sink() -> Iterator[SinkThread]:
    with SinkThread() as running:
        yield running


@pytest.fixture
def stage(engine: Engine, clock: StoppedClock, sink: SinkThread, tmp_path: Path) -> Stage:
    sink.client.reset()
    sink.client.plan([])
    return Stage(cleared(engine), clock, sink, tmp_path)


@dataclass
class Stage:
    """A database whose clock is set by hand, a sink that is every network, and what was seen of both so far."""

    ground: Ground
    clock: StoppedClock
    sink: SinkThread
    folder: Path
    seen: dict[int, Row[Any]] = field(default_factory=dict)
    requests: int = 0

    def contract(self, toml: str) -> Contract:
        """The destination as the commands read it, and then sent to the sink instead of its network."""
        file = self.folder / "holdfire.toml"
        file.write_text(toml, "utf-8")
        (contract,) = load_config(file).contracts.values()
        table = contract.destination.model_dump(mode="json") | INSIDE
        table["settings"] |= {
            name.removeprefix("settings."): self._moved(url, contract.network.slug)
            for name, url in contract.plain_settings().items()
        }
        if (check := table["hold"]["check"]) is not None:
            check |= INSIDE | {"url": self._moved(check["url"], SERVICE.strip("/"))}
        return join(contract.name, Destination.model_validate(table), contract.network)

    def _moved(self, url: str, to: str) -> str:
        """The same URL at the sink, below ``to``; other texts stay as they are."""
        return re.sub(r"^https://[^/]+", f"{self.sink.url}/{to}", url)

    def play(self, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let everything come in at its instant, and compare what goes out then with what is drawn, and with nothing
        in between."""
        contract = self.contract(recipe.toml)
        for ref in contract.destination.secret_refs().values():
            monkeypatch.setenv(_variable(ref), "a-secret-of-this-test")
        zones = {policy.timezone for policy in contract.destination.policies().values()}
        moments = read_drawing(recipe.drawing.splitlines(), max(zones - {"UTC"}, default="UTC"))
        self.clock.set(moments[0].at)
        self.ground.apply(contract)
        script = Script(contract.network.slug, partner=contract.protocol == "partner")
        with self.ground.firing() as gun:
            for moment in moments:
                self._just_before(moment, gun, script)
                self._at(moment, gun, script)
            self.clock.set(moments[-1].at + LONG)
            assert self._goes_out(gun, script) == [], "something goes out after the end of the drawing"

    def _just_before(self, moment: Moment, gun: Gun, script: Script) -> None:
        self.clock.set(moment.at - A_MOMENT)
        assert self._goes_out(gun, script) == [], f"something goes out before {moment.at}"

    def _at(self, moment: Moment, gun: Gun, script: Script) -> None:
        self.clock.set(moment.at)
        for words in moment.comes:
            if words == "holdfire release --due":
                releasing.let_go(self.ground.engine)
            elif found := ANSWERS.match(words):
                answer = {"match": {"path": SERVICE}, "behave": f"status:{found[1]}"}
                self.sink.client.plan([answer])
            else:
                self._take(script.event(words, moment.at), moment.at)
        asked = sum(ANSWERS.match(words) is not None for words in moment.comes)
        assert sorted(self._goes_out(gun, script, asked)) == sorted(moment.goes), f"at {moment.at}"
        assert self._holds() == moment.held, f"after {moment.at}"

    def _take(self, event: Mapping[str, Any], now: datetime) -> None:
        destinations = Destinations(self.ground.engine)
        taken = take_message(self.ground.engine, destinations, str(event["event_id"]), [dict(event)], now)
        assert taken.conversions + taken.signals == 1, f"not taken: {event}"

    def _holds(self) -> bool:
        return bool(self.ground.one("SELECT count(*) FROM postbacks WHERE due_at IS NOT NULL"))

    def _goes_out(self, gun: Gun, script: Script, asked: int = 0) -> list[str]:
        """Fire whatever is due, of which the service is ``asked`` so often. What came of it since the last time, in
        the words of a drawing."""
        while gun.fire_due():
            gun.settle()
        told, questions = self._told(script)
        assert questions == asked, f"the service was asked {questions} times, not {asked}"
        rows = self.ground.rows("""
            SELECT p.*, c.event_id, c.currency FROM postbacks p JOIN conversions c ON c.id = p.conversion_id
            ORDER BY p.id""")
        out: list[str] = []
        for row in rows:
            of = f" of {row.event_id}" if " " in row.event_id else ""
            out += [
                f"{change}{of}" for change in _changes(self.seen.get(row.id), row, told.get(row.event_id, []))
            ]
        self.seen = {row.id: row for row in rows}
        assert not any(told.values()), f"the network was told more than is on record: {told}"
        return out

    def _told(self, script: Script) -> tuple[dict[str, list[str]], int]:
        """Since the last time: the values that the networks have received, by conversion in order, and how many
        questions the service has."""
        told: dict[str, list[str]] = {}
        questions = 0
        for request in self.sink.client.requests(self.requests):
            self.requests = request["number"]
            target = urlsplit(request["raw"].split(" ", 2)[1])
            if target.path.startswith(SERVICE):
                questions += 1
                continue
            if request["reason"] == "redirected":
                continue
            fields = dict(parse_qsl(target.query))
            (label,) = (name for name, event in script.conversions.items() if _names(fields, event))
            value = next((fields[name] for name in AMOUNTS if name in fields), "")
            told.setdefault(label, []).append(value)
        return told, questions


def _names(fields: Mapping[str, str], event: Mapping[str, Any]) -> bool:
    """Whether a request is about the conversion, by what the network tells conversions apart by."""
    if "partner_id" in event:
        return {event["partner_id"], str(event["sequence"])} <= set(fields.values())
    return set(event["click_ids"].values()) <= set(fields.values())


def _changes(before: Row[Any] | None, row: Row[Any], told: list[str]) -> Iterator[str]:
    if row.state != (before.state if before else "held"):
        if row.state == "delivered":
            value = told.pop(0)
            yield TELLS[row.adjustment] + (f" {value}" if value and row.adjustment != "retraction" else "")
        elif row.state == "voided":
            yield f"┤ voided: {row.void_reason}"
        elif row.state != "held":
            yield f"┤ {row.state}"
    if row.lost_at is not None and row.lost != (before.lost if before else None):
        yield f"┤ lost {row.lost} {row.currency}"


def _variable(ref: SecretRef) -> str:
    assert ref.env is not None, "a recipe names its secrets by environment variable"
    return ref.env


def _id(recipe: Recipe) -> str:
    return f"{recipe.title}, {recipe.number}"


@pytest.mark.parametrize("recipe", DRAWN, ids=_id)
def test_what_is_drawn_is_what_happens(recipe: Recipe, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything goes out at the drawn instant, not a second earlier, with the drawn value; and nothing else does."""
    stage.play(recipe, monkeypatch)


@pytest.mark.parametrize("recipe", REFUSED, ids=_id)
def test_what_is_refused_says_what_the_page_says(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that is shown prints, lines broken where a page must break them, what is shown below it."""
    (tmp_path / "holdfire.toml").write_text(recipe.toml, "utf-8")
    monkeypatch.chdir(tmp_path)
    shown, said = recipe.said.split("\n", 1)
    result = CliRunner().invoke(commands, shown.removeprefix("$ holdfire destinations ").split())
    assert result.exit_code == 1
    assert result.output.replace(str(tmp_path), "/srv").split() == said.split()


def test_the_page_has_a_dozen_policies_and_plays_them() -> None:
    """No recipe without its policy, none that nobody would notice missing."""
    titles = [recipe.title for recipe in RECIPES]
    assert len(dict.fromkeys(titles)) >= 12
    assert list(dict.fromkeys(titles)) == re.findall(r"^### (.+)$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert all(recipe.toml for recipe in RECIPES)


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("day 30  ", "day 29  ", "at 2026-03-31"),
        ("day 30  ", "day 31  ", "goes out before"),
        ("fires 85.00", "fires 120.00", "fires 85.00"),
        ("└──►   fires 85.00", "└──┤   voided: refunded", "voided: refunded"),
        ("└──►   fires 85.00", "├──►   fires 85.00", "after 2026-04-01"),
        ("refund 15.00", "refund 5.00", "fires 95.00"),
    ],
)
def test_a_wrong_drawing_is_found_out(
    right: str, wrong: str, complaint: str, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Played with one thing drawn differently from how it happens."""
    recipe = next(each for each in DRAWN if each.title == "Approved when the validation period ends")
    assert recipe.drawing.count(right) == 1
    with pytest.raises(AssertionError, match=complaint):
        stage.play(replace(recipe, drawing=recipe.drawing.replace(right, wrong)), monkeypatch)


@pytest.mark.parametrize(
    "drawing",
    [
        "day 0    ──►│   purchase 1.00 EUR",
        "day 0    ──►┐   purchase 1.00 EUR\n\nday 1       └──►   fires 1.00",
        "day 0    ──►┐   purchase 1.00 EUR\nday 1        └──►   fires 1.00",
        "day 0       ├──►   fires 1.00",
        "Mon 01 Mar 2026 00:10 ──►┐   purchase 1.00 EUR",
        "once     ──►┐   purchase 1.00 EUR",
    ],
)
def test_a_bent_drawing_is_not_read(drawing: str) -> None:
    """A rail that opens, ends or goes on where none could, or an instant that is none."""
    with pytest.raises(UnreadableError):
        read_drawing(drawing.splitlines(), "UTC")
