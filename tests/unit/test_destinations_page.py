"""The list of destinations in a terminal: whole columns, or none and its name."""

from __future__ import annotations

from workers.destinations_page import fitted

LINES: list[tuple[str, ...]] = [
    ("slug", "confidence", "docs"),
    ("xandr", "exact", "https://example.com/a-long-page"),
]


def test_a_wide_terminal_shows_every_column() -> None:
    """Nothing is left out where there is room."""
    assert fitted(LINES, 120) == (LINES, [])


def test_a_narrow_terminal_goes_without_the_minor_columns_and_names_them() -> None:
    """The links go first; what is left is not cut in the middle of a word."""
    assert fitted(LINES, 30) == ([("slug", "confidence"), ("xandr", "exact")], ["docs"])
