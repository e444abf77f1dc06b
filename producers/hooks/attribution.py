"""Where a shop keeps what an ad click left with the order: which of its texts are click ids, and of which network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from producers.hooks.fields import at, objects
from producers.hooks.hook import Options
from schemas.problem import Problem

PREFIX: Final = "click_id_"
OPTIONS: Final = {
    "click_ids": f"the key that holds each network's click id, such as {{ xandr = 'clid' }}; else {PREFIX}NETWORK",
    "partner_id": "the key that holds the partner id",
    "params": "keys that go with the conversion as params",
    "lead_id": "the key that holds a lead id under which the landing page may have registered its click",
    "customer_id": "as lead_id, of a customer id",
    "device_id": "as lead_id, of a device id",
}
KEYS: Final = ("partner_id", "lead_id", "customer_id", "device_id")
"""Options that are fields of a conversion, and say which key holds them."""


def attributes(pairs: Mapping[str, str], options: Options) -> dict[str, Any]:
    """The fields of a conversion that say whose it is: click ids, the partner's id, keys to the click, params."""
    named = options.table("click_ids")
    if named:
        click_ids = {network: pairs[key] for network, key in named.items() if pairs.get(key)}
    else:
        click_ids = {
            key.removeprefix(PREFIX): value
            for key, value in pairs.items()
            if key.startswith(PREFIX) and key != PREFIX and value
        }
    found: dict[str, Any] = {"click_ids": click_ids} if click_ids else {}
    found |= {name: value for name in KEYS if (value := pairs.get(options.text(name, "")))}
    params = {key: pairs[key] for key in options.texts("params") if key in pairs}
    return found | ({"params": params} if params else {})


def texts_of(table: object) -> dict[str, str]:
    """The texts among an object's values, whole numbers written out."""
    if not isinstance(table, Mapping):
        return {}
    return {
        key: str(value)
        for key, value in table.items()
        if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
    }


def pairs_of(payload: object, path: str, key: str, value: str = "value") -> dict[str, str]:
    """Texts from a list of objects that have a ``key`` and a ``value`` each."""
    return {
        each[key]: told
        for each in objects(payload, path)
        if isinstance(each.get(key), str) and (told := texts_of(each).get(value)) is not None
    }


def query_of(url: object) -> dict[str, str]:
    """The query parameters of a landing page's URL or path, the first of each; none if it is no URL."""
    if not isinstance(url, str):
        return {}
    try:
        found = parse_qsl(urlsplit(url).query, keep_blank_values=True, max_num_fields=200)
    except ValueError:
        return {}
    return dict(reversed(found))


def check(options: Options) -> Sequence[Problem]:
    """What is wrong with the values of these options."""
    problems = []
    click_ids = options.values.get("click_ids", {})
    if not isinstance(click_ids, Mapping) or not all(isinstance(key, str) for key in click_ids.values()):
        remedy = 'Write it like { xandr = "clid" }'
        problems.append(Problem("option", "click_ids", "is no table of networks and keys", remedy))
    problems += text_only(options, *KEYS)
    params = options.values.get("params", [])
    if not isinstance(params, list) or not all(isinstance(each, str) for each in params):
        problems.append(Problem("option", "params", "is no list of texts", 'Write it like ["plan"]'))
    return problems


def one_of(options: Options, key: str, known: Sequence[str]) -> list[Problem]:
    """A problem if the option is given and is none of the known values."""
    value = at(options.values, key)
    if value is None or value in known:
        return []
    return [Problem("option", key, f"is {value!r}", f"Use one of {', '.join(known)}")]


def text_only(options: Options, *keys: str) -> list[Problem]:
    """Problems of the options that should be texts and are not."""
    return [
        Problem("option", key, "is no text", "Put it in quotes")
        for key in keys
        if key in options.values and not (isinstance(options.values[key], str) and options.values[key])
    ]
