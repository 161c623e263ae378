"""The access templates that the worker publishes, for agents.

An agent's host needs no template files then: what it may ask for is what the worker uses. The document only helps to
write a request. The worker decides by its own templates, and approvers sign what it published of the task.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jitvault.documents.paths import TEMPLATES
from jitvault.errors import InvalidInput, VaultRefused
from jitvault.model.template import AccessTemplate, load_templates

if TYPE_CHECKING:
    from jitvault.vault.interface import Documents

_HINT = (
    "A worker puts its own templates back within two minutes. Where none does, its version of jitvault is another: "
    "tell the operator. Nothing was asked for."
)


def published_form(templates: Mapping[str, AccessTemplate]) -> dict[str, Any]:
    """Return the document that publishes these templates."""
    return {name: templates[name].canonical() for name in sorted(templates)}


def read_templates(documents: Documents) -> dict[str, AccessTemplate] | None:
    """Return the published templates by name.

    None where there are none, or where the caller's policy is older than this document. Raises InvalidInput for what is
    no template of this version, which a worker of the same version replaces with its own.
    """
    try:
        document = documents.get(TEMPLATES)
    except VaultRefused:
        return None
    if document is None:
        return None
    try:
        return load_templates({f"Vault's jitvault/{TEMPLATES}: {name}": _encoded(document[name]) for name in document})
    except InvalidInput as error:
        raise InvalidInput(str(error), hint=_HINT) from None


def _encoded(template: object) -> bytes:
    return json.dumps(template).encode()
