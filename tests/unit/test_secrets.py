"""Secrets: read from where the configuration points, and refused where they could not be sent or masked."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.secrets import SecretError, read_secret
from schemas.auth import SecretRef


def test_a_secret_file_may_end_with_a_line_break(tmp_path: Path) -> None:
    """Editors leave one."""
    (tmp_path / "key").write_text("s3cret-key-1\n")
    assert read_secret(SecretRef(file=str(tmp_path / "key"))) == "s3cret-key-1"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("s3cret-key-1\ns3cret-key-2", "line break"),
        ("s3cret\0key-1", "unprintable"),
        ("short", "masked safely"),
    ],
)
def test_a_secret_that_could_not_be_sent_or_masked_is_named_by_its_place_only(
    value: str, reason: str, tmp_path: Path
) -> None:
    """The postback then waits for a person, and no part of the secret is in the reason."""
    path = tmp_path / "key"
    path.write_text(value)
    with pytest.raises(SecretError, match=reason) as refused:
        read_secret(SecretRef(file=str(path)))
    assert str(path) in str(refused.value)
    assert value[:5] not in str(refused.value).replace(str(path), "")


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do about it."""
    monkeypatch.delenv("HF_TEST_KEY", raising=False)
    with pytest.raises(SecretError, match=r"HF_TEST_KEY is not set\. Set it where the workers run"):
        read_secret(SecretRef(env="HF_TEST_KEY"))
