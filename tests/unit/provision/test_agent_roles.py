"""What an agent's role accepts, by the option that was typed, and which other roles would let somebody else in."""

from __future__ import annotations

from typing import Any

import pytest

from jitvault.errors import InvalidInput
from jitvault.provision.agent_login import KINDS, AgentLogin, Kind, agent_login, check_name, impostors
from jitvault.provision.agents import mounts_of

VALUES: dict[Kind, str] = {
    "spiffe": "spiffe://example.org/agents/churn",
    "kubernetes": "jobs/churn",
    "github": "example/churn:production",
    "cert": "churn.example.org",
    "approle": "",
}


def made(kind: Kind, value: str | None = None, **how: Any) -> AgentLogin:
    return agent_login(kind, VALUES[kind] if value is None else value, authority="PEM" if kind == "cert" else "", **how)


@pytest.mark.parametrize("kind", KINDS)
def test_every_role_gives_short_batch_tokens_without_a_policy_of_its_own(kind: Kind) -> None:
    role = made(kind).role()
    assert (role["token_type"], role["token_policies"], role["token_no_default_policy"]) == ("batch", [], True)
    assert role["token_ttl"] == role["token_max_ttl"] == 120


@pytest.mark.parametrize(
    ("kind", "subject"),
    [
        ("spiffe", "spiffe://example.org/agents/churn"),
        ("kubernetes", "system:serviceaccount:jobs:churn"),
        ("github", "repo:example/churn:environment:production"),
    ],
)
def test_a_jwt_has_to_be_of_this_subject_for_this_audience_and_in_its_time(kind: Kind, subject: str) -> None:
    role = made(kind, audience="jitvault").role()
    assert (role["user_claim"], role["bound_subject"], role["bound_audiences"]) == ("sub", subject, ["jitvault"])
    assert {name: value for name, value in role.items() if name.endswith("leeway")} == dict.fromkeys(
        ("expiration_leeway", "not_before_leeway", "clock_skew_leeway"), -1
    )


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("spiffe", "spiffe://example.org"),
        ("spiffe", "spiffe://example.org/"),
        ("spiffe", "spiffe://example.org/a/*"),
        ("spiffe", "https://example.org/a"),
        ("kubernetes", "churn"),
        ("kubernetes", "jobs/churn/more"),
        ("kubernetes", "jobs:x/churn"),
        ("github", "example/churn"),
        ("github", "example/churn:a:b"),
        ("github", "churn:production"),
        # a glob in a role's list of common names
        ("cert", "*"),
        ("cert", "churn*"),
        ("cert", ""),
    ],
)
def test_what_is_more_or_less_than_one_identity_is_refused(kind: Kind, value: str) -> None:
    with pytest.raises(InvalidInput, match="expected"):
        made(kind, value)


@pytest.mark.parametrize(
    "how",
    [
        {"ttl_s": 59},
        {"ttl_s": 121},
        {"cidrs": ("10.0.0.1/8",)},
        {"mount": "../sys"},
        {"mount": "a//b"},
        {"audience": ""},
    ],
)
def test_options_that_cannot_be_meant_are_refused(how: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        made("spiffe", **how)
    with pytest.raises(InvalidInput, match="--ca"):
        agent_login("cert", "churn")


@pytest.mark.parametrize("name", ["", "Churn", "-churn", "churn/x", "churn bot", "c" * 64])
def test_a_name_that_could_be_a_path_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        check_name(name)
    check_name("churn-2")


def test_only_another_role_of_the_method_can_give_the_agents_entity_away() -> None:
    jwt, cert = made("spiffe"), made("cert")
    people = {"user_claim": "email"}
    assert [*impostors(jwt, "churn", {"churn": people, "more": {"user_claim": "sub", "bound_subject": "x"}})] == []
    for subject in (None, "", "spiffe://example.org/agents/CHURN"):
        wide = {"wide": {"user_claim": "sub", "bound_subject": subject}}
        assert "differs in case alone" in "".join(impostors(jwt, "churn", wide)), "Vault does not heed the case"
    assert "by the claim email" in "".join(impostors(jwt, "churn", {"people": people}))
    one_ca, other_ca = {"certificate": "PEM\n"}, {"certificate": "OTHER"}
    assert [*impostors(cert, "churn", {"same": one_ca, "else": other_ca | {"allowed_common_names": ["other.*"]}})] == []
    cased = {"x": one_ca | {"allowed_common_names": ["Churn.example.org"]}}
    assert "trusts another CA" in "".join(impostors(cert, "churn", cased))
    for allowed in ([], None, ["churn.*"], ["CHURN.*"], ["*"], ["other", "churn.example.org"]):
        assert "trusts another CA" in "".join(
            impostors(cert, "churn", {"x": other_ca | {"allowed_common_names": allowed}})
        )
    assert [*impostors(made("approle"), "churn", {"people": people, "x": other_ca})] == []


def test_a_mount_has_one_name_whoever_set_the_login_up() -> None:
    assert mounts_of([{"mount_path": "auth/userpass/"}, {"mount_path": "auth/approle/"}]) == "approle, userpass"
