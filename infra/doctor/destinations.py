"""Destinations: the file, what is applied, the difference, and the secrets they need."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import Engine

from infra.catalogue import Config, ConfigError, load_config
from infra.doctor.finding import Finding, fail, ok, warn
from infra.secrets import SecretError, read_secret
from infra.store.destinations import Destinations, difference
from schemas.destination import Contract

_SIGNS = {"added": "+", "changed": "~", "removed": "-"}


def examine_config(path: Path) -> tuple[Config | None, list[Finding]]:
    """The file as a whole, if there is one that can be used."""
    if not path.exists():
        remedy = "write one, or name it in HOLDFIRE_CONFIG; what is applied goes on without it"
        return None, [warn("configuration", f"{path} does not exist", remedy)]
    try:
        config = load_config(path)
    except ConfigError as error:
        return None, [
            fail("configuration", f"{path}: {one.field}: {one.reason}", one.remedy) for one in error.problems
        ]
    findings = [warn("configuration", f"{one.field}: {one.reason}", one.remedy) for one in config.warnings]
    return config, [
        ok("configuration", f"{path}: {len(config.contracts)} destinations, no problems"),
        *findings,
    ]


def examine_secrets(contracts: Iterable[Contract]) -> list[Finding]:
    """Whether every secret can be read here. Its value is not shown."""
    findings, read = [], 0
    for contract in contracts:
        for place, ref in contract.destination.secret_refs().items():
            try:
                read_secret(ref)
                read += 1
            except SecretError as error:
                reason, _, remedy = str(error).partition(". ")
                where = f"destinations.{contract.name}.{place}: {reason}"
                findings.append(fail("secrets", where, f"{remedy}; until then its postbacks wait"))
    return findings or [ok("secrets", f"{read} can be read" if read else "none are needed")]


def examine_applied(engine: Engine, config: Config | None) -> tuple[list[Contract], list[Finding]]:
    """What is applied, and how the file differs from it."""
    applied = [version.contract for version in Destinations(engine).current()]
    if not applied:
        remedy = "run `holdfire destinations apply`; until then events are kept but routed nowhere"
        return applied, [warn("destinations", "none is applied", remedy)]
    findings = [ok("destinations", f"{len(applied)} applied: {', '.join(one.name for one in applied)}")]
    changes = difference(engine, config.contracts) if config is not None else []
    differing = [f"{_SIGNS[change.kind]}{change.name}" for change in changes if change.kind != "unchanged"]
    if differing:
        says = f"the file differs from what is applied: {' '.join(differing)}"
        findings.append(
            warn("destinations", says, "look with `holdfire destinations apply --dry-run`, then apply")
        )
    return applied, findings
