"""The house rules that a machine can check, so that nobody has to remember them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfire import MENU
from infra.catalogue import load_config
from infra.settings import PREFIX, Settings
from infra.store.rulings import VOIDABLE_SQL
from producers.hooks.hook import Hook
from producers.hooks.registry import HOOKS
from producers.hooks.sources import check_sources
from schemas.accounts import ConsolePolicy
from schemas.backoff import RetryPolicy
from schemas.check import AskAgain, CheckBodyRule, ReleaseCheck
from schemas.destination import Destination, Limits
from schemas.hold import HoldPolicy
from schemas.keeping import Keeping
from schemas.lifecycle import VOIDABLE, State, mermaid
from schemas.source import Source

ROOT = Path(__file__).parents[2]
CONFIGURED = (
    Keeping,
    Destination,
    HoldPolicy,
    ReleaseCheck,
    CheckBodyRule,
    AskAgain,
    RetryPolicy,
    Limits,
    Source,
    ConsolePolicy,
)
ROOMS = ("producers", "workers", "investigations", "infra", "schemas")
README = ROOT / "README.md"
LOCKS = sorted(ROOT.glob("requirements*.lock"))
_SUPPRESSION = re.compile(r"#\s*(?:noqa|type:\s*ignore)(?::\s*[A-Z0-9, ]+|\[[a-z0-9,\- ]+\])?(?P<rest>.*)")


def _modules(*rooms: str) -> list[Path]:
    found = [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]
    assert found
    return found


def _nodes(*rooms: str) -> Iterator[tuple[str, ast.AST]]:
    """Every syntax node of the rooms' modules with the place it stands at."""
    for path in _modules(*rooms):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", node


def test_nothing_is_held_in_the_broker() -> None:
    """A hold is a row: no task is sent with eta or countdown, and none retries itself."""
    forbidden_keywords = {"eta", "countdown", "autoretry_for", "retry_backoff", "expires"}
    held = [
        place
        for place, node in _nodes("producers", "workers", "infra")
        if (isinstance(node, ast.keyword) and node.arg in forbidden_keywords)
        or (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "retry"
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id in {"self", "task"}
        )
    ]
    assert held == []


def test_log_events_have_static_names() -> None:
    """Every structlog line is ``noun.verb`` written out, its data in keywords, so that a log can be searched."""
    loose = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in _modules(*ROOMS)
        if "structlog.get_logger" in path.read_text("utf-8")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "log"
        and node.func.attr in {"debug", "info", "warning", "error", "exception", "critical"}
        and not (
            len(node.args) == 1
            and isinstance(node.args[0], ast.Constant)
            and re.fullmatch(r"[a-z_]+\.[a-z_]+", str(node.args[0].value))
        )
    ]
    assert loose == []


def test_suppressions_carry_their_reason() -> None:
    """Who silences a check says why, on the same line or in a comment right above it."""
    silent = []
    for path in _modules(*ROOMS):
        above = ""
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            found = _SUPPRESSION.search(line)
            if found and len(found["rest"].strip(" —#-")) < 8 and not above.strip().startswith("#"):
                silent.append(f"{path.relative_to(ROOT)}:{number}")
            above = above if found else line
    assert silent == []


def test_every_network_has_its_page() -> None:
    """A network is two files: its contract as data, and what a person needs to know."""
    folder = ROOT / "schemas" / "networks"
    contracts = {path.stem for path in folder.glob("*.toml")}
    assert contracts
    assert contracts == {path.stem for path in folder.glob("*.md")}


def test_the_database_knows_the_same_states() -> None:
    """The CHECK constraint lists the states of the table in schemas/lifecycle.py, all and only."""
    migrations = (ROOT / "infra" / "db" / "migrations" / "versions").glob("*.py")
    checks = [
        found[1]
        for path in sorted(migrations)
        for found in re.finditer(r"postbacks_state CHECK \(state IN \(([^)]*)\)\)", path.read_text("utf-8"))
    ]
    assert set(re.findall(r"'(\w+)'", checks[-1])) == set(State)


