"""JSON that stays JSON wherever it is looked at: in a terminal, in a page, in a mail. Pure."""

from __future__ import annotations

import json
from typing import Any

_WRITTEN_OUT = {char: f"\\u{ord(char):04x}" for char in "<>&\x7f"}


def inert_json(value: Any) -> str:
    r"""One line of printable ASCII: every other character, and ``<``, ``>``, ``&``, as ``\uXXXX``.

    No escape sequence steers a terminal, no mark turns text round, and ``</script>`` ends nothing. The value is the same.
    """
    # These characters stand in strings only, never in JSON's own grammar.
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for char, written in _WRITTEN_OUT.items():
        text = text.replace(char, written)
    return text
