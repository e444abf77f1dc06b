"""The pages for producers, done as they say: every command they show is run, and prints what they show."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import redis

from tests.acceptance.page import ROOT, blocks, missing, reader

OVERVIEW = ROOT / "docs" / "producers.md"
PAGES = [OVERVIEW, *sorted((ROOT / "docs" / "producers").glob("*.md"))]


@pytest.fixture
def emptied_broker(broker_url: str) -> str:
    """This module's broker, emptied: a page must not find another's messages."""
    with redis.Redis.from_url(broker_url) as client:
        client.flushdb()
    return broker_url


def needed(page: Path) -> set[str]:
    """The programs without which the page cannot be followed."""
    shown = blocks(page.read_text("utf-8"))
    called = {name for name in ("curl", "openssl") for each in shown if f"{name} " in each.body}
    return called | {each.needs for each in shown if each.needs}


def lacks(program: str) -> str | None:
    """Why a page that needs this program cannot be followed here, or None."""
    if shutil.which(program) is None:
        return f"{program} is not installed: .ci/tools installs it"
    if program == "npm":
        asked = subprocess.run(
            ["npm", "view", "celery-node", "version"], capture_output=True, timeout=60, check=False
        )
        return "npm cannot reach its packages" if asked.returncode else None
    return None


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_does_what_it_says(
    page: Path, tmp_path: Path, database_copy: str, emptied_broker: str
) -> None:
    """Followed from top to bottom in an empty folder, every command works and prints what the page shows."""
    if why_not := next(filter(None, map(lacks, needed(page))), None):
        pytest.skip(why_not)
    with reader(tmp_path, database_copy, emptied_broker) as person:
        assert person.follow(page) > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_shows_no_command_that_is_not_run(page: Path) -> None:
    """A command or program on a page is marked to be run, is a file of its own, or says why it cannot be run here."""
    assert [each.line for each in blocks(page.read_text("utf-8")) if each.unrun] == []


def test_every_source_is_found_on_the_overview() -> None:
    """A page that nobody links to is not read."""
    overview = OVERVIEW.read_text("utf-8")
    assert [page.name for page in PAGES[1:] if f"(producers/{page.name})" not in overview] == []


PAGE = """
```toml file=sub/a.toml
x = 1
```
```sh run
export WHO=reader
cat sub/a.toml
```
```text
x = …
```
Words.
```sh run exit=3
echo "$WHO at 127.0.0.1:8080"
exit 3
```
```text
…
reader at 127.0.0.1:8080
```
```python run
import os, sys
print(os.environ["WHO"], file=sys.stderr)
```
```text
%s
```
"""


def follow(folder: Path, last_line: str) -> int:
    """Follow the page above with this line expected at its end; how many blocks were run."""
    (folder / "page.md").write_text(PAGE % last_line)
    (folder / "folder").mkdir()
    with reader(folder / "folder", "", "") as person:
        return person.follow(folder / "page.md")


def test_a_page_is_followed_in_order(tmp_path: Path) -> None:
    """Files are written, exports last, exit codes count, and what is printed is what is shown."""
    assert follow(tmp_path, "reader") == 3


def test_a_page_that_shows_what_is_not_printed_fails(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        follow(tmp_path, "writer")


def test_expected_lines_have_to_come_in_order() -> None:
    """Lines between them are let through; a line that came too early does not count."""
    assert missing("a\n…\nc 1…2", "a\nb\nc 1 and 2") is None
    assert missing("b\na", "a\nb") == "a"
    assert missing("a.", "ab") == "a."


def test_an_unmarked_command_is_noticed() -> None:
    """A block of a programming language needs a mark; other languages and explained exceptions do not."""
    shown = "```sh\nls\n```\n```json\n{}\n```\n```sh not-run: needs an account at the vendor\nls\n```\n```sh not-run:\nls\n```\n"
    assert [each.line for each in blocks(shown) if each.unrun] == [1, 10]
