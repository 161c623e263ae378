"""The environment variables that matter to each command, for its help.

docs/reference.md has all settings. With the worker's identity `complete` and `revoke` can break glass: they end access
where no worker does.
"""

from __future__ import annotations

_MEANINGS = {
    "VAULT_ADDR": "where Vault is",
    "VAULT_TOKEN": "who you are; without it ~/.vault-token",
    "JITVAULT_AGENT_LOGIN": "or an agent's own login: jwt, spiffe, cert or approle",
    "JITVAULT_ADMIN_TOKEN": "the administrator's token; VAULT_TOKEN without it",
    "JITVAULT_WORKER_TOKEN": "the worker's identity",
    "JITVAULT_WORKER_LOGIN": "or a login of it: approle, jwt, spiffe or cert",
    "JITVAULT_LEDGER": "where the ledger is: a path, or postgresql://…",
    "JITVAULT_AUDIT_FILE": "the audit device's file, or the spool directory",
    "JITVAULT_TEMPLATES": "a directory of templates, not the shipped ones",
    "JITVAULT_POLICIES": "a directory of policies, not the shipped ones",
    "JITVAULT_SANDBOX_SERVER": "the server program or image to run",
    "XDG_RUNTIME_DIR": "a tmpfs for the program's files; /dev/shm without it",
    "XDG_STATE_HOME": "where it remembers which wrappings you opened",
}
_BREAKS_GLASS = {"JITVAULT_WORKER_TOKEN": "the worker's identity: ends access without a worker"}
_MEANINGS_OF = {
    "complete": _BREAKS_GLASS,
    "revoke": _BREAKS_GLASS,
    "unfreeze": {"JITVAULT_WORKER_TOKEN": "the worker's identity: lifts what a tripwire froze"},
}
_PERSON = ("VAULT_ADDR", "VAULT_TOKEN", "JITVAULT_AGENT_LOGIN")
_ENDS = (*_PERSON, "JITVAULT_WORKER_TOKEN")
_WORKER = ("VAULT_ADDR", "JITVAULT_WORKER_TOKEN", "JITVAULT_WORKER_LOGIN", "JITVAULT_LEDGER", "JITVAULT_AUDIT_FILE")
_READS = (*_PERSON, "JITVAULT_LEDGER")
_ADMIN = ("VAULT_ADDR", "JITVAULT_ADMIN_TOKEN")
_TEMPLATES = ("JITVAULT_TEMPLATES",)
_POLICIES = ("JITVAULT_POLICIES", "JITVAULT_TEMPLATES")
_SANDBOX = ("JITVAULT_SANDBOX_SERVER",)

_VARIABLES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("submit", "grant"), (*_PERSON, *_TEMPLATES)),
    **dict.fromkeys(("complete", "revoke", "unfreeze"), _ENDS),
    **dict.fromkeys(("extend", "cancel", "freeze", "approve", "deny", "withdraw", "approvals"), _PERSON),
    "unwrap": (*_PERSON, "XDG_STATE_HOME"),
    "exec": (*_PERSON, "XDG_STATE_HOME", "XDG_RUNTIME_DIR"),
    **dict.fromkeys(("status", "list", "report", "freezes", "findings list"), _READS),
    **dict.fromkeys(("findings close", "sweep", "audit accept", "audit status", "ledger recover"), _WORKER),
    "worker": (*_WORKER, *_POLICIES),
    **dict.fromkeys(("init", "templates check"), (*_ADMIN, *_TEMPLATES)),
    **dict.fromkeys(("tidy", "approvers add", "approvers remove", "approvers list"), _ADMIN),
    **dict.fromkeys(("agents add", "agents remove", "agents list"), _ADMIN),
    "doctor": (*_PERSON, "JITVAULT_ADMIN_TOKEN", *_WORKER[1:]),
    **dict.fromkeys(("ledger upgrade", "ledger check", "ledger copy"), _READS),
    **dict.fromkeys(("spec check", "spec new"), _TEMPLATES),
    **dict.fromkeys(("templates list", "templates show"), (*_PERSON, *_TEMPLATES)),
    **dict.fromkeys(("policy check", "policy test", "policy explain"), (*_PERSON, *_POLICIES)),
    **dict.fromkeys(("demo", "dev"), _SANDBOX),
    **dict.fromkeys(("audit receive", "ledger grants", "verify"), ()),
    "completion": (),
}


def environment_of(path: str) -> dict[str, str]:
    """Return the variables of a command, each with its meaning.

    `path` is the command as typed after `jitvault`.
    """
    meanings = _MEANINGS | _MEANINGS_OF.get(path, {})
    return {name: meanings[name] for name in _VARIABLES.get(path, _PERSON)}
