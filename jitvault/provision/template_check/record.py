"""`jitvault templates check`: the check of a template's paths, and its record in Vault.

The record is at `jitvault/checks/<template>`: the worker grants by it, and only administrators write there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jitvault.documents.template_check import (
    FOLDER,
    MAX_ENDED,
    MAX_FAILURES,
    STEPS,
    Record,
    Result,
    read_record,
    why_not,
)
from jitvault.engines.interface import Engine
from jitvault.errors import InvalidInput, JitvaultError, VaultRejected, WrongState
from jitvault.model.template import AccessTemplate
from jitvault.provision.desired import INSTALLATION
from jitvault.provision.template_check.steps import Outcome
from jitvault.provision.template_check.trial import DEFAULT_WAITING, Waiting, basis_of, tried
from jitvault.vault.client import Vault
from jitvault.vault.documents import MOUNT, Documents


def check_template(
    vault: Vault,
    engines: Mapping[str, Engine],
    template: AccessTemplate,
    choices: Iterable[Mapping[str, str]],
    waiting: Waiting = DEFAULT_WAITING,
) -> Iterator[Outcome]:
    """Try each combination of `choices` and record what was found, one after the other.

    Gives each outcome once it is recorded. Raises WrongState when Vault or the template is not ready for it or
    somebody else checks the same template now, InvalidInput for an unknown engine or role, NotConfirmed when it was
    interrupted and something is left behind, and what Vault refuses.
    """
    engine = _engine(engines, template)
    book = CheckRecorder(vault, template.name)
    for with_ in choices:
        outcome = tried(vault, engine, template, with_, book.announce, waiting)
        book.enter(outcome)
        yield outcome


def unchecked(vault: Vault, templates: Mapping[str, AccessTemplate], engines: Mapping[str, Engine]) -> tuple[str, ...]:
    """What an administrator has to know of each template that nothing is granted by until its check passes."""
    found = []
    for name, template in sorted(templates.items()):
        if template.spec.confirm == "target" and (why := why_unchecked(vault, engines, template)):
            then = f". {why.mend}" if why.mend else f"; `jitvault templates check {name}` tries it"
            found.append(f"template {name} is not granted: {why.said}{then}")
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Unchecked:
    """Why nothing is granted by a template. `mend` is what comes before its check, which would end with the same."""

    said: str
    mend: str = ""


def recorded(vault: Vault, name: str) -> dict[str, Any] | None:
    """The document of a template's check as it lies in Vault, or None. Raises VaultRefused, VaultUnavailable."""
    return Documents(vault).get(f"{FOLDER}/{name}")


def why_unchecked(vault: Vault, engines: Mapping[str, Engine], template: AccessTemplate) -> Unchecked | None:
    """Why nothing is granted by the template, as everything is in Vault now; None where something is."""
    try:
        document, installation = recorded(vault, template.name), _installation(vault)
        for choices in template.all_choices():
            path = template.resolve(choices)
            basis = basis_of(vault, _engine(engines, template), template, path)
            if why := why_not(document, installation=installation, template=template.name, path=path, basis=basis):
                return Unchecked(why)
    except JitvaultError as error:
        # no mount, no role, no document: whatever it is, it is not checked
        return Unchecked(str(error), error.hint)
    return None


def _engine(engines: Mapping[str, Engine], template: AccessTemplate) -> Engine:
    found = engines.get(template.spec.engine)
    if found is None:
        raise InvalidInput(f"template {template.name}: unknown engine {template.spec.engine}")
    return found


def _installation(vault: Vault) -> str:
    document = (vault.read(INSTALLATION) or {}).get("data", {}).get("data") or {}
    if not isinstance(document.get("id"), str):
        raise WrongState("this Vault is not provisioned", hint="Run `jitvault init` first.")
    return str(document["id"])


class CheckRecorder:
    """The record of one template. Every write says which version it follows, so that two checks cannot mix."""

    def __init__(self, vault: Vault, name: str) -> None:
        self._vault, self._name = vault, name
        self._path = f"{MOUNT}/data/{FOLDER}/{name}"
        self._installation = _installation(vault)
        self._version = self._current_version()
        before = read_record(recorded(vault, name))
        same = before is not None and (before.installation, before.template) == (self._installation, name)
        self._paths: dict[str, Result] = dict(before.paths) if before is not None and same else {}
        self._ended = before.ended if before is not None and same else ()

    def announce(self, leases: tuple[str, ...]) -> None:
        """Say which leases are a check's, for whoever lists what is below the path just now."""
        self._write(leases)

    def enter(self, outcome: Outcome) -> None:
        basis = outcome.basis
        self._paths[outcome.path] = Result(
            template=basis.template,
            engine=basis.engine,
            probe_written_at=basis.probe_written_at,
            passed=outcome.passed,
            at=datetime.now(UTC),
            failed=outcome.failed[:MAX_FAILURES],
            steps=STEPS,
            told=outcome.told[:MAX_FAILURES],
        )
        self._ended = (*self._ended, *outcome.ended)[-MAX_ENDED:]
        self._write(())

    def _write(self, running: tuple[str, ...]) -> None:
        record = Record(
            kind="TemplateCheck",
            installation=self._installation,
            template=self._name,
            paths=self._paths,
            running=running,
            ended=self._ended,
        )
        body = {"options": {"cas": self._version}, "data": record.model_dump(mode="json")}
        try:
            answer = self._vault.write(self._path, body)
        except VaultRejected as error:
            if any("check-and-set" in reason for reason in error.reasons):
                raise WrongState(
                    f"somebody else checks template {self._name} just now", hint="Run the command again."
                ) from None
            raise
        self._version = int(answer["data"]["version"])

    def _current_version(self) -> int:
        answer = self._vault.read(f"{MOUNT}/metadata/{FOLDER}/{self._name}") or {}
        return int((answer.get("data") or {}).get("current_version") or 0)
