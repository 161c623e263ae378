"""All commands: how each is typed, and where below `commands` it is declared, as module:function."""

from __future__ import annotations

from collections.abc import Mapping

COMMANDS: Mapping[str | None, Mapping[str, str]] = {
    "For operators": {
        "submit": "requests.grant:submit",
        "grant": "requests.grant:grant",
        "extend": "requests.extend:extend",
        "complete": "ends.end:complete",
        "revoke": "ends.end:revoke",
        "cancel": "requests.grant:cancel",
        "freeze": "ends.freeze:freeze",
        "unfreeze": "ends.freeze:unfreeze",
        "freezes": "ends.freeze_list:freezes",
    },
    "For approvers": {
        "approve": "decisions.approve:approve",
        "deny": "decisions.approve:deny",
        "withdraw": "decisions.approve:withdraw",
        "approvals": "decisions.approve:approvals",
    },
    "For agents (and grant, status, extend, complete, cancel, spec new)": {
        "unwrap": "access.unwrap:unwrap",
        "exec": "access.execute:execute",
        "hold": "access.hold:hold",
        "mcp": "access.mcp:mcp",
    },
    "For auditors": {
        "status": "reading.show:status",
        "list": "reading.task_list:list_",
        "report": "reading.report:report",
        "verify": "reading.verify:verify",
        "export-keys": "reading.export_keys:export_keys",
    },
    "For administrators": {
        "worker": "installation.worker:worker",
        "sweep": "installation.sweep:sweep",
        "init": "installation.init:init",
        "tidy": "installation.tidy:tidy",
        "doctor": "installation.doctor:doctor",
        "agents add": "installation.agents:add",
        "agents remove": "installation.agents:remove",
        "agents list": "installation.agents:list_",
        "approvers add": "decisions.approvers:add",
        "approvers remove": "decisions.approvers:remove",
        "approvers list": "decisions.approvers:list_",
        "findings list": "ends.findings:list_",
        "findings close": "ends.findings:close",
        "ledger recover": "installation.ledger_recover:ledger_recover",
        "ledger upgrade": "installation.ledger:ledger_upgrade",
        "ledger grants": "installation.ledger:ledger_grants",
        "ledger check": "installation.ledger:ledger_check",
        "ledger copy": "installation.ledger:ledger_copy",
        "audit receive": "installation.audit_receive:receive",
        "audit status": "installation.audit_status:audit_status",
        "audit accept": "installation.audit_status:audit_accept",
    },
    "On this machine": {
        "demo": "sandbox.demo:demo",
        "dev": "sandbox.dev:dev",
        "completion": "installation.completion:completion",
        "spec new": "requests.spec:spec_new",
        "spec check": "requests.spec:spec_check",
        "templates list": "installation.templates:templates_list",
        "templates show": "installation.templates:templates_show",
        "templates check": "installation.templates:templates_check",
        "policy check": "decisions.policy:policy_check",
        "policy test": "decisions.policy:policy_test",
        "policy explain": "decisions.policy:policy_explain",
    },
}
"""The commands by the headings of the help."""

GROUPS = {
    "agents": "Register, remove and list agents.",
    "approvers": "Register, remove and list approvers.",
    "findings": "List findings, and close those that were looked into.",
    "ledger": "Create, upgrade, check, copy and recover the ledger.",
    "audit": "Receive, check and repair the audit stream.",
    "spec": "Begin and check task specs.",
    "templates": "List, show and check access templates.",
    "policy": "Check, test and explain the policies that decide about grants.",
}
"""What the help says of words that several commands begin with."""

HIDDEN = frozenset({"hold"})
"""Commands that are in no help: what the SDK starts."""