def test_voiding_in_sql_covers_the_voidable_states() -> None:
    """The literals that the planner can use are the states of ``lifecycle.VOIDABLE``."""
    assert set(re.findall(r"'(\w+)'", VOIDABLE_SQL)) == set(VOIDABLE)


def test_the_readme_draws_the_table_as_it_is() -> None:
    """The README's state diagram is ``lifecycle.mermaid()``, to the letter."""
    diagrams = re.findall(r"```mermaid\n(stateDiagram.*?)\n```", README.read_text("utf-8"), re.DOTALL)
    assert diagrams == [mermaid()]


@pytest.mark.parametrize("page", sorted([README, *(ROOT / "docs").rglob("*.md")]), ids=lambda path: path.name)
def test_pages_name_commands_that_exist(page: Path) -> None:
    """Every ``make …`` a page shows is in the Makefile, every ``holdfire …`` in the menu."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    text = page.read_text("utf-8")
    shown = re.findall(r"(?:`|^\s*\$? ?)(make|holdfire) ([a-z]+(?:-[a-z]+)*)", text, re.MULTILINE)
    unknown = [
        f"{program} {word}" for program, word in shown if word not in (targets if program == "make" else MENU)
    ]
    assert unknown == []


@pytest.mark.parametrize("page", sorted([README, *(ROOT / "docs").rglob("*.md")]), ids=lambda path: path.name)
def test_pages_link_to_files_that_exist(page: Path) -> None:
    """A relative link leads somewhere."""
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", [README, ROOT / "docs" / "configuration.md"], ids=lambda path: path.name)
def test_configurations_shown_are_in_order(page: Path, tmp_path: Path) -> None:
    """What a page shows as a holdfire.toml can be used as it stands."""
    shown = re.findall(r"```toml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    assert shown
    for number, text in enumerate(shown):
        (tmp_path / f"{number}.toml").write_text(text)
        loaded = load_config(tmp_path / f"{number}.toml", check_sources)
        assert loaded.contracts or loaded.sources


def test_the_configuration_page_names_every_key() -> None:
    """Every field of a destination, a hold and its check, a retry policy, the limits and a source is on the page."""
    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    fields = {name for model in CONFIGURED for name in model.model_fields}
    assert {name for name in fields if f"`{name}`" not in page} == set()


@pytest.mark.parametrize("hook", HOOKS.values(), ids=lambda hook: hook.slug)
def test_every_hook_has_its_page(hook: Hook) -> None:
    """A page for producers writes its name as holdfire.toml does; its options stand there, or are those of most hooks."""
    pages = [page.read_text("utf-8") for page in (ROOT / "docs" / "producers").glob("*.md")]
    about = [text for text in pages if 'hook = "' in text and f'"{hook.slug}"' in text]
    assert about, f"no page says hook = {hook.slug!r}"
    about.append((ROOT / "docs" / "configuration.md").read_text("utf-8"))
    assert [
        key
        for key in hook.options
        if not re.search(rf"`{key}`|^(?:# )?{key} = ", "\n".join(about), re.MULTILINE)
    ] == []


def test_the_configuration_page_names_every_variable() -> None:
    """Every environment variable that the settings read stands on the page."""
    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    assert {name for name in Settings.model_fields if f"`{PREFIX}{name.upper()}`" not in page} == set()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_locks_pin_by_hash_and_name_no_address(lock: Path) -> None:
    """Every requirement has a version and hashes, and where to get it is the installer's business."""
    text = lock.read_text("utf-8")
    assert not re.search(r"://|--(?:extra-)?index-url|--find-links|--trusted-host", text)
    pinned = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert pinned
    assert [one.splitlines()[0] for one in pinned if "==" not in one or "--hash=sha256:" not in one] == []


def test_both_locks_are_there() -> None:
    """One for running, one for working on it."""
    assert [lock.name for lock in LOCKS] == ["requirements-dev.lock", "requirements.lock"]
