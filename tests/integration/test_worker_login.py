"""The worker's own identity on a real OpenBao: every way in, TLS, renewal, and what is refused."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from go_between import Fate, GoBetween
from keys import Authority, Issuer, Pair
from rig import Rig, own_rig
from stage import staged

from jitvault.errors import JitvaultError, OutcomeUnknown, VaultRefused, VaultUnavailable
from jitvault.formats.secret import Secret
from jitvault.lifecycle.advance import advance
from jitvault.model.states import State
from jitvault.sandbox.processes import free_port
from jitvault.sandbox.vault_server import VaultServer
from jitvault.sandbox.world import World, env
from jitvault.settings import load
from jitvault.vault import login as logins
from jitvault.vault.active_node import ActiveNode
from jitvault.vault.auth_methods import WORKER, AppRole, FromFile, Jwt, StaticValue, TokenFile
from jitvault.vault.client import Connection, Vault
from jitvault.vault.login import Login
from jitvault.vault.transit import AuditHash
from jitvault.wiring import Wiring

Spec = Callable[..., Path]

SPIFFE = "spiffe://example.org/jitvault/worker"
AUDIENCE = "vault"
ROLE = {"token_policies": ["jitvault-worker"], "token_no_default_policy": True, "token_type": "service"}
SECRET_ID = "auth/approle/role/worker/secret-id"


@dataclass
class Place:
    """A world with a TLS listener besides the plain one, and a worker's role in each auth method."""

    world: World
    between: GoBetween
    tls_address: str
    authority: Authority
    client: Pair
    issuer: Issuer

    @property
    def admin(self) -> Vault:
        return Vault(Connection(self.world.address), self.world.admin_token)

    def role_id(self, role: str = "worker") -> str:
        return str((self.admin.read(f"auth/approle/role/{role}/role-id") or {})["data"]["role_id"])

    def secret_id(self, role: str = "worker", *, wrap: int | None = None) -> str:
        """A secret id, or with `wrap` what unwraps it once."""
        answer = self.admin.write(f"auth/approle/role/{role}/secret-id", wrap_ttl_s=wrap)
        return str(answer["wrap_info"]["token"] if wrap else answer["data"]["secret_id"])

    def approle(self, **settings: Any) -> AppRole:
        """Through a role of its own, whose tokens live as `settings` say."""
        role = f"r{time.monotonic_ns()}"
        self.admin.write(f"auth/approle/role/{role}", {**ROLE, **settings}, method="post")
        return AppRole(
            WORKER, "approle", StaticValue(Secret(self.role_id(role))), StaticValue(Secret(self.secret_id(role))), None
        )

    def alive(self) -> int:
        """How many tokens of the worker's logins live."""
        mounts = ("approle", "jwt", "cert")
        found = (self.admin.list(f"sys/leases/lookup/auth/{mount}/login/") for mount in mounts)
        return sum(len(names) for names in found)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    authority, port = Authority(tmp_path_factory.mktemp("keys")), free_port()
    server = authority.issue("vault.test", address="127.0.0.1")
    listener = f"""
listener "tcp" {{
  address = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{free_port(port)}"
  tls_cert_file = "{server.certificate}"
  tls_key_file = "{server.key}"
}}
"""
    with staged(lambda directory: VaultServer(directory, more_configuration=listener)) as stage:
        client = authority.issue("worker.test")
        found = Place(stage.world, stage.between, f"https://127.0.0.1:{port}", authority, client, Issuer())
        _roles(found)
        yield found


def _roles(place: Place) -> None:
    admin = place.admin
    for method in ("approle", "jwt", "cert"):
        admin.write(f"sys/auth/{method}", {"type": method}, method="post")
    admin.write("auth/approle/role/worker", {**ROLE, "token_ttl": "1h"}, method="post")
    keys = {"jwt_validation_pubkeys": [place.issuer.public_key], "jwt_supported_algs": ["EdDSA"]}
    admin.write("auth/jwt/config", keys, method="post")
    bound = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": [AUDIENCE], "bound_subject": SPIFFE}
    admin.write("auth/jwt/role/worker", {**ROLE, **bound}, method="post")
    trusted = {"certificate": place.authority.file.read_text(), "allowed_dns_sans": ["worker.test"]}
    admin.write("auth/cert/certs/worker", {**ROLE, **trusted}, method="post")


