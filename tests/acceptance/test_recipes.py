"""The files that a CI job and a cluster take say what this version understands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import Cli

from jitvault.settings import variables

EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples" / "jobs"
TOKEN = "vault"


def github() -> tuple[dict[str, str], list[str], str]:
    """The variables, the command and the audience of the workflow."""
    workflow: dict[str, Any] = yaml.safe_load((EXAMPLES / "github-actions.yaml").read_text())
    job = workflow["jobs"]["count"]
    assert workflow["permissions"]["id-token"] == "write" and job["environment"]
    steps = [step["run"] for step in job["steps"] if "run" in step]
    audience = next(step for step in steps if "audience=" in step).partition("audience=")[2].partition('"')[0]
    return job["env"], steps[-1].split(), audience


def kubernetes() -> tuple[dict[str, str], list[str], str]:
    """The same of the Job, whose paths have to be mounted."""
    pod = yaml.safe_load((EXAMPLES / "kubernetes-job.yaml").read_text())["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert set(mounts.values()) == set(volumes)
    token = Path(environment["JITVAULT_AGENT_JWT_FILE"])
    source = volumes[mounts[str(token.parent)]]["projected"]["sources"][0]["serviceAccountToken"]
    assert source["path"] == token.name
    assert environment["PYTHONPATH"] in pod["initContainers"][0]["command"]
    return environment, container["command"][2:], source["audience"]


@pytest.mark.parametrize("recipe", [github, kubernetes])
def test_a_recipe_says_what_this_version_takes(cli: Cli, recipe: Any) -> None:
    environment, words, audience = recipe()
    assert {name for name in environment if name.startswith("JITVAULT_")} <= set(variables())
    # the audience of the roles that `jitvault agents add` makes
    assert audience == TOKEN
    jitvault, command, _, *rest = words
    assert (jitvault, command) == ("jitvault", "exec")
    options = [word for word in rest[: rest.index("--")] if word.startswith("--")]
    shown = cli(None, "exec", "--help").stdout
    assert options and all(option in shown for option in options)
