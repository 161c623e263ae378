"""Check one path of a template.

A credential is issued, used, revoked while in use, and tried again. An administrator runs the check, because the worker
never reads a secret. Everything that a proof relies on later is tried once here, before any task depends on it. The
steps, by number:

1. the mount is tuned so that audit lines name the credential at its target;
2. the path gives a credential with a lease to a token that may do only what a task's token may;
3. the lease lasts no longer than the template allows;
4. the probe's own identity has the rights that it needs;
5. the credential works at the target; a certificate works at the servers that the template names;
6. the probe sees the credential there, with its session where the probe sees sessions: a probe that never sees a live
   credential cannot show that one is gone;
7. Vault revokes the lease, and waits for the target, while the session is open;
8. the session ends; at the servers that a certificate was shown to, within the bound that the template states;
9. the target, and those servers, do not accept the credential again;
10. the probe confirms that the credential is gone;
11. the engine's configuration did not change meanwhile;
12. nothing that an agent can write is run by Vault's login at the target, or by the probe's;
13. what the credential may do is bounded, and so is how long a revocation waits for other sessions;
14. the probe's document names every server that accepts the credential;
15. a connection that waits before it has authenticated is ended as well;
16. a credential that holds a lock on itself is revoked as well,
17. one that owns something,
18. and one with as many sessions as it may have;
19. the credential is no more than what the template asks for;
20. a certificate is no login to Vault.

Steps 12 to 14 inspect the target while the credential of the steps before is live. Each of the steps 15 to 18 has a
credential of its own, which is issued once the simple revocation was seen to work: see `resistance`. Step 19 inspects
the first credential before it is used.

The credential is always revoked at the end. Its token lives for a minute, and its lease no longer, in case this process
is killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from jitvault.documents.template_check import Basis, template_digest
from jitvault.engines.interface import After, CredentialInUse, Engine, check_template
from jitvault.errors import JitvaultError, NotConfirmed, OutcomeUnknown, ProbeUnusable, VaultUnavailable, WrongState
from jitvault.formats.canonical_json import digest_of
from jitvault.formats.secret import Secret
from jitvault.formats.time_window import format_duration
from jitvault.model.template import AccessTemplate
from jitvault.model.vault_access import AccessPolicy, access_policy
from jitvault.model.verifiers import Verifiers
from jitvault.provision.live import Live
from jitvault.provision.template_check.cert_logins import vault_logins
from jitvault.provision.template_check.inspection import inspected
from jitvault.provision.template_check.resistance import Resistance, retry_revocation
from jitvault.provision.template_check.steps import PROBED, RESISTED, STEPS, TRIED, Found, LeftBehind, Outcome, Step
from jitvault.vault.client import Vault
from jitvault.vault.documents import Documents


@dataclass(frozen=True, slots=True)
class Waiting:
    """How long a check waits for servers at most.

    `say` gets meanwhile a text about what it waits for.
    """

    patience: timedelta
    say: Callable[[str], None]


DEFAULT_WAITING = Waiting(timedelta(seconds=60), lambda _: None)
ISSUER_TTL_S = 60
# a third of the shortest validity that a template allows for what an engine publishes
_KEEP_UP_S = 3.0
# the length of evidence, which has to fit into the record together with the step's name
_MOST = 400
_REMEDIES = {
    "name_shown": "`jitvault init` tunes the mount.",
    "leased": "Let the path give a credential with a lease: one without a lease cannot be revoked.",
    "unchanged": "Run the check again while the role is not being changed.",
}
_UNASKED = (
    "See that the target answers and that the probe's document is right, then run the check again: this says nothing "
    "about the role."
)


def basis_of(vault: Vault, engine: Engine, template: AccessTemplate, path: str) -> Basis:
    """Return what a result for `path` depends on at present.

    Raises InvalidInput and VaultRejected where the engine has no such role, or the role gives more than the template
    says.
    """
    mount = template.spec.mount
    snapshot = engine.snapshot(vault.read, mount, path.removeprefix(f"{mount}/"))
    check_template(engine, template.spec, snapshot)
    probe = Documents(vault).read(f"probes/{template.spec.probe}") if template.spec.probe else None
    return Basis(template_digest(template), digest_of(snapshot), probe.written_at if probe else None)


def tried(
    vault: Vault,
    engine: Engine,
    template: AccessTemplate,
    with_: Mapping[str, str],
    announce: Callable[[tuple[str, ...]], None],
    waiting: Waiting = DEFAULT_WAITING,
) -> Outcome:
    """Check what `template` grants for one combination of choices.

    `vault` has the administrator's identity. `announce` gets the lease as soon as it is known, before the credential is
    used. Raises WrongState when the path is not provisioned or has no probe, and NotConfirmed when the check was
    interrupted and something is left behind.
    """
    path = template.resolve(with_)
    policy = access_policy(path, engine.capability, template.spec.fill_data(with_))
    _check_provisioned(vault, template, policy)
    where = _where(vault, engine, template)
    begun = time.monotonic()
    _keep_up(vault, engine, template)
    basis = basis_of(vault, engine, template, path)
    check = _Check(vault, engine, template, with_, where, announce, waiting)
    check.run()
    try:
        now = basis_of(vault, engine, template, path)
    except JitvaultError as error:
        check.note(11, ok=False, evidence=str(error))
    else:
        same = now == basis
        evidence = "role, connection and probe are the same" if same else "role, connection or probe changed meanwhile"
        check.note(11, ok=same, evidence=evidence)
    ms = round((time.monotonic() - begun) * 1000)
    steps = tuple(sorted(check.steps, key=lambda step: step.n))
    return Outcome(path, dict(with_), basis, steps, tuple(check.left_behind), ms, check.ended)


def _check_provisioned(vault: Vault, template: AccessTemplate, policy: AccessPolicy) -> None:
    found = vault.read(f"sys/policies/acl/{policy.name}")
    if found is None or found["data"]["policy"] != policy.text:
        raise WrongState(
            f"template {template.name}: the ACL policy {policy.name} is not provisioned",
            hint="Run `jitvault init` first.",
        )


def _where(vault: Vault, engine: Engine, template: AccessTemplate) -> Mapping[str, Any]:
    """Return the probe's document, by which the target is reached.

    So the target that is tried is the one that is probed. Nothing is reached for an engine without a probe.
    """
    if engine.probe is None:
        return {}
    probe = template.spec.probe
    document = Documents(vault).get(f"probes/{probe}") if probe else None
    if document is None or not isinstance(document.get("dsn"), str):
        which = f"there is no probe {probe} in jitvault/probes/" if probe else "it names no probe"
        raise WrongState(
            f"template {template.name}: {which}, so its target cannot be asked",
            hint=f"Write its dsn: `bao kv put jitvault/probes/{probe or 'NAME'} dsn=-`.",
        )
    return document


def _keep_up(vault: Vault, engine: Engine, template: AccessTemplate) -> None:
    """Do once what a worker does regularly.

    Without a running worker, what the engine publishes is out of date.
    """
    wanted = engine.upkeep(vault.read, template.spec.mount)
    if wanted is not None:
        vault.read(wanted.path)


@dataclass(repr=False)
class _Check:
    """Runs all steps but 11 on one path, and revokes what they issued."""

    _vault: Vault
    _engine: Engine
    _template: AccessTemplate
    _with: Mapping[str, str]
    _where: Mapping[str, Any]
    _announce: Callable[[tuple[str, ...]], None]
    _waiting: Waiting
    steps: list[Step] = field(default_factory=list)
    left_behind: list[LeftBehind] = field(default_factory=list)
    _kept_up_at: float = field(default_factory=time.monotonic)
    _issuer: Vault | None = None
    _resistance: Resistance | None = None
    _lease_id: str = ""
    _name: str = ""
    _revoked: bool = False
    _dead: bool = False
    _still_accepted: bool = False

    def __post_init__(self) -> None:
        self._probe = self._engine.probe
        self._trial = self._engine.trial
        self._remedies: Mapping[str, str] = self._trial.remedies if self._trial else {}
        self._path = self._template.resolve(self._with)
        self._data = self._template.spec.fill_data(self._with)

    @property
    def ended(self) -> tuple[str, ...]:
        """The issued leases, if they were revoked and nothing of them is left."""
        if not self._revoked or self.left_behind:
            return ()
        return (self._lease_id, *(self._resistance.leases if self._resistance else ()))

    def note(self, n: int, *, ok: bool, evidence: str, mend: str = "", is_remark: bool = False) -> bool:
        """Record a step and return `ok`; `mend` replaces the step's own remedy."""
        name = STEPS[n]
        mend = "" if ok else mend or self._remedies.get(name) or _REMEDIES.get(name, "See the evidence.")
        self.steps.append(Step(n, ok, evidence[:_MOST], mend, is_remark))
        return ok

    def _note(self, n: int, found: Found) -> None:
        self.note(n, ok=found.ok, evidence=found.evidence, mend=found.mend, is_remark=found.is_remark)

    def _note_what_is_not_tried(self) -> None:
        """Note the steps that need a part of an engine that this one lacks: none fails, and people read it."""
        name = self._engine.name
        if self._probe is None:
            for n in PROBED:
                self.note(n, ok=True, evidence=f"not probed: the engine {name} has no probe", is_remark=n == PROBED[0])
        if self._trial is None:
            for n in TRIED:
                self.note(n, ok=True, evidence=f"not tried: the engine {name} has no trial", is_remark=n == TRIED[0])

    def run(self) -> None:
        """Run the steps.

        Raises NotConfirmed when they were interrupted and something could not be revoked.
        """
        whole = False
        try:
            self._try()
            whole = True
        finally:
            self._clean_up()
            if not whole and self.left_behind:
                left = ", ".join(map(str, self.left_behind))
                raise NotConfirmed(
                    f"the check of {self._path} was interrupted and LEFT BEHIND: {left}",
                    hint=f"Revoke it by hand, at the target too: {self._commands()}",
                )

    def _try(self) -> None:
        self._note_what_is_not_tried()
        # 1
        self._name_shown()
        # 2, 3, 19, 20
        issued = self._leased()
        if issued is None:
            return
        # 4
        self._rights(issued)
        with ExitStack() as stack:
            # 5
            try:
                used = self._used(issued, stack)
            except NotConfirmed as error:
                self.note(5, ok=False, evidence=str(error))
                return
            # 6
            self._ask(6, alive=True, sessions=None if used is None else used.sessions)
            # 12, 13, 14
            if self._all_ok(4, 6):
                self._inspect()
            # 7
            if self._revoke():
                self._see_it_dead(used)
        # 15, 16, 17, 18: only if the simple revocation works, else they would leave more behind
        if self._all_ok(4, 5, 6, 7, 8, 9, 10):
            self._resist()

    def _name_shown(self) -> None:
        if self._probe is not None:
            key = self._probe.credential_key
            mount = self._template.spec.mount
            plain = key in Live(self._vault).plain_response_keys(mount)
            self.note(1, ok=plain, evidence=f"the audit stream {'shows' if plain else 'hides'} `{key}` of {mount}/")

    def _used(self, issued: Mapping[str, Any], stack: ExitStack) -> CredentialInUse | None:
        """Use the credential until `stack` closes.

        Raises NotConfirmed if the target does not take it.
        """
        if self._trial is None:
            return None
        used = stack.enter_context(self._trial.use(self._where, issued, self._verifiers()))
        self.note(5, ok=True, evidence=used.seen)
        return used

    def _all_ok(self, *wanted: int) -> bool:
        return set(wanted) <= {step.n for step in self.steps if step.ok}

    def _leased(self) -> Mapping[str, Any] | None:
        """Return the data of a fresh credential; None where there is none.

        Its lease is known and announced.
        """
        try:
            self._issuer = self._make_issuer()
            answer = self._credential(self._issuer)
        except VaultUnavailable as error:
            lost = f"{error}. If a credential was made, it ends with its token, within {ISSUER_TTL_S} s"
            self.note(2, ok=False, evidence=lost, mend=self._why_no_credential(error))
            return None
        except JitvaultError as error:
            self.note(2, ok=False, evidence=str(error), mend=self._why_no_credential(error))
            return None
        self._lease_id = str(answer.get("lease_id") or "")
        if not self._lease_id:
            self.note(2, ok=False, evidence=f"{self._path} gives no lease")
            if answer:
                self.left_behind.append(LeftBehind(f"what {self._path} gave, which has no lease"))
            return None
        self._announce((self._lease_id,))
        self.note(2, ok=True, evidence=f"lease {self._lease_id}")
        self._lifetime(int(answer.get("lease_duration") or 0), renewable=bool(answer.get("renewable")))
        data: Mapping[str, Any] = answer.get("data") or {}
        self._compare(data)
        self._look_for_logins(data)
        return data

    def _compare(self, issued: Mapping[str, Any]) -> None:
        if self._trial is None:
            return
        try:
            evidence = self._trial.check_issued(self._template.spec, self._data, self._snapshot(), issued)
        except JitvaultError as error:
            self.note(19, ok=False, evidence=str(error))
        else:
            self.note(19, ok=True, evidence=evidence)

    def _look_for_logins(self, issued: Mapping[str, Any]) -> None:
        self._note(20, vault_logins(self._vault, self._snapshot, issued.get("certificate")))

    def _lifetime(self, ttl_s: int, *, renewable: bool) -> None:
        longest_s = int(self._template.spec.ttl.total_seconds())
        ok = 0 < ttl_s <= longest_s
        evidence = f"the lease lives {_spelled(ttl_s)}"
        needed_s = ttl_s
        if renewable:
            role: Mapping[str, Any] = self._snapshot().get("role") or {}
            most_s = int(role.get("max_ttl") or 0)
            ok = ok and 0 < most_s <= longest_s
            needed_s = max(ttl_s, most_s) if most_s else 0
            evidence += f", renewed {_spelled(most_s)}" if most_s else ", renewed as long as Vault lets any lease live"
        says = _spelled(longest_s)
        mend = (
            f"Set the role's default_ttl and max_ttl to {says} at most: whoever holds a renewable lease can keep the "
            "credential until max_ttl."
        )
        if needed_s > longest_s:
            mend += f" Or change the template's line `ttl: {says}` to `ttl: {_spelled(needed_s)}`."
        self.note(3, ok=ok, evidence=f"{evidence}; the template says {says}", mend=mend)

    def _snapshot(self) -> Mapping[str, Any]:
        mount = self._template.spec.mount
        return self._engine.snapshot(self._vault.read, mount, self._path.removeprefix(f"{mount}/"))

    def _credential(self, issuer: Vault) -> Mapping[str, Any]:
        if self._engine.capability == "read":
            return issuer.read(self._path) or {}
        return issuer.write(self._path, self._data)

    def _make_issuer(self) -> Vault:
        """Return a client whose token may do what a task's token may.

        It lives for a minute: then Vault revokes what is left.
        """
        body = {
            "policies": [access_policy(self._path, self._engine.capability, self._data).name],
            "ttl": f"{ISSUER_TTL_S}s",
            "explicit_max_ttl": f"{ISSUER_TTL_S}s",
            "renewable": False,
            "no_default_policy": True,
            "display_name": "jitvault-check",
        }
        return self._vault.with_token(Secret(self._vault.write("auth/token/create", body)["auth"]["client_token"]))

    def _inspect(self) -> None:
        if self._trial is not None:
            for n, found in inspected(self._trial, self._where, self._snapshot, self._name).items():
                self._note(n, found)

    def _resist(self) -> None:
        probe = self._probe
        trial = self._trial
        issuer = self._issuer
        if probe is None or trial is None or issuer is None:
            return
        for n in RESISTED:
            if STEPS[n] not in trial.resistances:
                self.note(n, ok=True, evidence=f"a credential of {self._engine.name} cannot do that")
        steps = {STEPS[n]: n for n in RESISTED if STEPS[n] in trial.resistances}
        if not steps:
            return
        before = (self._lease_id,)
        self._resistance = Resistance(
            self._vault,
            probe,
            trial,
            self._where,
            lambda: self._credential(issuer),
            lambda leases: self._announce((*before, *leases)),
        )
        for step, result in self._resistance.run(list(steps)).items():
            self._note(steps[step], result)

    def _rights(self, issued: Mapping[str, Any]) -> None:
        if self._probe is None:
            return
        self._name = str(issued.get(self._probe.credential_key) or "")
        try:
            missing = self._probe.missing_rights(self._where)
        except JitvaultError as error:
            self._note_unasked(4, error)
            return
        rights = f"it lacks {', '.join(missing)}" if missing else "it may do what a probe has to"
        self.note(4, ok=not missing, evidence=f"the probe {self._template.spec.probe}: {rights}")

    def _note_unasked(self, n: int, error: JitvaultError) -> None:
        """Record that the probe could not ask, which is no fault of the role's."""
        self.note(n, ok=False, evidence=str(error), mend=error.hint if isinstance(error, ProbeUnusable) else _UNASKED)

    def _verifiers(self) -> Verifiers:
        spec = self._template.spec
        bound = spec.accepted_after_end or timedelta(0)
        return Verifiers(spec.verifiers, bound, self._waiting.patience, self._while_waiting)

    def _while_waiting(self, text: str) -> None:
        """Show what the check waits for, and do a worker's upkeep.

        Waiting may last longer than a CRL is valid.
        """
        self._waiting.say(text)
        if time.monotonic() - self._kept_up_at >= _KEEP_UP_S:
            with suppress(JitvaultError):
                _keep_up(self._vault, self._engine, self._template)
            self._kept_up_at = time.monotonic()

    def _ask(self, n: int, *, alive: bool, sessions: int | None = None) -> None:
        """Note whether the probe sees the credential as it has to be.

        It has to be gone, or `alive` with at least `sessions`.
        """
        if self._probe is None:
            return
        try:
            found = self._probe.ask(self._where, [self._name], look_only=alive)[self._name]
        except JitvaultError as error:
            self._note_unasked(n, error)
            return
        seen = found.seen and not found.refused and (found.open_sessions or 0) >= (sessions or 0)
        self._dead = found.is_over
        self.note(n, ok=seen if alive else found.is_over, evidence=found.evidence)

    def _revoke(self) -> bool:
        try:
            self._vault.write(f"sys/leases/revoke/{self._lease_id}", {"sync": True})
        except JitvaultError as error:
            return self.note(7, ok=False, evidence=f"Vault could not revoke the lease: {error}")
        self._revoked = True
        return self.note(7, ok=True, evidence="Vault says that the lease is revoked")

    def _see_it_dead(self, used: CredentialInUse | None) -> None:
        if used is not None:
            # 8: before the probe looks, which ends the sessions of roles that are gone
            self._after(8, used.still_works)
            # 9
            self._still_accepted = self._after(9, used.works_anew)
        # 10
        self._ask(10, alive=False)

    def _after(self, n: int, look: Callable[[], After]) -> bool:
        """Note what is left of the credential's use.

        Return whether it still works and people have to end that.
        """
        try:
            after = look()
        except NotConfirmed as error:
            self.note(n, ok=False, evidence=str(error))
            return False
        self.note(n, ok=not after.works, evidence=after.seen, mend=after.mend, is_remark=after.is_remark)
        return after.works and after.stays

    def _clean_up(self) -> None:
        """Revoke what was issued; `left_behind` says what could not be revoked."""
        if self._lease_id and not self._revoked:
            self._revoked = retry_revocation(self._vault, self._lease_id)
        if self._lease_id and not self._revoked:
            self.left_behind.append(LeftBehind.lease(self._lease_id))
        if self._resistance is not None:
            self.left_behind += self._resistance.clean_up(self._by_hand)
        if self._name and (self._still_accepted or self._is_there()):
            self.left_behind.append(LeftBehind(f"{self._name} at the target", self._by_hand(self._name)))
        if self._issuer is not None:
            # where even that fails, the token expires within a minute
            with suppress(JitvaultError):
                self._issuer.write("auth/token/revoke-self")
            self._issuer.close()

    def _by_hand(self, name: str) -> tuple[str, ...]:
        return self._trial.clear_by_hand(self._template.spec.mount, name) if self._trial is not None else ()

    def _commands(self) -> str:
        """Return the commands that end what is left, in one line."""
        return " ".join(f"`{command}`" for left in self.left_behind for command in left.commands)

    def _why_no_credential(self, error: JitvaultError) -> str:
        """Return what to correct where Vault gave no credential."""
        inside = self._path.removeprefix(f"{self._template.spec.mount}/")
        with suppress(JitvaultError):
            found = self._trial.why_no_credential(inside, self._snapshot()) if self._trial is not None else None
            if found is not None:
                return found
        # a 500 has the target's own words: to run the command again would give the same
        own = self._remedies.get("leased") if isinstance(error, OutcomeUnknown) else None
        return own or error.hint

    def _is_there(self) -> bool:
        """Return whether the probe still finds the credential.

        False where it cannot be asked, which a step reports.
        """
        if self._dead or self._probe is None:
            return False
        try:
            found = self._probe.ask(self._where, [self._name], look_only=True)[self._name]
        except JitvaultError:
            return False
        return found.seen and not found.refused


def _spelled(seconds: int) -> str:
    return format_duration(timedelta(seconds=seconds))
