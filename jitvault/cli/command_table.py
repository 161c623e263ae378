"""All commands: how each is typed, and where it is declared."""

from __future__ import annotations

from collections.abc import Mapping

from jitvault.cli.lazy_commands import Below

COMMANDS: Mapping[str | None, Mapping[str, str | Below]] = {
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
        "agents": Below(
            "Register, remove and list agents.",
            {
                "add": "installation.agents:add",
                "remove": "installation.agents:remove",
                "list": "installation.agents:list_",
            },
        ),
        "approvers": Below(
            "Register, remove and list approvers.",
            {
                "add": "decisions.approvers:add",
                "remove": "decisions.approvers:remove",
                "list": "decisions.approvers:list_",
            },
        ),
        "findings": Below(
            "List findings, and close those that were looked into.",
            {"list": "ends.findings:list_", "close": "ends.findings:close"},
        ),
        "ledger": Below(
            "Create, upgrade, check, copy and recover the ledger.",
            {
                "recover": "installation.ledger_recover:ledger_recover",
                "upgrade": "installation.ledger:ledger_upgrade",
                "grants": "installation.ledger:ledger_grants",
                "check": "installation.ledger:ledger_check",
                "copy": "installation.ledger:ledger_copy",
            },
        ),
        "audit": Below(
            "Receive, check and repair the audit stream.",
            {
                "receive": "installation.audit_receive:receive",
                "status": "installation.audit_status:audit_status",
                "accept": "installation.audit_status:audit_accept",
            },
        ),
    },
    "On this machine": {
        "demo": "sandbox.demo:demo",
        "dev": "sandbox.dev:dev",
        "completion": "installation.completion:completion",
        "spec": Below(
            "Begin and check task specs.", {"new": "requests.spec:spec_new", "check": "requests.spec:spec_check"}
        ),
        "templates": Below(
            "List, show and check access templates.",
            {
                "list": "installation.templates:templates_list",
                "show": "installation.templates:templates_show",
                "check": "installation.template_check:templates_check",
            },
        ),
        "policy": Below(
            "Check, test and explain the policies that decide about grants.",
            {
                "check": "decisions.policy:policy_check",
                "test": "decisions.policy:policy_test",
                "explain": "decisions.policy:policy_explain",
            },
        ),
    },
}

HIDDEN = frozenset({"hold"})
"""Commands that are in no help: what the SDK starts."""
