"""A provisioned world, the worker in this process with a ledger on disk, and the people around it."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.bare import Bare
from jitvault import shipped_files as shipped
from jitvault.agent.unwrap import read_all, unwrap
from jitvault.formats.secret import Secret
from jitvault.ledger.model import TaskRecord
from jitvault.ledger.storage.database import raw, upgrade
from jitvault.lifecycle.advance import advance
from jitvault.lifecycle.requests.sign import sign_end, sign_grant_request, sign_submission
from jitvault.model.spec import TaskSpec, parse_spec
from jitvault.model.states import EndReason, State
from jitvault.sandbox.servers import running_servers
from jitvault.sandbox.world import World, env, provisioned
from jitvault.settings import Settings
from jitvault.vault.client import Connection, Vault
from jitvault.wiring import Wiring


class Scene:
    """Does with the services what the commands do, without a process for each."""

    def __init__(self, world: World, directory: Path) -> None:
        ledger = f"sqlite:///{directory / 'ledger.db'}"
        upgrade(raw(ledger))
        variables = env(world, ledger, directory / "unused.yaml")
        # given, not taken from the environment: whose benchmarks these are must not matter
        self.settings = Settings.model_validate(
            {
                "VAULT_ADDR": world.address,
                "VAULT_TOKEN": world.operator_token.reveal(),
                "VAULT_NAMESPACE": None,
                "VAULT_CACERT": None,
                "worker_token": world.worker_token.reveal(),
                "ledger": variables["JITVAULT_LEDGER"],
                "audit_file": variables["JITVAULT_AUDIT_FILE"],
                "settle_window": variables["JITVAULT_SETTLE_WINDOW"],
                "shared_hosts": variables["JITVAULT_SHARED_HOSTS"],
                "templates": _roomy_templates(directory / "templates"),
                "policies": _roomy_policies(directory / "policies"),
            }
        )
        given = self.settings.model_dump(include={"templates", "policies"})
        self.environment = {**variables, **{f"JITVAULT_{name.upper()}": str(path) for name, path in given.items()}}
        self.wiring = Wiring(self.settings)
        self.world, self.variables = world, variables
        self.worker, self.operator = self.wiring.worker, self.wiring.person
        self.bare = self.new_bare()
        self._agent = Vault(Connection(world.address), None)

    def new_bare(self, by: Callable[[str, str], Any] | None = None) -> Bare:
        """Another hvac client, or what `by` makes, for another thread."""
        return Bare(self.world.address, self.world.admin_token.reveal(), by)

    def asked(self) -> TaskSpec:
        """A task that is approved, and that its requester has asked to be granted: `advance` issues it."""
        spec = parse_spec(json.dumps(spec_of(f"bench-{secrets.token_hex(6)}")).encode())
        sign_submission(self.operator, spec, revise=False)
        self.advance(spec, State.APPROVED)
        sign_grant_request(self.operator, spec)
        return spec

    def used(self) -> TaskSpec:
        """A task whose agent has unwrapped its token and read its one PostgreSQL login, and that is done."""
        spec = self.asked()
        self.advance(spec, State.ISSUED)
        message = self.operator.documents.get(f"inbox/{self.operator.entity}/{spec.id}")
        if message is None:
            raise RuntimeError("there is no wrapping token in the inbox")
        list(read_all(self._agent, unwrap(self._agent, Secret(message["wrapping"][0]["token"]))))
        sign_end(self.operator, spec.id, reason=EndReason.COMPLETED, note="")
        return spec

    def held(self, leases: int) -> TaskSpec:
        """A task whose agent has read so many logins, and goes on."""
        spec = self.asked()
        self.advance(spec, State.ISSUED)
        message = self.operator.documents.get(f"inbox/{self.operator.entity}/{spec.id}")
        if message is None:
            raise RuntimeError("there is no wrapping token in the inbox")
        task = unwrap(self._agent, Secret(message["wrapping"][0]["token"]))
        for _ in range(leases):
            list(read_all(self._agent, task))
        return spec

    def advance(self, spec: TaskSpec, to: State) -> TaskRecord:
        """Advance the task; raises RuntimeError when that does not bring it where it must."""
        file = advance(self.worker, spec.id, hint=self.operator.entity)
        if file.task.state is not to:
            raise RuntimeError(f"task {spec.id} is {file.task.state} and not {to}")
        return file


@contextmanager
def scene(directory: Path) -> Iterator[Scene]:
    """Real servers for as long as the context lasts; the ledger is in `directory`, which is made if need be."""
    directory.mkdir(exist_ok=True)
    with running_servers() as servers:
        yield Scene(provisioned(servers), directory)


def _roomy_templates(directory: Path) -> Path:
    """The shipped templates with room for more leases: the budget is a tripwire, and none is measured here."""
    directory.mkdir()
    for name, text in shipped.files(shipped.templates_dir(), ".yaml").items():
        file = directory / Path(name).name
        file.write_bytes(re.sub(rb"lease_budget: \d+", b"lease_budget: 1000", text))
    return directory


def _roomy_policies(directory: Path) -> Path:
    """The shipped policies without the budgets of leases, which the kill switch's tasks are far above."""
    directory.mkdir()
    for name, text in shipped.files(shipped.policies_dir() / "cedar", ".cedar", ".cedarschema").items():
        if Path(name).name != "limits.cedar":
            (directory / Path(name).name).write_bytes(text)
    return directory


def spec_of(task_id: str) -> dict[str, object]:
    """A low-risk task: nobody has to approve it."""
    return {
        "apiVersion": "jitvault.dev/v1",
        "kind": "Task",
        "metadata": {"id": task_id},
        "spec": {
            "agent": "research-agent",
            "owner": "data-owner",
            "intent": "Count the orders.",
            "criticality": "low",
            "access": [{"template": "postgres-readonly", "with": {"database": "app"}}],
            "window": {"for": "15m"},
        },
    }
