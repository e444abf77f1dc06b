"""How long things are kept, as it is written, and which months are past it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from infra.catalogue import ConfigError, load_config, policy_of
from schemas.keeping import Keeping, Policy, is_past, month_after, read_policy, warnings_about

SHOP = '[destinations.shop]\nnetwork = "generic"\nsettings = { url = "https://s.example/?c={click_id}" }\nevents = ["purchase"]\n'
DAYS = timedelta(days=1)


def loaded(tmp_path: Path, text: str) -> Policy:
    (tmp_path / "holdfire.toml").write_text(text)
    config = load_config(tmp_path / "holdfire.toml")
    return policy_of(config.keeping, config.contracts)


def test_a_month_is_past_when_its_last_instant_is() -> None:
    """Not a day before: what was fired on the 31st is kept as long as what was on the 1st."""
    end = datetime(2026, 2, 1, tzinfo=UTC)
    assert is_past(date(2026, 1, 1), 30 * DAYS, end + 30 * DAYS)
    assert not is_past(date(2026, 1, 1), 30 * DAYS, end + 30 * DAYS - timedelta(microseconds=1))
    assert not is_past(date(2026, 1, 1), None, end + 9999 * DAYS)
    assert month_after(date(2025, 12, 1)) == date(2026, 1, 1)


def test_nothing_leaves_where_nothing_is_said(tmp_path: Path) -> None:
    """The default is for ever."""
    policy = loaded(tmp_path, SHOP)
    assert policy.keep("shop") is None
    assert policy.keep("unknown") is None


def test_a_destination_says_it_for_itself(tmp_path: Path) -> None:
    """Shorter, longer, or for ever against an age for all."""
    policy = loaded(tmp_path, f'{SHOP}keep = "forever"\n[keeping]\nevidence = "400d"\n')
    assert policy.keep("shop") is None
    assert policy.keep("other") == 400 * DAYS


def test_it_makes_no_new_version_of_a_destination(tmp_path: Path) -> None:
    """What postbacks are held under does not depend on how long they are kept afterwards."""
    (tmp_path / "a.toml").write_text(SHOP)
    (tmp_path / "b.toml").write_text(f'{SHOP}keep = "400d"\n')
    a, b = (load_config(tmp_path / name).contracts["shop"] for name in ("a.toml", "b.toml"))
    assert a.model_dump_json() == b.model_dump_json()


@pytest.mark.parametrize(
    ("line", "field", "remedy"),
    [
        ('evidence = "3d"', "keeping.evidence", "Keep it for a week or longer"),
        ('evidence = "a year"', "keeping.evidence", "Write it like"),
        ("evidence = 400", "keeping.evidence", "Write it like"),
        ('evidense = "400d"', "keeping.evidense", "Did you mean evidence?"),
        ('archive_dir = "here"', "keeping.archive_dir", ""),
    ],
)
def test_what_cannot_be_used_is_named_with_its_remedy(
    tmp_path: Path, line: str, field: str, remedy: str
) -> None:
    """As every key of the file."""
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, f"{SHOP}[keeping]\n{line}\n")
    (problem,) = refused.value.problems
    assert problem.field == field
    assert remedy in problem.remedy


def test_an_age_below_what_networks_take_claims_for_is_worth_a_look() -> None:
    """Unless archives are there for as long."""
    short = Keeping(evidence="30d", archive=False)
    assert [each.code for each in warnings_about(Policy(short, {}))] == ["keep_below_claims"]
    archived = Keeping(evidence="30d")
    assert list(warnings_about(Policy(archived, {}))) == []
    useless = Keeping(evidence="400d", archive_keep="300d")
    assert [each.code for each in warnings_about(Policy(useless, {}))] == ["archive_keep_too_short"]


def test_a_policy_is_stored_and_read_as_it_was() -> None:
    """Absent, for ever and an age are three things."""
    policy = Policy(Keeping(evidence=400 * DAYS, inbox=30 * DAYS, archive=False), {"a": None, "b": 9 * DAYS})
    assert read_policy(policy.wire()) == policy
