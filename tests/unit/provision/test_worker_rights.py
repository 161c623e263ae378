"""The rights of the worker's policy, as they are asked for one path each, and whose refusal a refusal is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from jitvault import shipped_files as shipped
from jitvault.cli.refused import hint_for
from jitvault.cli.session import allowed
from jitvault.engines.database import DatabaseEngine
from jitvault.engines.pki.engine import PkiEngine
from jitvault.errors import VaultRefused, VaultRejected, WorkerRefused
from jitvault.model.template import load_templates
from jitvault.provision.worker_rights import ASKING, lacking, needed_rights
from jitvault.vault.auth_methods import AGENT, WORKER
from jitvault.vault.client import Connection, Vault
from jitvault.vault.login import Login

ENGINES = {"database": DatabaseEngine(), "pki": PkiEngine()}
TEMPLATES = load_templates(shipped.files(shipped.templates_dir(), ".yaml"))
NEEDED = needed_rights(shipped.vault_policies(), TEMPLATES, ENGINES)
REVOKE = "sys/leases/revoke/database/creds/app-readonly/jitvault-any"


def test_every_way_to_revoke_is_among_what_is_tried() -> None:
    assert NEEDED[REVOKE] == {"update"}
    assert NEEDED["auth/token/revoke-accessor"] == {"update"}
    assert NEEDED["sys/leases/revoke-prefix/auth/token/create/jitvault-15m"] == {"update", "sudo"}
    assert NEEDED[ASKING] == {"update"}
    near = needed_rights(shipped.vault_policies(), {}, ENGINES, ["jitvault-8h-near"])
    assert near["sys/leases/revoke-prefix/auth/token/create/jitvault-8h-near"] == {"update", "sudo"}
    assert not [path for path in NEEDED if "*" in path or "+" in path]


def test_a_right_that_is_not_given_is_named_as_its_policy_names_it() -> None:
    given = {path: sorted(capabilities) for path, capabilities in NEEDED.items()}
    assert lacking(NEEDED, given) == lacking(NEEDED, dict.fromkeys(NEEDED, ("root",))) == []
    for path, wanted in NEEDED.items():
        missing = lacking(NEEDED, {**given, path: ["deny"]})
        assert len(missing) == len(wanted) and all("jitvault-any" not in right for right in missing)


def test_a_refusal_of_the_worker_is_told_as_the_workers_whoever_reads_it() -> None:
    refusal = VaultRefused("Vault refused sys/leases/revoke/a: permission denied", method="put", path="a")
    here = Connection("http://127.0.0.1:1")
    worker, agent = (Vault(here, Login(here, SimpleNamespace(owner=owner))) for owner in (WORKER, AGENT))
    for somebody in (agent, Vault(here, None)):
        assert somebody._of_whom(refusal) is refusal
    told = worker._of_whom(refusal)
    assert isinstance(told, WorkerRefused) and "to the worker" in str(told)
    assert "worker's identity" in hint_for(told) and "not yours" in hint_for(told)
    with pytest.raises(WorkerRefused), allowed("end it", "operators"):
        raise told
    rejected = VaultRejected("no", status=400)
    assert worker._of_whom(rejected) is rejected
