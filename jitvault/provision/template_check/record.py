"""Check a template's paths, and record the results in Vault.

This is what `jitvault templates check` does. The record is at `jitvault/checks/<template>`. The worker relies on it for
grants, and only administrators may write it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jitvault.documents.paths import check_path, vault_path
from jitvault.documents.template_check import (
    MAX_ENDED,
    MAX_FAILURES,
    STEPS,
    Record,
    Result,
    read_record,
    why_not,
)
from jitvault.engines.interface import Engine, engine_of
from jitvault.errors import JitvaultError, VaultRejected, WrongState
from jitvault.model.template import AccessTemplate
from jitvault.provision.names import INSTALLATION
from jitvault.provision.template_check.steps import Outcome
from jitvault.provision.template_check.trial import DEFAULT_WAITING, Waiting, basis_of, tried
from jitvault.vault.client import Vault
from jitvault.vault.documents import Documents


def check_template(
    vault: Vault,
    engines: Mapping[str, Engine],
    template: AccessTemplate,
    choices: Iterable[Mapping[str, str]],
    waiting: Waiting = DEFAULT_WAITING,
) -> Iterator[Outcome]:
    """Check each combination of `choices`; record and yield each outcome.

    Raises WrongState when Vault or the template is not ready for a check or another process checks the same template
    now, InvalidInput for an unknown engine or role, NotConfirmed when the check was interrupted and something is left
    behind, and what Vault's refusals raise.
    """
    engine = engine_of(engines, template)
    recorder = CheckRecorder(vault, template.name)
    for with_ in choices:
        outcome = tried(vault, engine, template, with_, recorder.announce, waiting)
        recorder.enter(outcome)
        yield outcome


def unchecked(vault: Vault, templates: Mapping[str, AccessTemplate], engines: Mapping[str, Engine]) -> tuple[str, ...]:
    """Return a line for each template by which nothing is granted at present."""
    found = []
    for name, template in sorted(templates.items()):
        if why := why_unchecked(vault, engines, template):
            then = f". {why.mend}" if why.mend else f"; run `jitvault templates check {name}`"
            found.append(f"template {name} is not granted: {why.said}{then}")
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Unchecked:
    """Why nothing is granted by a template.

    `mend` is what has to be done before its check, where a check would fail for the same reason.
    """

    said: str
    mend: str = ""


def recorded(vault: Vault, name: str) -> dict[str, Any] | None:
    """Return the document of a template's check from Vault, or None.

    Raises VaultRefused, VaultUnavailable.
    """
    return Documents(vault).get(check_path(name))


def why_unchecked(vault: Vault, engines: Mapping[str, Engine], template: AccessTemplate) -> Unchecked | None:
    """Return why nothing is granted by the template; None where tasks are.

    That is decided by the present state of Vault. A template whose target is not asked needs no check, but a role and a
    connection that its engine knows.
    """
    is_exempt = template.spec.confirm == "audit"
    try:
        document = None if is_exempt else recorded(vault, template.name)
        installation = _installation(vault)
        for choices in template.all_choices():
            path = template.resolve(choices)
            basis = basis_of(vault, engine_of(engines, template), template, path)
            if is_exempt:
                continue
            if why := why_not(document, installation=installation, template=template.name, path=path, basis=basis):
                return Unchecked(why)
    except JitvaultError as error:
        # no mount, no role or no document: the template is not checked
        return Unchecked(str(error), error.hint)
    return None


def _installation(vault: Vault) -> str:
    document = (vault.read(INSTALLATION) or {}).get("data", {}).get("data") or {}
    if not isinstance(document.get("id"), str):
        raise WrongState("this Vault is not provisioned", hint="Run `jitvault init` first.")
    return str(document["id"])


class CheckRecorder:
    """Writes the record of one template's check.

    Every write names the version that it follows (check-and-set), so that two checks cannot mix their results.
    """

    def __init__(self, vault: Vault, name: str) -> None:
        self._vault = vault
        self._name = name
        self._path = vault_path("data", check_path(name))
        self._installation = _installation(vault)
        self._version = self._current_version()
        before = read_record(recorded(vault, name))
        same = before is not None and (before.installation, before.template) == (self._installation, name)
        self._paths: dict[str, Result] = dict(before.paths) if before is not None and same else {}
        self._ended = before.ended if before is not None and same else ()

    def enter(self, outcome: Outcome) -> None:
        """Record the outcome of one path.

        Raises WrongState where another check has written meanwhile.
        """
        basis = outcome.basis
        self._paths[outcome.path] = Result(
            template=basis.template,
            engine=basis.engine,
            probe_written_at=basis.probe_written_at,
            passed=outcome.passed,
            at=datetime.now(UTC),
            failed=outcome.failed[:MAX_FAILURES],
            steps=STEPS,
            remarks=outcome.remarks[:MAX_FAILURES],
        )
        self._ended = (*self._ended, *outcome.ended)[-MAX_ENDED:]
        self.announce(())

    def announce(self, leases: tuple[str, ...]) -> None:
        """Record which leases belong to a running check.

        A worker that lists the path's leases meanwhile needs to know them.
        """
        record = Record(
            kind="TemplateCheck",
            installation=self._installation,
            template=self._name,
            paths=self._paths,
            running=leases,
            ended=self._ended,
        )
        body = {"options": {"cas": self._version}, "data": record.model_dump(mode="json")}
        try:
            answer = self._vault.write(self._path, body)
        except VaultRejected as error:
            if any("check-and-set" in reason for reason in error.reasons):
                raise WrongState(
                    f"another check of template {self._name} is running", hint="Run the command again."
                ) from None
            raise
        self._version = int(answer["data"]["version"])

    def _current_version(self) -> int:
        answer = self._vault.read(vault_path("metadata", check_path(self._name))) or {}
        return int((answer.get("data") or {}).get("current_version") or 0)
