"""Whether the body of an answer says no although its status says yes."""

from __future__ import annotations

import re

_NO = re.compile(
    r"""
    ["']?(?:success|ok|accepted|valid|status|result|code)["']?\s*[:=]\s*["']?
        (?:false|0\b|no\b|fail\w*|error\w*|invalid|reject\w*|declin\w*|duplicate\w*|denied|4\d\d\b)
    | ["']?(?:errors?|error_message|error_code)["']?\s*[:=]\s*(?!["']{2}|null|false|none|0\b|\[\s*\]|\{\s*\})
    | \b(?:invalid|unknown|expired|missing|wrong)\s+(?:click|transaction|token|conversion|campaign|goal|event|offer|kcid|cid)\b
    | \b(?:click|click_?id|transaction|token|conversion|campaign|offer)\s*(?:id)?\s+(?:(?:was|is)\s+)?
        (?:not\s+found|unknown|invalid|expired|missing|not\s+valid|too\s+old|rejected|declined)\b
    | \bnot\s+(?:counted|accepted|found|recorded|attributed|credited)\b
    | \bduplicate\s+(?:conversion|transaction|click|postback)\b
    | \b(?:rejected|declined|permission\s+denied|access\s+denied|unauthori[sz]ed)\b
    """,
    re.VERBOSE | re.IGNORECASE,
)
_YES = re.compile(
    r"""\A\s*(?:ok|success|true|1|accepted|done)\s*[.!]?\s*\Z|["']?success["']?\s*[:=]\s*["']?(?:true|1)\b""",
    re.IGNORECASE,
)
LONGEST = 2_000
"""Characters of a body that are looked at: a refusal is short."""


def says_no(body: str) -> str | None:
    """The words of ``body`` that refuse, or None. What says yes outright is not searched for a no.

    Only the words themselves are given back: what stands around them may be somebody's data.
    """
    looked_at = body[:LONGEST]
    if _YES.search(looked_at):
        return None
    found = _NO.search(looked_at)
    return None if found is None else " ".join(found[0].split())
