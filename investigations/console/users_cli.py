"""``holdfire users``: the accounts of the console. Nobody has a password that another made up for everybody."""

from __future__ import annotations

import getpass
import sys
from dataclasses import asdict
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from infra.open import open_store
from infra.store import audit
from infra.store.console import accounts
from infra.store.console.accounts import Account, AccountError
from investigations.words import clock
from schemas.accounts import Role, check_name

commands = typer.Typer(
    help="Add, list and change the accounts of the console.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Small letters, digits, '.', '_' and '-'.")]
GivenRole = Annotated[Role, typer.Option("--role", help="A viewer reads; an operator also acts.")]
FromStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input, one line.")
]
Who = Annotated[
    str | None, typer.Option("--as", metavar="NAME", help="Who does it; else the login name and the host.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    app.add_typer(commands, name="users")


@commands.command()
def add(
    name: Name, role: GivenRole, password_stdin: FromStdin = False, who: Who = None, as_json: AsJson = False
) -> None:
    """Add an account. Its password is typed twice and not shown, or read from standard input.

    \b
    holdfire users add alice --role operator
    """
    _checked(name)
    password = _password(from_stdin=password_stdin)
    with open_store() as engine:
        made = accounts.add(engine, name, role, password, who=who or audit.operator())
    _say(f"Added {name}, {role.value}.", _account(made), as_json=as_json)


@commands.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the accounts, disabled ones too."""
    with open_store() as engine:
        found = accounts.every(engine)
    if as_json:
        typer.echo(orjson.dumps([_account(each) for each in found]).decode())
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "role", "state", "created (UTC)", "last signed in (UTC)"):
        table.add_column(heading)
    for each in found:
        table.add_row(
            each.name,
            each.role.value,
            "disabled" if each.disabled_at else "good",
            clock(each.created_at)[:19],
            clock(each.last_login_at)[:19] if each.last_login_at else "never",
        )
    Console().print(
        table if found else "There are no accounts. `holdfire users add NAME --role operator` makes one."
    )


@commands.command("role")
def role_(
    name: Name, role: Annotated[Role, typer.Argument(help="viewer or operator")], who: Who = None
) -> None:
    """Change an account's role. Its sessions end."""
    with open_store() as engine:
        ended = accounts.set_role(engine, name, role, who=who or audit.operator())
    typer.echo(f"{name} is {role.value}. {_sessions(ended)}")


@commands.command()
def password(name: Name, password_stdin: FromStdin = False, who: Who = None) -> None:
    """Give an account a new password. Its sessions end."""
    given = _password(from_stdin=password_stdin)
    with open_store() as engine:
        ended = accounts.set_password(engine, name, given, who=who or audit.operator())
    typer.echo(f"{name} has a new password. {_sessions(ended)}")


@commands.command()
def disable(name: Name, who: Who = None) -> None:
    """Let an account sign in no more. Its sessions end; its name stays in the audit."""
    with open_store() as engine:
        ended = accounts.disable(engine, name, who=who or audit.operator())
    typer.echo(f"{name} is disabled. {_sessions(ended)}")


@commands.command()
def enable(name: Name, who: Who = None) -> None:
    """Let a disabled account sign in again, with the password and the role it had."""
    with open_store() as engine:
        accounts.enable(engine, name, who=who or audit.operator())
    typer.echo(f"{name} is enabled.")


def _checked(name: str) -> None:
    """Refuse a name before a password is asked for."""
    try:
        check_name(name)
    except ValueError as error:
        raise AccountError(str(error)) from None


def _password(*, from_stdin: bool) -> str:
    """Never an argument: those are seen in process lists and kept in shell histories."""
    if from_stdin:
        given = sys.stdin.readline().rstrip("\r\n")
        if not given:
            raise AccountError("--password-stdin: nothing came; write the password as one line")
        return given
    if not sys.stdin.isatty():
        raise AccountError("there is no terminal to ask for the password at; use --password-stdin")
    given = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != given:
        raise AccountError("the two did not match; nothing was changed")
    return given


def _sessions(ended: int) -> str:
    return f"{ended} session{'s' * (ended != 1)} ended."


def _account(each: Account) -> dict[str, Any]:
    return asdict(each) | {"role": each.role.value}


def _say(words: str, values: dict[str, Any], *, as_json: bool) -> None:
    typer.echo(orjson.dumps(values).decode() if as_json else words)
