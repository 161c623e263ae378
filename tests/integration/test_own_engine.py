"""An engine of somebody else's, docs/examples/engine: it grants and ends access, and what it cannot prove is said."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rig import Rig

from jitvault import shipped_files as shipped
from jitvault.errors import VaultRejected

pytestmark = pytest.mark.usefixtures("lab", "hurried")
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "engine"
NAME = "ssh-otp"


@pytest.fixture
def installed(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """The example as pip would install it, with its mount, its role and its template."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    (point,) = project["entry-points"]["jitvault.engines"].items()
    metadata = tmp_path / "site" / "jitvault_ssh-0.1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text(f"[jitvault.engines]\n{point[0]} = {point[1]}\n")
    monkeypatch.syspath_prepend(metadata.parent)
    monkeypatch.syspath_prepend(EXAMPLE)
    templates = tmp_path / "templates"
    shutil.copytree(shipped.templates_dir(), templates)
    shutil.copy(EXAMPLE / f"{NAME}.yaml", templates)
    rig.cli.variables = {**rig.cli.variables, "JITVAULT_TEMPLATES": str(templates)}
    rig.admin.write("sys/mounts/ssh", {"type": "ssh", "config": {"default_lease_ttl": "15m"}})
    role = {"key_type": "otp", "default_user": "deploy", "cidr_list": "192.0.2.0/24"}
    rig.admin.write("ssh/roles/otp", role)
    rig("admin", "init", "--yes")
    yield rig
    rig.admin.delete("sys/mounts/ssh")


def test_an_engine_without_probe_and_trial_is_checked_granted_and_ended_and_says_not_probed(
    installed: Rig, spec: Callable[..., Path]
) -> None:
    rig = installed
    # the check of its template: what needs Vault alone is tried, the rest is said
    (path,) = rig("admin", "templates", "check", NAME).json["paths"]
    steps = {step["name"]: step for step in path["steps"]}
    assert path["passed"] and path["left_behind"] == []
    assert steps["leased"]["evidence"].startswith("lease ssh/creds/otp/")
    assert steps["revoked"]["evidence"] == "Vault says that the lease is revoked"
    assert {name for name, step in steps.items() if step["evidence"].startswith("not probed: the engine ssh")} == {
        *("name_shown", "probe_rights", "probe_sees_it", "probe_sees_end")
    }
    assert steps["used"]["evidence"] == "not tried: the engine ssh has no trial"
    assert [name for name, step in steps.items() if step["remark"]] == ["used", "probe_sees_end"]

    # a task
    file = spec(template=NAME, choices="{host: 192.0.2.7}")
    held = rig.active(file)
    assert held.secrets[0]["fields"]["username"] == "deploy"
    password = held.secrets[0]["fields"]["key"]
    ended = rig("operator", "complete", file.stem).json
    assert ended["confirmed"] and ended["leases"][0]["verdict"] == "audit_confirmed"
    assert ended["target_asked"] is False
    with pytest.raises(VaultRejected):
        rig.admin.write("ssh/verify", {"otp": password})


def test_a_template_that_promises_what_its_engine_cannot_prove_is_refused(installed: Rig) -> None:
    rig = installed
    template = Path(rig.cli.variables["JITVAULT_TEMPLATES"]) / f"{NAME}.yaml"
    text = template.read_text()
    template.write_text(text.partition("  confirm: audit")[0] + "  confirm: target\n  probe: hosts\n")
    error = rig("admin", "init", "--yes", code=None).error
    assert "the engine ssh has no probe" in error["message"] and "confirm: audit" in error["hint"]
