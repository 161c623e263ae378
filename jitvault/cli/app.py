"""The command line: every command, and the one place where failures become messages and exit codes."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import sys
from functools import cache
from typing import Annotated, Any, NoReturn

import typer
from typer.main import get_command

from jitvault import __version__
from jitvault.cli.closing import on_exit
from jitvault.cli.commands import approve as approver
from jitvault.cli.commands import approvers, doctor, extend, freeze, ledger, policy, sweep, tidy, worker
from jitvault.cli.commands import audit_receive as audit
from jitvault.cli.commands import audit_status as trust
from jitvault.cli.commands import end as ending
from jitvault.cli.commands import grant as operator
from jitvault.cli.commands import init as admin
from jitvault.cli.commands import show as auditor
from jitvault.cli.commands import template_check as check
from jitvault.cli.commands import templates as local
from jitvault.cli.commands import unwrap as agent
from jitvault.errors import JitvaultError

app = typer.Typer(
    name="jitvault",
    help="Gives an AI agent access for one approved task and takes it away again, provably.",
    epilog="Exit codes: 0 done, 1 bug, 2 usage, 3 denied, 4 approval missing, 5 Vault unavailable, "
    "6 revoked but not confirmed, 7 audit stream not trusted, 8 invalid spec, 9 not found or wrong state, "
    "10 Vault refused, 11 ledger, 12 security finding, 13 wait timed out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


_INTERRUPTED, _BROKEN_PIPE = 130, 141  # as a shell tells SIGINT and SIGPIPE


def _version(value: bool) -> None:
    if value:
        typer.echo(f"jitvault {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


_OPERATORS, _APPROVERS, _AGENTS = "For operators", "For approvers", "For agents"
_AUDITORS, _ADMINS, _LOCAL = "For auditors", "For administrators", "On this machine"

app.command(rich_help_panel=_OPERATORS)(operator.submit)
app.command(rich_help_panel=_OPERATORS)(operator.grant)
app.command(rich_help_panel=_OPERATORS)(extend.extend)
app.command(rich_help_panel=_OPERATORS)(ending.complete)
app.command(rich_help_panel=_OPERATORS)(ending.revoke)
app.command(rich_help_panel=_OPERATORS)(operator.cancel)
app.command(rich_help_panel=_OPERATORS)(freeze.freeze)
app.command(rich_help_panel=_OPERATORS)(freeze.unfreeze)
app.command(rich_help_panel=_OPERATORS)(freeze.freezes)
app.command(rich_help_panel=_APPROVERS)(approver.approve)
app.command(rich_help_panel=_APPROVERS)(approver.deny)
app.command(rich_help_panel=_APPROVERS)(approver.withdraw)
app.command(rich_help_panel=_APPROVERS)(approver.approvals)
app.command(rich_help_panel=_AGENTS)(agent.unwrap)
app.command(rich_help_panel=_AUDITORS)(auditor.status)
app.command("list", rich_help_panel=_AUDITORS)(auditor.list_)
app.command(rich_help_panel=_AUDITORS)(auditor.report)
app.command(rich_help_panel=_ADMINS)(worker.worker)
app.command(rich_help_panel=_ADMINS)(sweep.sweep)
app.command("close-findings", rich_help_panel=_ADMINS)(trust.close_findings)
app.command(rich_help_panel=_ADMINS)(admin.init)
app.command(rich_help_panel=_ADMINS)(tidy.tidy)
app.command(rich_help_panel=_ADMINS)(doctor.doctor)
app.add_typer(approvers.approvers_app, name="approvers", rich_help_panel=_ADMINS)
app.add_typer(ledger.ledger_app, name="ledger", rich_help_panel=_ADMINS)
audit.audit_app.command("status")(trust.audit_status)
audit.audit_app.command("accept")(trust.audit_accept)
app.add_typer(audit.audit_app, name="audit", rich_help_panel=_ADMINS)
app.add_typer(local.spec_app, name="spec", rich_help_panel=_LOCAL)
local.templates_app.command("check")(check.templates_check)
app.add_typer(local.templates_app, name="templates", rich_help_panel=_LOCAL)
app.add_typer(policy.policy_app, name="policy", rich_help_panel=_LOCAL)
app.command(rich_help_panel=_LOCAL)(local.demo)
app.command(rich_help_panel=_LOCAL)(local.dev)


def _in_paragraphs(commands: typer.Typer) -> None:
    """Give each command its docstring as help, each paragraph on one line: how wide a terminal is it knows itself."""
    for command in commands.registered_commands:
        text = inspect.getdoc(command.callback) or ""
        command.help = "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
    for group in commands.registered_groups:
        if group.typer_instance is not None:
            _in_paragraphs(group.typer_instance)


_in_paragraphs(app)


def main() -> None:
    """Run one command. No failure shows a traceback without --debug, and none shows a secret."""
    with on_exit:
        _run()


@cache
def _commands() -> Any:
    """The commands as typer runs them. It takes tens of milliseconds to build them, and some processes run many."""
    return get_command(app)


def _run() -> NoReturn:
    arguments = sys.argv[1:]
    debug, as_json = "--debug" in arguments, "--json" in arguments
    # what words of a hint stand for, once a command knows it
    named: dict[str, str] = {}
    try:
        code = _commands()(prog_name="jitvault", standalone_mode=False, obj=named)
    except typer.TyperException as error:
        # the command line itself is wrong; help that was asked for by naming no command is printed already
        if message := error.format_message():
            _tell(message, f"See `{_command_of(error)} --help`.", error.exit_code, as_json=as_json)
        sys.exit(error.exit_code)
    except JitvaultError as error:
        if debug:
            raise
        hint = re.sub(r"\bTASK\b", lambda word: named.get(word[0], word[0]), error.hint)
        _tell(str(error), _as_typed(hint, error), error.exit_code, as_json=as_json)
    except (BrokenPipeError, SystemExit):
        # whoever read our output has gone (typer only exits for that): Python must not complain about it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
        sys.exit(_BROKEN_PIPE)
    except Exception as error:
        # the boundary: of a bug only the kind is told, since its text may hold anything
        if debug:
            raise
        _tell(f"unexpected {type(error).__name__}", JitvaultError.default_hint, 1, as_json=as_json)
    # typer makes this number of Ctrl-C
    if code == _INTERRUPTED:
        hint = "What was begun is finished by the next command on the task."
        _tell("interrupted", hint, _INTERRUPTED, as_json=as_json)
    sys.exit(code if isinstance(code, int) else 0)


def _as_typed(hint: str, error: JitvaultError) -> str:
    """Put the program of the server, or the one that is installed, into the commands of a hint."""
    if "`bao " not in hint:
        return hint
    from jitvault.errors import VaultUnavailable
    from jitvault.formats.product import command_line, with_command
    from jitvault.settings import load
    from jitvault.wiring import Wiring

    if isinstance(error, VaultUnavailable):
        # who asked a server that does not answer is not kept waiting for it once more
        return with_command(hint, command_line(None, shutil.which))
    try:
        command = Wiring(load()).vault_command
    except JitvaultError:
        # the settings are what is wrong
        return hint
    return with_command(hint, command)


def _command_of(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return str(context.command_path) if context else "jitvault"


def _tell(message: str, hint: str, code: int, *, as_json: bool) -> NoReturn:
    from jitvault.cli.views.output import for_terminal, printable, to_json
    from jitvault.formats.token_pattern import without_tokens

    message, hint = without_tokens(printable(message)), without_tokens(printable(hint))
    if as_json:
        body: dict[str, Any] = {"error": {"exit_code": code, "message": message, "hint": hint}}
        typer.echo(to_json(body), err=True)
    else:
        typer.secho("error: ", fg="red", bold=True, err=True, nl=False)
        # a reason that somebody gave may be part of it
        told = for_terminal(message, sys.stderr, first=" " * len("error: "))
        typer.echo(told[len("error: ") :] + "\n" + for_terminal(hint, sys.stderr, first="  "), err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
