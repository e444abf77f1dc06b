"""How a click id stands in its index: PostgreSQL's entries end at some 2,700 bytes, and a token may be longer."""

from __future__ import annotations

LONGEST_AS_IS = 500
"""Characters; four bytes each still fit."""


def indexed(token: str) -> str:
    """SQL for the index entry of ``token``, itself an SQL expression of text: the token, or the hash of a long one."""
    digest = f"'sha256:' || encode(sha256(convert_to({token}, 'UTF8')), 'hex')"
    return f"CASE WHEN length({token}) > {LONGEST_AS_IS} THEN {digest} ELSE {token} END"
