"""What all tests share: one provisioned world of real servers for each test process, and the commands of everybody.

There is no mock of Vault, PostgreSQL or the audit log. A server that does not start fails the run.
"""

from __future__ import annotations

import itertools
import secrets
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import EXAMPLE, SPEC, Cli, Quick, look_for_engines_once, read_each_environment_once, without_limits
from hypothesis import HealthCheck, Phase, settings
from in_memory import keep_files_in_memory
from ledgers import address, bind, compile_statements_once, new_place
from tiers import mark_thorough

from jitvault.errors import UsageError
from jitvault.formats.server_product import Product
from jitvault.sandbox.binary import find_binary
from jitvault.sandbox.servers import running_servers
from jitvault.sandbox.world import World, env, provisioned

# how fast an example is made or judged says something of the machine, which others use as well, and nothing of a law
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# of `make test`: a law that is broken rarely is found by `make test-all`, with five times the examples
settings.register_profile("short", settings.get_profile("suite"), max_examples=20)
# of `make mutants`: that an example fails is enough, and the smallest one takes minutes to find
settings.register_profile(
    "mutants", settings.get_profile("suite"), phases=[Phase.explicit, Phase.generate], database=None
)
settings.load_profile("suite")
compile_statements_once()
look_for_engines_once()
read_each_environment_once()
keep_files_in_memory()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # started in the background of a script: children would inherit that they cannot be interrupted
    signal.signal(signal.SIGINT, signal.default_int_handler)


# What tests say that they need by `pytest.mark.needs(…)`: which product lacks it, and why.
_LACKS = {
    "namespaces": (Product.VAULT, "namespaces exist in Vault Enterprise alone"),
    "http-device": (Product.VAULT, "it has no audit device that pushes over HTTP"),
    "devices-by-api": (Product.OPENBAO, "its audit devices come from its configuration alone"),
    "jsonx": (Product.OPENBAO, "it has no JSONx"),
    "static-seal": (Product.VAULT, "it has no static seal"),
    "reading-standbys": (Product.VAULT, "a standby forwards all requests; only those of Vault Enterprise answer reads"),
    "reasons-in-look-ups": (Product.VAULT, "its look-up of a lease does not say why that cannot be revoked"),
    "two-forms": (Product.OPENBAO, "a token has one spelling; what is written otherwise is another one"),
    "lines-of-openbao": (Product.VAULT, "its lines have the form that these are put into"),
}
_LACKING = "not for "


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that needs what this server lacks. The reasons are listed at the end of the run."""
    for mark in item.iter_markers("needs"):
        for need in mark.args:
            product, reason = _LACKS[need]
            if find_binary().product is product:
                pytest.skip(f"{_LACKING}{product}: {reason}")


def pytest_configure() -> None:
    """A server that is asked for and cannot be had ends the run before it begins."""
    try:
        find_binary()
    except UsageError as error:
        raise pytest.UsageError(f"{error}\n  {error.hint}") from None


def pytest_report_header() -> str:
    return f"server: {find_binary().release}"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """List what the server lacks and which tests need it, each with its name."""
    lacking: dict[str, list[str]] = defaultdict(list)
    for report in terminalreporter.getreports("skipped"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        _, found, reason = reason.partition(_LACKING)
        if found:
            lacking[reason].append(report.nodeid)
    for reason, names in sorted(lacking.items()):
        terminalreporter.section(f"not run on {reason}")
        for name in sorted(names):
            terminalreporter.line(name)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tell the two tiers apart, before pytest selects by marker, and run the largest file first.

    One process runs a file from its first test to its last. The largest, the ledger's, would begin when the others are
    about to end, and one core would wait for them.
    """
    mark_thorough(items)
    items.sort(key=lambda item: "unit/ledger" not in item.nodeid)


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """A Vault and a PostgreSQL, provisioned. Tests share it, so each uses task ids of its own."""
    with running_servers() as servers:
        yield provisioned(servers)


@pytest.fixture(scope="module")
def variables(world: World, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment of everybody, with a ledger for each module: two that are used by turns freeze each other."""
    place = new_place(world.servers.postgres, tmp_path_factory.mktemp("ledger") / "ledger.db")
    bind(place, world.installation)
    made = env(world, address(place), EXAMPLE)
    if request.path.is_relative_to(Path(__file__).parent / "integration"):
        # one agent trips there on purpose and takes leases by the hundred: that would end with the first test
        made["JITVAULT_POLICIES"] = str(without_limits(tmp_path_factory.mktemp("policies")))
    return made


@pytest.fixture
def cli(variables: dict[str, str], tmp_path: Path) -> Cli:
    return Cli(variables, tmp_path)


@pytest.fixture
def quick(variables: dict[str, str], tmp_path: Path) -> Quick:
    return Quick(variables, tmp_path)


@pytest.fixture
def spec(tmp_path: Path) -> Callable[..., Path]:
    """Write a task spec with an id of its own: `spec(criticality="medium")` gives the file; its stem is the id."""
    numbers = itertools.count()

    def write(
        *,
        task: str | None = None,
        criticality: str = "low",
        template: str = "postgres-readonly",
        window: str = "15m",
        intent: str = "Count the orders.",
        choices: str = "{database: app}",
        more: str = "",
    ) -> Path:
        name = task or f"t{secrets.token_hex(4)}-{next(numbers)}"
        path = tmp_path / f"{name}.yaml"
        text = SPEC.format(id=name, criticality=criticality, template=template, window=window, intent=intent, more=more)
        path.write_text(text.replace("{database: app}", choices))
        return path

    return write