@pytest.fixture
def rig(place: Place, tmp_path: Path) -> Rig:
    """A rig over TLS without a worker's identity: each test says how the worker logs in."""
    variables = {**env(place.world, "", Path("none")), "VAULT_ADDR": place.tls_address, "JITVAULT_WORKER_TOKEN": ""}
    variables |= {"VAULT_CACERT": str(place.authority.file), "JITVAULT_SHARED_HOSTS": ""}
    return own_rig(place.world, variables, tmp_path)


@pytest.fixture
def ways(place: Place, tmp_path: Path) -> dict[str, dict[str, str]]:
    """The environment of each way in."""
    jwt, secret = tmp_path / "svid.jwt", tmp_path / "secret-id"
    jwt.write_text(place.issuer.jwt(SPIFFE, audience=AUDIENCE, seconds=60))
    secret.write_text(place.secret_id() + "\n")
    wrapped, token = tmp_path / "wrapped", tmp_path / "token"
    wrapped.write_text(place.secret_id(wrap=60))
    token.write_text(place.world.worker_token.reveal())
    approle = {"JITVAULT_WORKER_LOGIN": "approle", "JITVAULT_WORKER_ROLE_ID": place.role_id()}
    return {
        "approle": approle | {"JITVAULT_WORKER_SECRET_ID_FILE": str(secret)},
        "wrapped": approle
        | {"JITVAULT_WORKER_SECRET_ID_FILE": str(wrapped), "JITVAULT_WORKER_SECRET_ID_WRAPPED_FROM": SECRET_ID},
        "jwt": {
            "JITVAULT_WORKER_LOGIN": "jwt",
            "JITVAULT_WORKER_LOGIN_ROLE": "worker",
            "JITVAULT_WORKER_JWT_FILE": str(jwt),
        },
        "cert": {
            "JITVAULT_WORKER_LOGIN": "cert",
            "VAULT_CLIENT_CERT": str(place.client.certificate),
            "VAULT_CLIENT_KEY": str(place.client.key),
        },
        "token file": {"JITVAULT_WORKER_TOKEN_FILE": str(token)},
    }


# -- every way in -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["approle", "wrapped", "jwt", "cert", "token file"])
def test_a_command_logs_in_is_known_and_leaves_no_token(
    rig: Rig, place: Place, ways: dict[str, dict[str, str]], way: str
) -> None:
    before = place.alive()
    # nobody shares the worker's address here: the unwrap of its own secret id must not freeze anything
    found = rig(None, "audit", "status", extra=ways[way]).json
    assert (found["state"], found["frozen"]) == ("trusted", None)
    assert place.alive() == before
    assert len(rig.rows("SELECT accessor_hmac FROM worker_sessions")) == 1
    # a token that was given is not ours to end
    assert place.admin.write("auth/token/lookup", {"token": place.world.worker_token.reveal()})["data"]["ttl"] > 0


def test_a_wrapping_that_somebody_opened_before_is_a_finding(
    rig: Rig, place: Place, ways: dict[str, dict[str, str]]
) -> None:
    wrapped = Path(ways["wrapped"]["JITVAULT_WORKER_SECRET_ID_FILE"])
    nobody = Vault(Connection(place.world.address), Secret(wrapped.read_text()))
    stolen = nobody.write("sys/wrapping/unwrap")["data"]["secret_id"]
    refused = rig(None, "audit", "status", extra=ways["wrapped"], code=12)
    assert "unwrapped before" in refused.error["message"] and "destroy the secret id" in refused.error["hint"]
    assert wrapped.read_text() not in refused.stderr and stolen not in refused.stderr


def test_a_wrapping_of_something_else_is_not_opened(rig: Rig, place: Place, ways: dict[str, dict[str, str]]) -> None:
    planted = place.admin.write("sys/wrapping/wrap", {"secret_id": "planted"}, wrap_ttl_s=60)["wrap_info"]["token"]
    Path(ways["wrapped"]["JITVAULT_WORKER_SECRET_ID_FILE"]).write_text(planted)
    refused = rig(None, "audit", "status", extra=ways["wrapped"], code=12)
    assert "somebody replaced it" in refused.error["message"]
    # it is still there to be looked into
    assert place.admin.write("sys/wrapping/lookup", {"token": planted})["data"]["creation_path"] == "sys/wrapping/wrap"


