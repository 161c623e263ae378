"""What somebody without any right of ours can do by requests, and what hides a lease from the stream."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from hands import THIEF, Mirror, ask
from rig import PREFIX, Rig, own_rig
from test_tripwires import one_more_path

from jitvault.sandbox.world import World

Spec = Callable[..., Path]
OTHER = "database/creds/app-readwrite"


def anybody(rig: Rig) -> str:
    """A token with Vault's default policy."""
    made = rig.admin.write("auth/token/create", {"policies": ["default"], "ttl": "1h"})
    return str(made["auth"]["client_token"])


@contextmanager
def not_revocable(rig: Rig, login: str) -> Iterator[None]:
    """A role that owns something cannot be dropped."""
    with psycopg.connect(rig.elsewhere, autocommit=True) as target:
        target.execute(f'CREATE SCHEMA kept_{login[-8:]} AUTHORIZATION "{login}"')
        try:
            yield
        finally:
            target.execute(f"DROP SCHEMA kept_{login[-8:]}")


def test_asking_for_help_freezes_nothing_ends_nothing_and_stands_for_no_act(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    rig("operator", "status", file.stem)
    token = anybody(rig)
    for path in ("auth/token/create/jitvault-15m", f"sys/leases/revoke/{held.lease_id}", "sys/leases/tidy"):
        assert ask(rig, "GET", f"{path}?help=1", token, source=THIEF)[0] == 200
    assert ask(rig, "GET", "auth/token/revoke-self?help=1", held.token)[0] == 200
    status = rig("operator", "status", file.stem).json
    assert (status["state"], status["frozen"], status["findings"]) == ("active", None, [])
    assert rig("operator", "complete", file.stem).json["confirmed"]


def test_junk_of_strangers_does_not_enter_the_ledger(rig: Rig, spec: Spec) -> None:
    file = spec()
    rig.active(file)
    rig("operator", "status", file.stem)
    # the lines of what that one did: it cut the lease to a step
    rig("operator", "status", file.stem)
    ours = "kind = 'own' AND actor IN (SELECT accessor_hmac FROM worker_sessions)"
    others = f"SELECT line, kind FROM observations WHERE NOT ({ours})"
    before = set(rig.rows(others))
    for token in ("", "junk", anybody(rig)):
        for method, path in (("PUT", "sys/leases/revoke"), ("PUT", "auth/token/create/jitvault-15m"), ("GET", "x/y")):
            ask(rig, method, path, token, {"lease_id": "x"}, source=THIEF, headers={"X-Jitvault-Op": "f" * 32})
    rig("operator", "status", file.stem)
    # the status itself leaves its canaries, and a renewal where one is due
    kinds = {kind for _, kind in set(rig.rows(others)) - before}
    assert kinds <= {"canary", "token_lookup", "renewed"}
    assert rig("operator", "complete", file.stem).json["confirmed"]


def test_what_was_read_in_a_wrapping_from_elsewhere_is_never_confirmed_over(rig: Rig, spec: Spec) -> None:
    file = spec()
    held = rig.active(file)
    rig("operator", "status", file.stem)
    with one_more_path(rig, file.stem, OTHER, "read"):
        status, answer = ask(rig, "GET", OTHER, held.token, headers={"X-Vault-Wrap-TTL": "60s"})
        assert status == 200
    _, opened = ask(rig, "GET", "cubbyhole/response", answer["wrap_info"]["token"])
    login = json.loads(opened["data"]["response"])["data"]["username"]
    with not_revocable(rig, login):
        ended = rig("operator", "complete", file.stem, code=6)
        assert ended.json["confirmed"] is False
        rig.settle()
        assert rig("operator", "status", file.stem, code=12).json["state"] == "ending"


def test_a_shipper_that_drops_the_agents_lines_is_noticed_before_the_seal(
    world: World, variables: dict[str, str], tmp_path: Path, spec: Spec
) -> None:
    mirror = Mirror(world.audit_file, tmp_path / "mirror.log")
    rig = own_rig(world, {**variables, "JITVAULT_AUDIT_FILE": str(mirror.path)}, tmp_path)
    try:
        file = spec()
        granted = rig.granted(file)
        mirror.keep = lambda line: PREFIX.encode() not in line
        held = rig.use(granted)
        with not_revocable(rig, held.login["user"]):
            rig("operator", "complete", file.stem, code=None)
            rig.settle()
            shown = rig("operator", "status", file.stem, code=12).json
            assert shown["state"] == "confirmed"
            assert [found["rule"] for found in shown["findings"]] == ["unaccounted_lease"]
    finally:
        mirror.close()
