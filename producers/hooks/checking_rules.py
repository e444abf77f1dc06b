"""Whether the rules of a source can be applied: every fault names the key and the remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import jmespath  # type: ignore[import-untyped] # it ships no types
from jmespath.exceptions import JMESPathError  # type: ignore[import-untyped] # it ships no types
from pydantic import BaseModel

from producers.hooks.hook import Options
from producers.hooks.rules import RULE_KEYS, Rule, rules_of
from schemas.event import CancelSignal, ChargebackSignal, ConversionEvent, CreditCheckSignal, RefundSignal
from schemas.problem import Problem

_MODELS: Final[dict[str, type[BaseModel]]] = {
    "conversion": ConversionEvent,
    "refund": RefundSignal,
    "chargeback": ChargebackSignal,
    "credit_check": CreditCheckSignal,
    "cancel": CancelSignal,
}
_OURS: Final = {"version", "source", "type"}
_TABLES: Final = ("click_ids", "params")


def check_rules(options: Options, *, needed: bool) -> Sequence[Problem]:
    """Problems of the rules; ``field`` is the key below the source's table."""
    values = options.values
    if "rules" in values:
        rules = values["rules"]
        if not isinstance(rules, list) or not rules or not all(isinstance(each, Mapping) for each in rules):
            return [Problem("rules", "rules", "is no list of tables", "Write [[sources.NAME.rules]]")]
        both = [key for key in RULE_KEYS if key in values]
        problems = [Problem("rules", key, "stands beside rules", "Put it into a rule") for key in both]
        placed = [(f"rules.{number}.", rule) for number, rule in enumerate(rules)]
    else:
        single = rules_of(options)
        if not single:
            return [Problem("rules", "map", "is missing", "Add map, or rules")] if needed else []
        problems, placed = [], [("", single[0])]
    for where, rule in placed:
        problems += _rule_problems(where, rule)
    if "dedupe" in values:
        problems += _expression_problems("dedupe", values["dedupe"])
    return problems


def _rule_problems(where: str, rule: Rule) -> list[Problem]:
    kind = rule.get("type")
    model = _MODELS.get(kind) if isinstance(kind, str) else None
    if model is None:
        known = ", ".join(_MODELS)
        return [Problem("rules", f"{where}type", f"is {kind!r}, no type of event", f"Use one of {known}")]
    problems = [
        Problem("rules", f"{where}{key}", "is no key of a rule", f"It has {', '.join(RULE_KEYS)}")
        for key in rule
        if key not in RULE_KEYS
    ]
    for key in ("when", "each"):
        if key in rule:
            problems += _expression_problems(f"{where}{key}", rule[key])
    fields = [name for name in model.model_fields if name not in _OURS]
    problems += _field_problems(where, rule, str(kind), fields)
    for name, expression in _table(rule, "map").items():
        problems += _mapped_problems(f"{where}map.{name}", expression, table=name in _TABLES)
    return problems


def _field_problems(where: str, rule: Rule, kind: str, fields: Sequence[str]) -> list[Problem]:
    problems = []
    for key in ("map", "constants"):
        if not isinstance(rule.get(key, {}), Mapping):
            problems.append(Problem("rules", f"{where}{key}", "is no table", "Write it like { name = … }"))
        problems += [
            Problem(
                "rules", f"{where}{key}.{name}", f"is no field of a {kind}", f"It has {', '.join(fields)}"
            )
            for name in _table(rule, key)
            if name not in fields
        ]
    given = {*_table(rule, "map"), *_table(rule, "constants")}
    if "event_id" not in given:
        reason = "is missing: events are told apart by it"
        problems.append(Problem("rules", f"{where}map.event_id", reason, 'Add it, such as event_id = "id"'))
    if kind == "conversion" and "name" not in given:
        remedy = 'Add constants = { name = "purchase" }'
        problems.append(Problem("rules", f"{where}map.name", "is missing", remedy))
    return problems


def _mapped_problems(field: str, expression: Any, *, table: bool) -> list[Problem]:
    if not table:
        return _expression_problems(field, expression)
    if not isinstance(expression, Mapping):
        remedy = f"Write {field.rpartition('.')[2]}.NAME = EXPRESSION"
        return [Problem("rules", field, "is no table of expressions", remedy)]
    return [
        problem
        for key, each in expression.items()
        for problem in _expression_problems(f"{field}.{key}", each)
    ]


def _table(rule: Rule, key: str) -> Mapping[str, Any]:
    found = rule.get(key)
    return found if isinstance(found, Mapping) else {}


def _expression_problems(field: str, expression: Any) -> list[Problem]:
    if not isinstance(expression, str) or not expression:
        return [Problem("rules", field, "is no expression", 'Write it like "data.order.id"')]
    try:
        jmespath.compile(expression)
    except JMESPathError as error:
        reason = " ".join(str(error).split())
        return [
            Problem("rules", field, f"is no JMESPath ({reason})", "See https://jmespath.org/examples.html")
        ]
    return []
