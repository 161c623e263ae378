"""An agent that `agents add` registers logs in with nothing but what its host gives it, and acts as that agent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from attended import Attended, wait_for
from identities import ALONE, SPIFFE, Place, identities, registered, rig_of
from keys import Authority, Issuer
from rig import Rig
from workload_api import WorkloadApi, workload_api

from jitvault.errors import Denied, VaultRefused
from jitvault.provision.agent_login import agent_login
from jitvault.provision.agent_registration import add
from jitvault.settings import load
from jitvault.vault.client import Connection, Vault
from jitvault.wiring import Wiring

Spec = Callable[..., Path]
KINDS = ["spiffe", "file", "kubernetes", "github", "cert", "approle"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with identities(tmp_path_factory.mktemp("keys")) as found:
        yield found


@pytest.fixture(scope="module")
def api(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkloadApi]:
    with workload_api(tmp_path_factory.mktemp("s"), place.issuer, SPIFFE) as found:
        yield found


@pytest.fixture
def rig(place: Place, tmp_path: Path) -> Rig:
    return rig_of(place, tmp_path)


def entity(rig: Rig, name: str) -> str:
    return str((rig.admin.read(f"identity/entity/name/{name}") or {})["data"]["id"])


@pytest.mark.parametrize("kind", KINDS)
def test_an_agent_acts_under_its_own_login_and_leaves_no_token(
    rig: Rig, place: Place, api: WorkloadApi, spec: Spec, tmp_path: Path, kind: str
) -> None:
    name, there = registered(rig, place, api, kind, tmp_path)
    file = spec(more="  deliver: agent\n")
    file.write_text(file.read_text().replace("research-agent", name))
    rig("operator", "grant", file)
    alone = there | ALONE
    held = rig(None, "unwrap", file.stem, "--read", extra=alone).json
    assert held["task_id"] == file.stem and held["secrets"]
    rig(None, "complete", file.stem, "--wait", "0", extra=alone, code=13)
    rig("operator", "status", file.stem)
    assert rig.record(file.stem).task.end_reason == "completed"
    # a batch token is not stored, so there is none to be listed, found or revoked
    assert place.admin.list("sys/leases/lookup/auth/approle/login/") == []
    assert place.admin.list("sys/leases/lookup/auth/jwt/login/") == []
    assert place.admin.list("sys/leases/lookup/auth/cert/login/") == []


def test_a_token_of_the_login_is_a_batch_token_of_the_agent_and_no_more(
    rig: Rig, place: Place, api: WorkloadApi, tmp_path: Path
) -> None:
    name, there = registered(rig, place, api, "file", tmp_path)
    with rig.environment(None, there), closing(Wiring(load())) as wiring:
        me = wiring.caller
        token = wiring.person_token.token()  # type: ignore[union-attr]
    assert me.entity_id == entity(rig, name)
    facts = place.admin.write("auth/token/lookup", {"token": token.reveal()})["data"]
    assert (facts["type"], facts["policies"], facts["renewable"]) == ("batch", None, False)
    assert facts["identity_policies"] == ["jitvault-agent"] and 100 < facts["ttl"] <= 120


def test_a_login_lasts_longer_than_its_tokens(rig: Rig, place: Place, api: WorkloadApi, tmp_path: Path) -> None:
    name, there = registered(rig, place, api, "spiffe", tmp_path)
    rig("admin", "agents", "add", name, "--spiffe-id", SPIFFE, "--ttl", "60s")
    before = api.calls
    with rig.environment(None, there), closing(Wiring(load())) as wiring:
        login = wiring.person_token
        assert login is not None and not hasattr(login, "reveal")
        first = login.token()  # type: ignore[union-attr]
        assert login.token() is first and api.calls == before + 1  # type: ignore[union-attr]
        assert 25 < login.due() - time.monotonic() <= 30  # type: ignore[union-attr]


# -- whoever is not the agent -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "audience", "seconds"),
    [
        (SPIFFE + "/file/other", "vault", 60),
        (SPIFFE, "vault", 60),
        (SPIFFE + "/file", "elsewhere", 60),
        # Vault's defaults would accept it for two and a half minutes more
        (SPIFFE + "/file", "vault", -1),
    ],
    ids=["below", "above", "audience", "over"],
)
def test_another_jwt_of_the_same_issuer_is_refused(
    rig: Rig, place: Place, api: WorkloadApi, tmp_path: Path, subject: str, audience: str, seconds: float
) -> None:
    _, there = registered(rig, place, api, "file", tmp_path)
    Path(there["JITVAULT_AGENT_JWT_FILE"]).write_text(place.issuer.jwt(subject, audience=audience, seconds=seconds))
    refused = rig(None, "status", "some-task", extra=there | ALONE, code=10)
    assert "the agent's login by JWT was refused" in refused.error["message"]
    assert "docs/agents.md" in refused.error["hint"]


def test_a_jwt_of_another_issuer_is_refused(rig: Rig, place: Place, api: WorkloadApi, tmp_path: Path) -> None:
    _, there = registered(rig, place, api, "file", tmp_path)
    forged = Issuer(elliptic=True).jwt(SPIFFE + "/file", audience="vault", seconds=60)
    Path(there["JITVAULT_AGENT_JWT_FILE"]).write_text(forged)
    rig(None, "status", "some-task", extra=there | ALONE, code=10)


def test_an_identity_and_a_token_are_not_both_used(rig: Rig, place: Place, api: WorkloadApi, tmp_path: Path) -> None:
    _, there = registered(rig, place, api, "file", tmp_path)
    refused = rig("agent", "status", "some-task", extra=there | ALONE, code=2)
    assert "VAULT_TOKEN and JITVAULT_AGENT_LOGIN are both set" in refused.error["message"]


# -- the Workload API -------------------------------------------------------------------------------------------------


def test_a_workload_api_that_fails_is_said_in_words_and_in_time(
    rig: Rig, place: Place, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    there = {"JITVAULT_AGENT_LOGIN": "spiffe", "JITVAULT_AGENT_LOGIN_ROLE": "spiffe-bot", **ALONE}
    status = ("status", "some-task")
    missing = rig(None, *status, extra=there, code=2)
    assert "needs JITVAULT_AGENT_LOGIN_AUDIENCE" in missing.error["message"]
    there["JITVAULT_AGENT_LOGIN_AUDIENCE"] = "vault"
    missing = rig(None, *status, extra=there | {"SPIFFE_ENDPOINT_SOCKET": ""}, code=2)
    assert "SPIFFE_ENDPOINT_SOCKET is not set" in missing.error["message"]
    wrong = rig(None, *status, extra=there | {"SPIFFE_ENDPOINT_SOCKET": "http://example.org"}, code=2)
    assert wrong.error["message"].startswith("SPIFFE_ENDPOINT_SOCKET: ")
    with workload_api(tmp_path_factory.mktemp("s"), place.issuer, None) as api:
        there["SPIFFE_ENDPOINT_SOCKET"] = api.address
        nobody = rig(None, *status, extra=there, code=5)
        assert "the Workload API gave no JWT-SVID" in nobody.error["message"]
        assert "no identity issued" in nobody.error["message"]
        api.answer(SPIFFE, audience="another")
        assert "gave no JWT-SVID" in rig(None, *status, extra=there, code=5).error["message"]
        # it hangs: what it would have said is not waited for
        api.answer(SPIFFE, delay_s=30)
        begun = time.monotonic()
        rig(None, *status, extra=there, code=5)
        assert 4 < time.monotonic() - begun < 20
    gone = rig(None, *status, extra=there, code=5)
    assert "failed to connect" in gone.error["message"] and "Is the SPIFFE agent" in gone.error["hint"]
    Path(there["SPIFFE_ENDPOINT_SOCKET"].removeprefix("unix://")).unlink()
    missing = rig(None, *status, extra=there, code=2)
    assert "does not exist" in missing.error["message"] and "start the SPIFFE agent" in missing.error["hint"]


def test_two_threads_log_in_once(rig: Rig, place: Place, api: WorkloadApi, tmp_path: Path) -> None:
    _, there = registered(rig, place, api, "spiffe", tmp_path)
    with rig.environment(None, there), closing(Wiring(load())) as wiring:
        before, tokens = api.calls, []
        others = [wiring.for_thread() for _ in range(4)]
        threads = [threading.Thread(target=lambda w=w: tokens.append(w.person_token.token())) for w in others]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({token.reveal() for token in tokens}) == 1 and api.calls == before + 1


# -- who becomes whom -------------------------------------------------------------------------------------------------


def test_two_agents_never_become_one(rig: Rig, place: Place, api: WorkloadApi, tmp_path: Path) -> None:
    registered(rig, place, api, "file", tmp_path)
    refused = rig("admin", "agents", "add", "second-bot", "--spiffe-id", SPIFFE + "/file", code=3)
    assert f"the subject {SPIFFE}/file at auth/jwt/ is the entity file-bot" in refused.error["message"]
    registered(rig, place, api, "cert", tmp_path)
    ca = ("--ca", str(place.authority.file))
    refused = rig("admin", "agents", "add", "second-bot", "--cert-cn", "cert-bot", *ca, code=3)
    assert "the common name cert-bot at auth/cert/" in refused.error["message"]
    assert rig.admin.read("auth/jwt/role/second-bot") is None and rig.admin.read("auth/cert/certs/second-bot") is None
    assert rig.admin.read("identity/entity/name/second-bot") is None


def test_a_role_by_which_another_could_log_in_as_the_agent_is_refused(
    rig: Rig, place: Place, api: WorkloadApi, tmp_path: Path
) -> None:
    registered(rig, place, api, "file", tmp_path)
    registered(rig, place, api, "cert", tmp_path)
    other = Authority(tmp_path / "other", "another authority")
    place.admin.write("auth/cert/certs/anybody", {"certificate": other.file.read_text()}, method="post")
    body = {"role_type": "jwt", "user_claim": "email", "bound_audiences": ["vault"]}
    place.admin.write("auth/jwt/role/people", body, method="post")
    try:
        agents = {agent["name"]: agent for agent in rig("admin", "agents", "list").json["agents"]}
        assert "the role people names entities by the claim email" in agents["file-bot"]["problems"][0]
        assert "the role anybody trusts another CA" in agents["cert-bot"]["problems"][0]
        # it is so: a certificate of the other CA is this agent
        twin = other.issue("cert-bot", has_names=False)
        tls = {"VAULT_CLIENT_CERT": str(twin.certificate), "VAULT_CLIENT_KEY": str(twin.key)}
        there = {"JITVAULT_AGENT_LOGIN": "cert", "JITVAULT_AGENT_LOGIN_ROLE": "anybody", **tls}
        with rig.environment(None, there), closing(Wiring(load())) as wiring:
            assert wiring.caller.entity_id == entity(rig, "cert-bot")
        refused = rig("admin", "agents", "add", "third-bot", "--spiffe-id", SPIFFE + "/third", code=3)
        assert "the role people names entities by the claim email" in refused.error["message"]
        ca = ("--ca", str(place.authority.file))
        rig("admin", "agents", "add", "third-bot", "--cert-cn", "third-bot", *ca, code=3)
        assert rig.admin.read("identity/entity/name/third-bot") is None
    finally:
        place.admin.delete("auth/cert/certs/anybody")
        place.admin.delete("auth/jwt/role/people")


def test_an_agent_that_is_removed_is_refused_at_once(
    rig: Rig, place: Place, api: WorkloadApi, spec: Spec, tmp_path: Path
) -> None:
    name, there = registered(rig, place, api, "file", tmp_path)
    file = spec(more="  deliver: agent\n")
    file.write_text(file.read_text().replace("research-agent", name))
    rig("operator", "grant", file)
    with rig.environment(None, there), closing(Wiring(load())) as wiring:
        token = wiring.person_token.token()  # type: ignore[union-attr]
    assert rig("admin", "agents", "remove", name).json["name"] == name
    held = Vault(Connection(place.world.address), token)
    with pytest.raises(VaultRefused):
        held.read(f"jitvault/data/tasks/{file.stem}")
    rig(None, "status", "some-task", extra=there | ALONE, code=10)
    assert rig.admin.read(f"identity/entity/name/{name}") is None
    assert name not in [agent["name"] for agent in rig("admin", "agents", "list").json["agents"]]
    assert rig("admin", "agents", "remove", name, code=9).error["message"] == f"there is no agent {name}"
    # what it holds ends with it
    rig("operator", "status", file.stem)
    assert rig.record(file.stem).task.end_reason in ("policy", "drift")


# -- an agent asks for itself -----------------------------------------------------------------------------------------


def own_spec(spec: Spec, name: str, **how: str) -> Path:
    file = spec(**how)
    file.write_text(file.read_text().replace("research-agent", name))
    return file


def test_an_agent_asks_takes_and_gives_back_without_an_operator(
    rig: Rig, place: Place, api: WorkloadApi, spec: Spec, tmp_path: Path
) -> None:
    name, there = registered(rig, place, api, "spiffe", tmp_path)
    alone = there | ALONE
    to_agent = "  deliver: agent\n"
    low = own_spec(spec, name, more=to_agent)
    medium = own_spec(spec, name, criticality="medium", more=to_agent)
    with Attended(rig):
        granted = rig(None, "grant", low, extra=alone).json
        assert granted["task_id"] == low.stem
        waits = rig(None, "grant", medium, extra=alone, code=4)
        assert "approv" in waits.error["message"]
        # who asks never approves, and it asks for nobody else
        rig(None, "approve", medium.stem, "--yes", extra=alone, code=None)
        not_mine = own_spec(spec, "research-agent")
        denied = rig(None, "grant", not_mine, extra=alone | {"JITVAULT_POLICIES": ""}, code=3).error
        # the policies that ship are not what decided
        assert "are the worker's, and are not on this host" in denied["hint"] and not_mine.stem in denied["hint"]
        assert f"{name} asks, the spec is for research-agent, and an agent asks for itself" in denied["message"]
        rig("approver-1", "approve", medium.stem, "--yes", extra=ALONE)
        rig(None, "grant", medium.stem, extra=alone)
        # the token waits in its own inbox: `grant` has not taken it
        assert granted["wrapping"] == []
        assert rig(None, "unwrap", low.stem, "--read", extra=alone).json["secrets"]
        more = rig(None, "extend", low.stem, "--for", "20m", "--reason", "one is left", extra=alone, code=None)
        assert more.code == 0, more
        rig(None, "complete", low.stem, extra=alone)
    assert rig.record(low.stem).task.end_reason == "completed"
    assert "agents-ask" in rig.record(medium.stem).revision.decision["rules"]


def test_an_agents_host_needs_no_templates_it_asks_by_those_of_the_worker(
    rig: Rig, place: Place, api: WorkloadApi, tmp_path: Path
) -> None:
    _, there = registered(rig, place, api, "file", tmp_path)
    alone = there | ALONE | {"JITVAULT_TEMPLATES": ""}
    # the shipped ones, where no worker has published any
    assert "postgres-readonly" in rig(None, "templates", "list", extra=alone).stdout
    templates = tmp_path / "templates"
    templates.mkdir()
    shipped = (Path(rig.cli.variables["JITVAULT_TEMPLATES"]) / "postgres-readonly.yaml").read_text()
    (templates / "orders.yaml").write_text(shipped.replace("name: postgres-readonly", "name: only-orders"))
    rig.cli.variables["JITVAULT_TEMPLATES"] = str(templates)
    with Attended(rig) as worker:
        drafted = tmp_path / "orders.yaml"
        words = ("--agent", "file-bot", "--intent", "Count the orders.", "--out", str(drafted))
        made = rig.cli(None, "spec", "new", "only-orders", *words, extra=alone)
        assert f"Next: `jitvault exec {drafted} --preset postgres -- CMD`" in made.stderr
        assert "- template: only-orders" in drafted.read_text()
        unknown = rig(None, "spec", "new", "postgres-readonly", extra=alone, code=9)
        assert "there is no template" in unknown.stderr
        assert worker.log.all_of("published the templates") == [{"templates": 1}]
        worker.started.reload()
        assert len(worker.log.all_of("published the templates")) == 1


def test_a_token_that_its_agent_revokes_ends_its_task_at_once(rig: Rig, spec: Spec) -> None:
    """As an agent that is killed does: it has no time to sign anything."""
    held = rig.active(file := spec())
    with Attended(rig):
        wait_for(lambda: rests(rig, file.stem))
        rig.vault(held.token).write("auth/token/revoke-self")
        wait_for(lambda: rig.record(file.stem).leases[0].dead_at, 10)
    task = rig.record(file.stem).task
    assert task.end_reason == "completed"


def rests(rig: Rig, task_id: str) -> bool:
    """Whether the task had no turn for a second, and the next one comes after a while."""
    before = rig.record(task_id).task
    time.sleep(1)
    return rig.record(task_id).task == before and before.due_at - datetime.now(UTC) > timedelta(seconds=20)


def test_a_role_that_was_there_before_is_nobodys_agent(rig: Rig, place: Place) -> None:
    """Whoever has a secret id of it would be the agent."""
    place.admin.write("auth/approle/role/deploy", {"token_policies": ["default"]}, method="post")
    refused = rig("admin", "agents", "add", "deploy", "--approle", code=3)
    assert "there is a role deploy at auth/approle/ that `agents add` did not make" in refused.error["message"]
    assert rig.admin.read("identity/entity/name/deploy") is None
    place.admin.delete("auth/approle/role/deploy")


def test_a_login_that_is_bound_to_a_network_stays_so_until_that_is_lifted(rig: Rig, place: Place) -> None:
    bound = ("admin", "agents", "add", "bound-bot", "--approle")
    added = rig.cli(*bound, "--cidr", "10.0.4.7/32")
    assert (
        "-field=secret_id auth/approle/role/bound-bot/secret-id\n" in added.stdout and "as before" not in added.stderr
    )
    again = rig.cli(*bound)
    assert "bound-bot logs in from 10.0.4.7 alone, as before. --cidr 0.0.0.0/0 --cidr ::/0 lifts" in again.stderr
    role = (place.admin.read("auth/approle/role/bound-bot") or {})["data"]
    assert (role["token_bound_cidrs"], role["secret_id_bound_cidrs"]) == (["10.0.4.7"], ["10.0.4.7/32"])
    lifted = rig(*bound, "--cidr", "0.0.0.0/0", "--cidr", "::/0").json
    assert lifted["cidrs"] == ["0.0.0.0/0", "::/0"]
    rig("admin", "agents", "remove", "bound-bot")


def test_only_what_agents_add_made_is_changed_or_removed(rig: Rig) -> None:
    for command in (("add", "operator", "--approle"), ("remove", "research-agent")):
        assert "agents add" in rig("admin", "agents", *command, code=9).error["message"]
    listed = {agent["name"]: agent for agent in rig("admin", "agents", "list").json["agents"]}
    assert listed["research-agent"]["kind"] is None


# -- many at once -----------------------------------------------------------------------------------------------------


def test_many_agents_are_registered_at_once_and_one_that_fails_stops_no_other(
    rig: Rig, place: Place, tmp_path: Path
) -> None:
    place.admin.write("auth/approle/role/many-2", {"token_policies": ["default"]}, method="post")
    names = tmp_path / "names"
    names.write_text("many-2\n\nmany-3\nmany-1\nNobody\n")
    before = rig.world.audit_file.stat().st_size
    found = rig("admin", "agents", "add", "many-1", "--names", names, "--approle", code=3)
    lines = rig.world.audit_file.read_bytes()[before:].splitlines()
    assert [agent["name"] for agent in found.json["agents"]] == ["many-1", "many-3"]
    for agent in found.json["agents"]:
        assert (agent["kind"], agent["problems"]) == ("approle", [])
        assert agent["environment"]["JITVAULT_AGENT_ROLE_ID"] == agent["subject"]
    why = {each["name"]: each["error"] for each in found.json["failed"]}
    assert list(why) == ["many-2", "Nobody"]
    assert "there is a role many-2 at auth/approle/" in why["many-2"] and "expected a name" in why["Nobody"]
    assert "2 of 4 agents are not registered" in found.error["message"]
    # what they share is asked once, whoever they are
    shared = [line for line in lines if b'"type":"request"' in line and b'"path":"identity/group/name/' in line]
    assert len(shared) == 3
    listed = {agent["name"] for agent in rig("admin", "agents", "list").json["agents"]}
    assert {"many-1", "many-3"} <= listed and "many-2" not in listed
    text = rig.cli("admin", "agents", "add", "many-1", "many-2", "--approle", code=3).stdout
    assert "many-1" in text and "not registered: nothing was written: there is a role many-2" in text
    for name in ("many-1", "many-3"):
        rig("admin", "agents", "remove", name)
    place.admin.delete("auth/approle/role/many-2")


def test_each_of_many_agents_has_an_identity_of_its_own(rig: Rig, place: Place) -> None:
    add = ("admin", "agents", "add", "twin-1", "twin-2", "--spiffe-id")
    refused = rig(*add, SPIFFE + "/twin", code=2)
    assert "the agents would be one" in refused.error["message"]
    agents = rig(*add, SPIFFE + "/{name}").json["agents"]
    assert [agent["subject"] for agent in agents] == [SPIFFE + "/twin-1", SPIFFE + "/twin-2"]
    assert [agent["problems"] for agent in agents] == [[], []]
    for name in ("twin-1", "twin-2"):
        rig("admin", "agents", "remove", name)


def test_one_agent_of_a_run_is_not_another_of_it(rig: Rig, place: Place) -> None:
    """Neither is there before: only what the run itself wrote shows it."""
    login = agent_login("spiffe", SPIFFE + "/same")
    other = agent_login("spiffe", SPIFFE + "/SAME")
    found = add(place.admin, {"first-bot": login, "other-bot": other}, keeps_networks=False)
    assert [agent.name for agent in found.agents] == ["first-bot"]
    assert isinstance(found.failed["other-bot"], Denied)
    rig("admin", "agents", "remove", "first-bot")