@pytest.mark.parametrize(
    ("way", "spoil"),
    [
        ("approle", {"JITVAULT_WORKER_ROLE_ID": "nobody"}),
        ("jwt", {"JITVAULT_WORKER_LOGIN_ROLE": "nobody"}),
        ("cert", {"JITVAULT_WORKER_LOGIN_ROLE": "nobody"}),
        ("approle", {"JITVAULT_WORKER_LOGIN_MOUNT": "nowhere"}),
    ],
)
def test_a_login_that_vault_refuses_is_exit_10(
    rig: Rig, ways: dict[str, dict[str, str]], way: str, spoil: dict[str, str]
) -> None:
    refused = rig(None, "audit", "status", extra=ways[way] | spoil, code=10)
    assert "the worker's login by" in refused.error["message"]


@pytest.mark.parametrize(
    "half",
    [
        {"JITVAULT_WORKER_LOGIN": "approle", "JITVAULT_WORKER_ROLE_ID": "x"},
        {"JITVAULT_WORKER_LOGIN": "approle", "JITVAULT_WORKER_SECRET_ID": "x"},
        {"JITVAULT_WORKER_LOGIN": "jwt"},
        {"JITVAULT_WORKER_LOGIN": "cert"},
        {"JITVAULT_WORKER_LOGIN": "cert", "JITVAULT_WORKER_TOKEN": "x"},
        {"JITVAULT_WORKER_TOKEN_FILE": "/nowhere/token"},
        {"JITVAULT_WORKER_LOGIN": "password"},
    ],
)
def test_half_an_identity_and_two_are_refused(rig: Rig, half: dict[str, str]) -> None:
    assert rig(None, "audit", "status", extra=half, code=2).error["message"].startswith("JITVAULT_WORKER_")


# -- TLS ----------------------------------------------------------------------------------------------------------


