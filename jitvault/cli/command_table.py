"""All commands: how each is typed, where it is declared, and its line in the list of commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

RESULT = "Print the result as {}."


class Place(NamedTuple):
    """Say where a command is declared below `commands`, as module:function, and what it does.

    `summary` is the first line of its help. `output` says what `-o` does, empty where the command prints no result.
    """

    function: str
    summary: str
    is_hidden: bool = False
    output: str = RESULT


COMMANDS: Mapping[str | None, Mapping[str, Place]] = {
    "For operators": {
        "submit": Place("requests.grant:submit", "Sign a task spec and request a decision about it."),
        "grant": Place("requests.grant:grant", "Issue a task's access, and print its wrapping token or who takes it."),
        "extend": Place("requests.extend:extend", "Move the deadline of a task that holds access."),
        "complete": Place("ends.end:complete", "Complete a task: revoke its access and confirm the revocation."),
        "revoke": Place("ends.end:revoke", "Revoke the access of one task, or of many tasks, at once."),
        "cancel": Place("requests.grant:cancel", "Cancel a task that has not been granted."),
        "freeze": Place("ends.freeze:freeze", "Freeze an agent, template, owner or everything, and end held access."),
        "unfreeze": Place("ends.freeze:unfreeze", "Lift a freeze, so that tasks can be granted again."),
        "freezes": Place("ends.freeze_list:freezes", "List the active freezes: of what, by whom, since when and why."),
    },
    "For approvers": {
        "approve": Place("decisions.approve:approve", "Show what a task would be granted, and sign your approval."),
        "deny": Place("decisions.approve:deny", "Show what a task would be granted, and sign a denial."),
        "withdraw": Place("decisions.approve:withdraw", "Withdraw your approval of a task."),
        "approvals": Place("decisions.approve:approvals", "Show every task that waits for your approval."),
    },
    "For agents (and grant, status, extend, complete, cancel, spec new)": {
        "unwrap": Place("access.unwrap:unwrap", "Take a task token out of its wrapping."),
        "exec": Place(
            "access.execute:execute",
            "Run a program with a task's access, then give the access back.",
            output="Print this command's errors as json; stdout is the program's.",
        ),
        "hold": Place(
            "access.hold:hold", "Hold a task's access for another process, until standard input ends.", is_hidden=True
        ),
        "mcp": Place("access.mcp:mcp", "Serve a model by MCP on standard input and output.", output=""),
    },
    "For auditors": {
        "status": Place("reading.show:status", "Show a task with its revision, decisions, grant, leases and timeline."),
        "list": Place("reading.task_list:list_", "List tasks: whose they are, what they hold and who is waited for."),
        "report": Place("reading.report:report", "Export one row for each lease, and the receipt of a sealed task."),
        "verify": Place(
            "reading.verify:verify", "Verify a receipt offline, and say what was checked and what was not."
        ),
        "export-keys": Place(
            "reading.export_keys:export_keys", "Write the trust file by which receipts are verified offline."
        ),
    },
    "For administrators": {
        "worker": Place(
            "installation.worker:worker", "Run the lifecycle of all tasks until Ctrl-C or SIGTERM.", output=""
        ),
        "sweep": Place(
            "installation.sweep:sweep", "Compare Vault's tokens and leases with the ledger and the audit stream."
        ),
        "init": Place("installation.init:init", "Provision Vault's mounts, policies, roles, groups, keys and limits."),
        "tidy": Place("installation.tidy:tidy", "Remove documents of old requests and finished tasks from Vault."),
        "doctor": Place("installation.doctor:doctor", "Check whether access can be granted, revoked and proven here."),
        "agents add": Place(
            "installation.agents:add", "Register agents with their logins, their signing keys and their group."
        ),
        "agents remove": Place("installation.agents:remove", "Remove an agent with its login and its entity."),
        "agents list": Place("installation.agents:list_", "List the agents with their logins."),
        "approvers add": Place(
            "decisions.approvers:add", "Register an approver with their groups and their signing key."
        ),
        "approvers remove": Place("decisions.approvers:remove", "Remove an approver's registration."),
        "approvers list": Place("decisions.approvers:list_", "List the registered approvers with their groups."),
        "findings list": Place("ends.findings:list_", "List open findings with their numbers."),
        "findings close": Place(
            "ends.findings:close", "Close findings by number, by rule, or all of an agent's tasks."
        ),
        "ledger recover": Place(
            "installation.ledger_recover:ledger_recover", "Rebuild a lost ledger, or correct a restored one."
        ),
        "ledger upgrade": Place(
            "installation.ledger:ledger_upgrade", "Create the ledger's tables, or upgrade them to this version."
        ),
        "ledger grants": Place(
            "installation.ledger:ledger_grants",
            "Print the SQL that gives a role what it needs at a ledger on PostgreSQL.",
        ),
        "ledger check": Place(
            "installation.ledger:ledger_check", "Check the ledger's schema and triggers, and every task's event chain."
        ),
        "ledger copy": Place(
            "installation.ledger:ledger_copy", "Copy the whole ledger into an empty database, and verify the copy."
        ),
        "audit receive": Place("installation.audit_receive:receive", "Receive what Vault's audit devices push."),
        "audit status": Place(
            "installation.audit_status:audit_status", "Send a canary through the audit stream and show each source."
        ),
        "audit accept": Place(
            "installation.audit_status:audit_accept",
            "Accept that audit lines were lost, after you have repaired the cause.",
        ),
    },
    "On this machine": {
        "demo": Place("sandbox.demo:demo", "Run one task from its request to its seal on real servers."),
        "dev": Place("sandbox.dev:dev", "Run a provisioned sandbox in the foreground until Ctrl-C.", output=""),
        "completion": Place("installation.completion:completion", "Print the completion script of a shell.", output=""),
        "spec new": Place("requests.spec:spec_new", "Print a task spec for a template, to be completed and granted."),
        "spec check": Place("requests.spec:spec_check", "Check a task spec and its templates."),
        "templates list": Place("installation.templates:templates_list", "List the access templates."),
        "templates show": Place(
            "installation.templates:templates_show", "Show one access template and the Vault paths that it can grant."
        ),
        "templates check": Place(
            "installation.templates:templates_check", "Check that a template's credentials can be revoked."
        ),
        "policy check": Place(
            "decisions.policy:policy_check", "Check a policy set against its schema, and find rules that never decide."
        ),
        "policy test": Place("decisions.policy:policy_test", "Run test cases against the policies in use."),
        "policy explain": Place(
            "decisions.policy:policy_explain", "Explain what the policies would decide about a spec now."
        ),
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
