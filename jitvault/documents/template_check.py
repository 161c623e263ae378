"""The stored result of a template check, and whether it still holds.

An administrator runs the check (`provision/template_check/trial.py`), because the worker never reads a secret. The
record is at `jitvault/checks/<template>`, where only administrators write and the worker reads. A result holds for
a path as long as everything that it rests on is unchanged: the template's part in it, the engine's configuration,
and the probe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, ValidationError

from jitvault.documents.paths import check_path
from jitvault.documents.signed import Digest
from jitvault.formats.canonical_json import canonical_bytes, digest_of
from jitvault.formats.fields import Strict, TemplateName
from jitvault.model.template import AccessTemplate

MAX_FAILURES = 20
MAX_ENDED = 256
STEPS = 20
"""How many steps a check has. A result with fewer steps says nothing about those that were added since."""
_FIRST_STEPS = 11
# Fields that decide nothing about how a credential is made and ended. A new field counts until it is listed here.
_UNREGARDED = frozenset(
    {"parameters", "path", "tier", "data_domains", "max_window", "wrap_ttl", "lease_budget", "connection"}
)

Failure = Annotated[str, Field(min_length=1, max_length=500)]


@dataclass(frozen=True, slots=True)
class Basis:
    """What a result rests on.

    `template` is a digest of the template's part, `engine` one of the engine's snapshot, and `probe_written_at` is
    when the probe's document was written, by Vault's clock.
    """

    template: str
    engine: str
    probe_written_at: datetime | None


class Result(Strict):
    """The result of one check of one Vault path.

    `failed` names the failures, in the order of the `steps`. `remarks` is what people have to read although it is no
    failure.
    """

    template: Digest
    engine: Digest
    probe_written_at: AwareDatetime | None
    passed: bool
    at: AwareDatetime
    failed: Annotated[tuple[Failure, ...], Field(max_length=MAX_FAILURES)]
    steps: Annotated[int, Field(ge=1, le=1000)] = _FIRST_STEPS
    remarks: Annotated[tuple[Failure, ...], Field(max_length=MAX_FAILURES)] = ()

    @property
    def basis(self) -> Basis:
        return Basis(self.template, self.engine, self.probe_written_at)


class Record(Strict):
    """All results of one template by path, and the leases of its checks.

    `running` are the leases of a check that runs now; `ended` are the last leases that checks created and saw dead.
    """

    kind: Literal["TemplateCheck"]
    installation: Annotated[str, Field(max_length=64)]
    template: TemplateName
    paths: Mapping[str, Result]
    running: Annotated[tuple[str, ...], Field(max_length=256)]
    ended: Annotated[tuple[str, ...], Field(max_length=MAX_ENDED)] = ()


def template_digest(template: AccessTemplate) -> str:
    """Return the digest of the fields that the revocation depends on.

    They decide how the credentials are made, used and ended. After an edit of a description or a budget, the
    revocation need not be checked again.
    """
    body = template.canonical()["spec"]
    return digest_of({name: value for name, value in body.items() if name not in _UNREGARDED})


def read_record(document: Mapping[str, Any] | None) -> Record | None:
    """Return `document` as a record; None if absent or not exactly a record."""
    if document is None:
        return None
    try:
        return Record.model_validate_json(canonical_bytes(document))
    except (ValidationError, ValueError):
        return None


def why_not(
    document: Mapping[str, Any] | None, *, installation: str, template: str, path: str, basis: Basis
) -> str | None:
    """Return why the stored record does not show that `path` can be revoked.

    None means that it does.
    """
    if document is None:
        return "it was never checked that its revocation works"
    record = read_record(document)
    if record is None or record.template != template:
        return f"the result of its check in jitvault/{check_path(template)} is not one of this template"
    if record.installation != installation:
        return "its check was made by another installation"
    result = record.paths.get(path)
    if result is None:
        return f"it was never checked that the revocation of {path} works"
    if result.steps < STEPS:
        return f"the check of {path} is of an older version and tried less ({result.steps} of {STEPS} steps)"
    if changed := _changed(result.basis, basis):
        return f"{changed} changed since {path} was checked"
    if not result.passed or result.failed:
        return f"the check of {path} failed: {result.failed[0] if result.failed else 'no reason given'}"
    return None


def _changed(then: Basis, now: Basis) -> str:
    if then.template != now.template:
        return "the template was"
    if then.engine != now.engine:
        return "the engine's role or connection was"
    return "the probe was" if then.probe_written_at != now.probe_written_at else ""


def remarks_of(document: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return the remarks of a template's checks, each sentence once.

    A remark is something that people have to read although it is no failure.
    """
    record = read_record(document)
    if record is None:
        return ()
    return tuple(dict.fromkeys(remark for result in record.paths.values() for remark in result.remarks))


def as_recorded(document: Mapping[str, Any] | None, template: AccessTemplate) -> str:
    """Return `exempt`, `needed`, `failed` or `passed` for a template.

    The record and the template alone decide. Whether the engine and the probe are unchanged is not checked: whoever
    lists templates may not be allowed to see them.
    """
    if template.spec.confirm != "target":
        return "exempt"
    record = read_record(document)
    paths = [template.resolve(choices) for choices in template.all_choices()]
    if record is None or record.template != template.name:
        return "needed"
    results = [record.paths.get(path) for path in paths]
    digest = template_digest(template)
    found = [each for each in results if each is not None and each.template == digest and each.steps >= STEPS]
    if any(not result.passed for result in found):
        return "failed"
    return "passed" if len(found) == len(paths) else "needed"
