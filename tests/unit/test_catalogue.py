"""A holdfire.toml read as a whole: every fault names the file, the key and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.catalogue import Config, ConfigError, load_catalogue, load_config
from schemas.problem import Problem

GOOD = """
[destinations.xandr-main]
network = "xandr"
settings = { id = "25619" }
events = ["purchase"]
hold = { kind = "refund", wait = "14d" }
retry = { attempts = 12, base = "5s", factor = 3, cap = "6h", horizon = "3d" }
limits = { concurrency = 20 }
"""
SHORT = '[destinations.a]\nnetwork = "xandr"\nevents = ["purchase"]\nsettings = { id = "1" }\n'


def _load(folder: Path, text: str) -> Config:
    file = folder / "holdfire.toml"
    file.write_text(text, "utf-8")
    return load_config(file)


def _problems(folder: Path, text: str) -> list[Problem]:
    with pytest.raises(ConfigError) as refused:
        _load(folder, text)
    assert refused.value.path == str(folder / "holdfire.toml")
    assert str(refused.value).startswith(f"{refused.value.path}: ")
    return refused.value.problems


def test_a_good_file_gives_its_contracts(tmp_path: Path) -> None:
    """Each destination is joined with its network."""
    config = _load(tmp_path, GOOD)
    contract = config.contracts["xandr-main"]
    assert contract.network == load_catalogue()["xandr"]
    assert contract.destination.limits.concurrency == 20
    assert config.warnings == []


def test_a_file_without_destinations_is_a_file(tmp_path: Path) -> None:
    """Nothing is configured yet, and nothing is wrong."""
    assert _load(tmp_path, "# to come\n").contracts == {}


def test_warnings_come_along_with_the_contracts(tmp_path: Path) -> None:
    """They do not refuse the file."""
    config = _load(tmp_path, SHORT + "allow_private = true\n")
    assert [warning.field for warning in config.warnings] == ["destinations.a.allow_private"]


@pytest.mark.parametrize(
    ("text", "code", "field", "said"),
    [
        ("[destinations.a\n", "toml_syntax", "syntax", "line 1"),
        (SHORT + SHORT, "toml_syntax", "syntax", "line 5"),
        (
            SHORT.replace("destinations", "destination"),
            "unknown_table",
            "destination",
            "Did you mean destinations?",
        ),
        ('colour = "blue"\n', "unknown_table", "colour", "[destinations.NAME]"),
        ("destinations = 3\n", "not_a_table", "destinations", "[destinations.NAME]"),
        ("destinations.a = 3\n", "not_a_table", "destinations.a", "[destinations.a]"),
        (
            SHORT.replace('"xandr"', '"xander"'),
            "unknown_network",
            "destinations.a.network",
            "Did you mean xandr?",
        ),
        (SHORT.replace('"xandr"', '"qqq"'), "unknown_network", "destinations.a.network", "pushground"),
        (SHORT.replace('network = "xandr"\n', ""), "missing", "destinations.a.network", "Add it"),
        (SHORT.replace('events = ["purchase"]\n', ""), "missing", "destinations.a.events", "Add it"),
        (SHORT.replace('"1"', "1"), "string_type", "destinations.a.settings.id", "quotes"),
        (
            SHORT.replace('"1"', '{ env = "A", file = "B" }'),
            "secret_ref",
            "destinations.a.settings.id",
            "env",
        ),
        (
            SHORT.replace('"1"', '{ key = "A" }'),
            "secret_ref",
            "destinations.a.settings.id",
            "env",
        ),
        (SHORT.replace('{ id = "1" }', "{}"), "missing", "destinations.a.settings.id", "the pixel's id"),
        (SHORT.replace('["purchase"]', '"purchase"'), "tuple_type", "destinations.a.events", "list"),
        (SHORT + 'hold = "14d"\n', "model_type", "destinations.a.hold", "table"),
        (SHORT + "colour = 1\n", "extra_forbidden", "destinations.a.colour", "spelling"),
        (
            SHORT + 'hold = { kind = "refund", wait = "2 weeks" }\n',
            "duration_shape",
            "destinations.a.hold.wait",
            '"14d"',
        ),
        (SHORT + 'hold = { kind = "refund" }\n', "hold_without_wait", "destinations.a.hold", 'wait = "14d"'),
        (SHORT + "retry = { attempts = 0 }\n", "greater_than_equal", "destinations.a.retry.attempts", "1"),
        (
            SHORT + 'auth = { kind = "bearer", token = "sesame-open-now" }\n',
            "secret_ref",
            "destinations.a.auth.token",
            "environment variable",
        ),
        (SHORT + 'auth = { kind = "basic" }\n', "union_tag_invalid", "destinations.a.auth", '"bearer"'),
        (
            SHORT.replace("[destinations.a]", '[destinations."a b"]'),
            "string_pattern_mismatch",
            "destinations.a b",
            "",
        ),
    ],
)
def test_a_fault_is_told_with_its_key_and_its_remedy(
    tmp_path: Path, text: str, code: str, field: str, said: str
) -> None:
    """The reader finds the place and knows what to write there."""
    problem = next(
        (found for found in _problems(tmp_path, text) if (found.code, found.field) == (code, field)), None
    )
    assert problem is not None
    assert said in str(problem)


def test_a_secret_in_the_wrong_place_is_not_repeated(tmp_path: Path) -> None:
    """The message goes to a terminal and a log."""
    text = SHORT + 'auth = { kind = "bearer", token = "sesame-open-now" }\n'
    assert "sesame" not in "".join(map(str, _problems(tmp_path, text)))


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    """One run of the check is enough to correct them all."""
    text = SHORT.replace('"1"', '"x"') + SHORT.replace("destinations.a", "destinations.b").replace(
        '"xandr"', '"zandr"'
    )
    fields = [problem.field for problem in _problems(tmp_path, "colour = 1\n" + text)]
    assert fields == ["colour", "destinations.a.settings.id", "destinations.b.network"]


def test_a_file_that_is_not_there_says_how_to_point_to_one(tmp_path: Path) -> None:
    """The variable that names it is told."""
    with pytest.raises(ConfigError, match="HOLDFIRE_CONFIG"):
        load_config(tmp_path / "holdfire.toml")


def test_a_file_that_is_no_text_is_refused_as_such(tmp_path: Path) -> None:
    """Neither a folder nor another encoding ends in a stack trace."""
    (tmp_path / "latin1.toml").write_bytes(b'a = "\xe9"\n')
    for path in (tmp_path, tmp_path / "latin1.toml"):
        with pytest.raises(ConfigError, match="UTF-8"):
            load_config(path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("typo = 1", "typo: is not known. Remove it"),
        ("limits = { concurency = 20 }", "concurency: is not known. Did you mean concurrency?"),
        ("limits = { per_second = -1 }", "per_second: is -1, but must be more than 0. Raise it"),
        ('limits = { deadline = "5m" }', "deadline: is 5m, but must be at most 2m. Lower it"),
        ('limits = { connect = "0s" }', "connect: is 0s, but must be more than 0s. Raise it"),
        ("retry = { attempts = 0 }", "attempts: is 0, but must be at least 1. Raise it"),
        ('hold = { kind = "none", wait = "1d" }', "Remove wait, or use kind"),
        ("event_names = { purchase = 1 }", "purchase: must be a text. Put it in quotes"),
        ('protocol = "both"', "protocol: must be 'transaction' or 'partner'. Use one of these"),
    ],
)
def test_a_fault_is_told_in_the_words_of_the_file(tmp_path: Path, line: str, said: str) -> None:
    """What is wrong and what to do, and nothing of the library that found it."""
    (problem,) = _problems(tmp_path, f"{SHORT}{line}\n")
    assert said in str(problem)
