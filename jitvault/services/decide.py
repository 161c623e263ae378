"""From a request to a decision: resolve it against what Vault really has, ask policy, count approvals."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from jitvault.domain.access import CAPS, access_policy, role_name, smallest_cap
from jitvault.domain.approval import Tally, tally
from jitvault.domain.lifecycle import State
from jitvault.domain.policy import Decision
from jitvault.domain.revision import Party, Resolved, Revision, build, terms
from jitvault.domain.spec import AccessEntry, TaskSpec
from jitvault.domain.template import AccessTemplate
from jitvault.errors import InvalidInput, VaultRejected
from jitvault.ports.engine import Engine
from jitvault.ports.policy import Question
from jitvault.services.context import Worker
from jitvault.services.papers import OPERATORS, Submission, votes
from jitvault.services.selftest import check_selftested


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a revision stands now, by documents and policy read this moment."""

    decision: Decision
    tally: Tally

    @property
    def state(self) -> State:
        if not self.decision.permitted or self.tally.denied_by:
            return State.DENIED
        return State.PENDING_APPROVAL if self.tally.missing else State.APPROVED

    @property
    def why_denied(self) -> str:
        if self.tally.denied_by:
            vote = self.tally.denied_by
            return f"{vote.name} denied it: {vote.reason or 'no reason given'}"
        return "no policy permits it" + (f" ({', '.join(self.decision.rules)})" if self.decision.rules else "")


def resolve(worker: Worker, submitted: Submission, *, number: int) -> Revision:
    """Revision `number` of what was submitted, with every name resolved against Vault as it is now.

    Raises InvalidInput for anything that does not exist or is not provisioned.
    """
    spec = submitted.spec
    body = spec.spec
    return build(
        installation=worker.installation,
        number=number,
        spec=spec,
        requester=Party(submitted.requester.id, submitted.requester.name),
        agent=_party(worker, spec, "agent", body.agent),
        owner=_party(worker, spec, "owner", body.owner),
        access=[_resolved(worker, entry) for entry in body.access],
        cidrs=_cidrs(worker, spec),
    )


def check_grantable(worker: Worker, revision: Revision) -> None:
    """Raise InvalidInput when the window does not fit the templates or the clock, its role is missing, or a template
    has not passed its check.
    """
    spec = revision.spec
    longest = timedelta(seconds=min(entry["max_window_s"] for entry in revision.access))
    problems = spec.window.problems(worker.now(), longest)
    if problems:
        raise InvalidInput(f"task {spec.id}: {problems[0]}")
    start = max(filter(None, (worker.now(), spec.window.not_before)))
    found = terms(revision, start)
    network = spec.spec.network
    role = role_name(smallest_cap(timedelta(seconds=found.window_s)), network)
    if worker.tokens.role(role) is None:
        raise InvalidInput(
            f"task {spec.id}: token role {role} is missing",
            hint="An administrator provisions it with `jitvault init`.",
        )
    check_selftested(worker, revision)


def stand(worker: Worker, revision: Revision, *, issued_at: datetime | None = None) -> Standing:
    """Ask policy and count the approvals of `revision`, all read now.

    Of what was issued the approvals have to be there still; their expiry bounds the issue alone.
    """
    content, body = revision.content, revision.spec.spec
    requester = worker.identity.by_id(content["requester"]["entity"])
    groups = worker.identity.groups_of(requester, (OPERATORS,)) if requester else ()
    window = revision.window
    length = window.for_ or (window.closes_at(worker.now()) - max(filter(None, (worker.now(), window.not_before))))
    questions = [
        Question(
            requester=content["requester"]["entity"],
            requester_groups=groups,
            agent=content["agent"]["entity"],
            owner=content["owner"]["entity"],
            template=entry["template"],
            tier=entry["tier"],
            data_domains=tuple(entry["data_domains"]),
            criticality=body.criticality,
            risk=content["risk"],
            intent=body.intent,
            tools=tuple(body.tools),
            window_s=int(length.total_seconds()),
            network=body.network or "",
        )
        for entry in revision.access
    ]
    decision = worker.authorizer.decide(questions)
    counted = tally(
        votes(worker, revision.spec.id, decision.obligations.approver_group),
        decision.obligations,
        digest=revision.digest,
        involved=revision.involved(),
        now=issued_at or worker.now(),
    )
    return Standing(decision, counted)


def _resolved(worker: Worker, entry: AccessEntry) -> Resolved:
    template = worker.templates.get(entry.template)
    if template is None:
        known = ", ".join(sorted(worker.templates)) or "none"
        raise InvalidInput(f"unknown template {entry.template}; the templates are: {known}")
    engine = worker.engines.get(template.spec.engine)
    if engine is None:
        raise InvalidInput(f"template {template.name}: unknown engine {template.spec.engine}")
    path = template.resolve(entry.with_)
    try:
        policy = access_policy(path, engine.capability, template.spec.fill_data(entry.with_))
    except InvalidInput as error:
        raise InvalidInput(f"template {template.name}: {error}") from None
    found = worker.reader.read(f"sys/policies/acl/{policy.name}")
    if found is None or found["data"]["policy"] != policy.text:
        raise InvalidInput(
            f"template {template.name}: the ACL policy {policy.name} for {path} is not provisioned",
            hint="An administrator runs `jitvault init` after a template is added or changed.",
        )
    try:
        snapshot = _snapshot(worker, engine, template, path)
    except VaultRejected as error:
        raise InvalidInput(f"template {template.name}: {error}", hint="Is its engine mounted?") from None
    return Resolved(template, entry.with_, path, policy, snapshot, engine.capability)


def _snapshot(worker: Worker, engine: Engine, template: AccessTemplate, path: str) -> dict[str, Any]:
    return engine.snapshot(worker.reader.read, template.spec.mount, path.removeprefix(template.spec.mount + "/"))


def _cidrs(worker: Worker, spec: TaskSpec) -> list[str]:
    """The addresses of the spec's network, as its token roles have them: they are part of what is approved."""
    network = spec.spec.network
    if network is None:
        return []
    bound = {
        tuple(sorted((worker.tokens.role(role_name(cap, network)) or {}).get("token_bound_cidrs") or ()))
        for cap in CAPS
    }
    if len(bound) != 1 or not (found := bound.pop()):
        raise InvalidInput(
            f"task {spec.id}: spec.network: network {network} is not provisioned",
            hint="An administrator provisions it with `jitvault init --network NAME=CIDR`.",
        )
    return list(found)


def _party(worker: Worker, spec: TaskSpec, part: str, name: str) -> Party:
    entity = worker.identity.by_name(name)
    if entity is None or entity.disabled:
        raise InvalidInput(f"task {spec.id}: spec.{part}: there is no enabled Vault entity named {name}")
    return Party(entity.id, entity.name)