def test_only_the_authority_that_was_named_is_believed(
    rig: Rig, place: Place, ways: dict[str, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, many = Authority(tmp_path / "other", "another authority"), tmp_path / "many"
    many.mkdir()
    status = ("audit", "status")
    refused = rig(None, *status, extra=ways["approle"] | {"VAULT_CACERT": ""}, code=5)
    # one that is public is believed where none is named, and not besides one that is
    monkeypatch.setattr("jitvault.vault.tls.where", lambda: str(place.authority.file))
    for untrusted in ({"VAULT_CACERT": str(other.file)}, {"VAULT_TLS_SERVER_NAME": "x.test"}):
        refused = rig(None, *status, extra=ways["approle"] | untrusted, code=5)
        assert "no TLS with Vault" in refused.error["message"] and "VAULT_CACERT" in refused.error["hint"]
    rig(None, *status, extra=ways["approle"] | {"VAULT_TLS_SERVER_NAME": "vault.test"})
    # a directory of files of any name
    directory = ways["approle"] | {"VAULT_CACERT": "", "VAULT_CAPATH": str(many)}
    rig(None, *status, extra=directory, code=2)
    (many / "a").write_bytes(other.file.read_bytes())
    rig(None, *status, extra=directory, code=5)
    (many / "b").write_bytes(place.authority.file.read_bytes())
    rig(None, *status, extra=directory)
    for wrong in ({"VAULT_CACERT": "/nowhere"}, {"VAULT_CACERT": str(place.client.key)}, {"VAULT_SKIP_VERIFY": "1"}):
        assert rig(None, *status, extra=ways["approle"] | wrong, code=2).error["message"].startswith("VAULT_")


def test_a_client_certificate_that_is_replaced_is_shown_anew(rig: Rig, place: Place, tmp_path: Path) -> None:
    pair = place.authority.issue("somebody.test", file="rotating")
    paths = {"VAULT_CLIENT_CERT": str(pair.certificate), "VAULT_CLIENT_KEY": str(pair.key)}
    with rig.environment(None, {"JITVAULT_WORKER_LOGIN": "cert", **paths}):
        wiring = Wiring(load())
    with contextlib.closing(wiring):
        with pytest.raises(VaultRefused, match="TLS certificate was refused"):
            wiring.login.token()
        # the same files, as a sidecar replaces them
        place.authority.issue("worker.test", file="rotating")
        assert wiring.worker.tokens.lookup_self().policies == ("jitvault-worker",)


@pytest.mark.needs("namespaces")
def test_the_login_may_be_in_the_root_namespace(
    rig: Rig, place: Place, ways: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    place.admin.write("sys/namespaces/team")
    place.admin.write("sys/policies/acl/of-team", {"policy": 'path "team/sys/mounts" { capabilities = ["read"] }'})
    place.admin.write("auth/approle/role/worker", {"token_policies": ["jitvault-worker", "of-team"]}, method="post")
    try:
        with rig.environment(None, ways["approle"] | {"VAULT_NAMESPACE": "team"}):
            there = Wiring(load())
            monkeypatch.setenv("JITVAULT_WORKER_LOGIN_NAMESPACE", "root")
            above = Wiring(load())
        with pytest.raises(VaultRefused, match="login by AppRole"):
            there.login.token()
        with contextlib.closing(above):
            vault = above.vault(above.login)
            assert vault.read("sys/mounts") and AuditHash(vault, "jitvault").hash("x").startswith("hmac-sha256:")
    finally:
        place.admin.write("auth/approle/role/worker", {"token_policies": ["jitvault-worker"]}, method="post")


# -- what is sent again -------------------------------------------------------------------------------------------


def test_an_act_whose_answer_was_lost_is_not_sent_to_another_node(place: Place) -> None:
    # two ways to one Vault, as to two nodes
    connection = Connection(place.between.address)
    node = ActiveNode(connection, [place.world.address])
    vault = Vault(replace(connection, node=node), place.world.admin_token)
    place.between.when("PUT cubbyhole/lost", "after", place.between.down, Fate.LOSE)
    try:
        with pytest.raises(OutcomeUnknown):
            vault.write("cubbyhole/lost", {"n": 1})
        with contextlib.closing(vault):
            # what nobody took is another thing
            vault.write("cubbyhole/taken", {"n": 1})
    finally:
        place.between.up()
    assert node.address() == place.world.address
    lines = [json.loads(line) for line in place.world.audit_file.read_text().splitlines()]
    asked = Counter(line["request"]["path"] for line in lines if line["type"] == "request")
    assert (asked["cubbyhole/lost"], asked["cubbyhole/taken"]) == (1, 1)


# -- a token's life -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def holding(place: Place, method: Any) -> Iterator[tuple[Login, Vault, list[str]]]:
    """A login, somebody who uses it, and the accessors of the tokens that were told of."""
    told: list[str] = []
    connection = Connection(place.world.address)
    login = Login(connection, method)
    login.introduce(lambda vault: told.append((vault.read("auth/token/lookup-self") or {})["data"]["accessor"]))
    with contextlib.closing(login):
        yield login, Vault(connection, login), told


def whose(vault: Vault) -> str:
    return str((vault.read("auth/token/lookup-self") or {})["data"]["accessor"])


def test_it_is_renewed_and_replaced_before_its_end(place: Place) -> None:
    before = place.alive()
    with holding(place, place.approle(token_ttl="2s", token_max_ttl="3s")) as (login, vault, told):
        begin = time.monotonic()
        while time.monotonic() - begin < 5:
            # nothing that is asked meets a token that is over, or one that nobody was told of
            assert whose(vault) == told[-1]
            assert login.due() > time.monotonic() - 1
            time.sleep(0.02)
        # one that was renewed was told of again
        assert 2 <= len(set(told)) < len(told)
        assert place.alive() == before + 1
    assert place.alive() == before


def test_threads_share_one_login(place: Place) -> None:
    before, failed = place.alive(), list[JitvaultError]()
    with holding(place, place.approle(token_ttl="2s", token_max_ttl="2s")) as (login, vault, told):

        def work() -> None:
            own, end = Vault(vault.connection, login), time.monotonic() + 4
            with contextlib.closing(own):
                while time.monotonic() < end:
                    try:
                        whose(own)
                    except JitvaultError as error:
                        failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (failed, place.alive()) == ([], before + 1)
        assert 3 <= len(set(told)) <= 8


def test_a_token_that_was_ended_is_replaced_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "LOGIN_PAUSE_S", 0.0)
    with holding(place, place.approle()) as (_, vault, told):
        place.admin.write("auth/token/revoke-accessor", {"accessor": told[0]})
        assert whose(vault) == told[1]
        # what it may not do is no reason to log in again
        with pytest.raises(VaultRefused, match="sys/mounts"):
            vault.read("sys/mounts")
        assert len(told) == 2
        monkeypatch.setattr(logins, "LOGIN_PAUSE_S", 60.0)
        place.admin.write("auth/token/revoke-accessor", {"accessor": told[1]})
        with pytest.raises(VaultUnavailable, match="does not know the worker's token"):
            whose(vault)


def test_what_the_next_token_grants_freezes_nothing(
    rig: Rig, place: Place, ways: dict[str, dict[str, str]], spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logins, "LOGIN_PAUSE_S", 0.0)
    file = spec()
    with rig.environment(None, ways["approle"]):
        wiring = Wiring(load())
    with contextlib.closing(wiring):
        worker = wiring.worker
        rig("operator", "grant", file, "--wait", "0", code=13)
        place.admin.write("auth/token/revoke-accessor", {"accessor": worker.tokens.lookup_self().accessor})
        assert advance(worker, file.stem, hint=rig.entity("operator")).task.state is State.ISSUED
    # both tokens were told of before they did anything
    assert len(rig.rows("SELECT accessor_hmac FROM worker_sessions")) == 2
    found = rig(None, "audit", "status", extra=ways["approle"]).json
    assert (found["state"], found["frozen"]) == ("trusted", None)
    ended = rig("operator", "complete", file.stem, extra=ways["approle"], code=None).json
    assert (ended["confirmed"], rig.findings(file.stem)) == (True, [])


def test_a_worker_who_is_disabled_gets_nowhere(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "LOGIN_PAUSE_S", 0.0)
    with holding(place, place.approle()) as (_, vault, told):
        me = (vault.read("auth/token/lookup-self") or {})["data"]["entity_id"]
        place.admin.write(f"identity/entity/id/{me}", {"disabled": True})
        with pytest.raises(VaultRefused, match="login by AppRole was refused"):
            whose(vault)
        place.admin.write(f"identity/entity/id/{me}", {"disabled": False})
        assert whose(vault) == told[-1]


def test_a_jwt_is_read_anew_for_each_login(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "LOGIN_PAUSE_S", 0.0)
    monkeypatch.setattr(logins, "_TRY_AGAIN_S", 0.1)
    role = {**ROLE, "role_type": "jwt", "user_claim": "sub", "bound_audiences": [AUDIENCE], "token_max_ttl": "4s"}
    place.admin.write("auth/jwt/role/short", role | {"clock_skew_leeway": -1, "expiration_leeway": -1}, method="post")
    file = tmp_path / "svid.jwt"
    file.write_text(place.issuer.jwt(SPIFFE, audience=AUDIENCE, seconds=2))
    with holding(place, Jwt(WORKER, "jwt", "short", FromFile(file, "X"))) as (login, vault, told):
        time.sleep(3)
        # the JWT is over and the token is not: it is used on, and why is kept
        assert whose(vault) == told[0]
        assert isinstance(login.trouble, VaultRefused)
        file.write_text(place.issuer.jwt(SPIFFE, audience=AUDIENCE, seconds=60))
        time.sleep(0.5)
        assert whose(vault) == told[-1] != told[0], login.trouble
        assert login.trouble is None


def test_a_token_file_that_is_replaced_is_read_again(place: Place, tmp_path: Path) -> None:
    def made() -> str:
        body = {"policies": ["jitvault-worker"], "no_default_policy": True, "ttl": "60s", "no_parent": True}
        return str(place.admin.write("auth/token/create", body)["auth"]["client_token"])

    file, tokens = tmp_path / "token", (made(), made())
    file.write_text(tokens[0])
    with holding(place, TokenFile(FromFile(file, "JITVAULT_WORKER_TOKEN_FILE"))) as (_, vault, told):
        whose(vault)
        # as an agent's sink does it
        new = tmp_path / "token.new"
        new.write_text(tokens[1])
        new.replace(file)
        assert whose(vault) == told[1] != told[0]
        # a file that makes no sense for a moment ends nothing
        file.write_text("")
        assert whose(vault) == told[1]
        file.write_text(tokens[0])
        place.admin.write("auth/token/revoke", {"token": tokens[1]})
        assert whose(vault) == told[0]
        place.admin.write("auth/token/revoke", {"token": tokens[0]})
        with pytest.raises(VaultRefused, match="JITVAULT_WORKER_TOKEN_FILE was refused"):
            whose(vault)
