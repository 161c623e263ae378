"""Check a receipt without trusting jitvault: its signature, and that the audit log shows what it says.

A thief of the worker's token can sign any receipt, and can cause and name any line that the worker can cause. So each
line has to be Vault's answer, without an error, of jitvault's namespace and about the task's own token or lease; it has
to be the worker's where only the worker's counts; and each check of each credential needs one of its own. Namespace
and worker are compared by the ids that you took from Vault, since names and policies can be anybody's.

    bao read -format=json jitvault-transit/keys/jitvault-receipts > key.json    # or `vault read …`
    bao read -field=id identity/entity/name/jitvault-worker                     # WORKER: whom the worker logs in as
    jitvault report TASK --receipt receipt.json
    python verify_receipt.py receipt.json key.json "$JITVAULT_AUDIT_FILE" --namespace root --worker-entity WORKER

The file that `jitvault export-keys` writes has all three: `verify_receipt.py receipt.json trust.json LOG`. Rotated
files beside each log are read as well, compressed or not; in a directory all files. The script uses the standard
library and `cryptography`, and nothing of jitvault. Exit code 0: everything is there; 1: something is wrong; 2: a file
cannot be read; 3: nothing is wrong, and not everything could be checked. `jitvault verify` also knows ends that met a
crash of Vault's.
"""

from __future__ import annotations

import argparse
import base64
import bz2
import gzip
import hashlib
import json
import lzma
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

TYPE = "application/vnd.jitvault.receipt+json"
ISSUED, REVOKED, GONE, TARGET = 1, 2, 3, 6
BEGUN = -1
PACKED = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
ZSTANDARD = b"\x28\xb5"
CREATE = "auth/token/create/"
PROVEN = ("audit_confirmed", "target_confirmed", "expired")
# what these answer has no lease
OWN_PATHS = ("auth/token/", "sys/", "cubbyhole/")


@dataclass
class Credential:
    """A token or lease of the receipt: its checks, and the lines on which they rest, by the number of the check."""

    name: str
    verdict: str
    checks: dict
    lease: str = ""
    accessor: str = ""
    role: str = ""

    @property
    def lines(self) -> dict[int, str]:
        """Evidence names a line by the SHA-256 of its bytes, line feed included."""
        return {n: found["sha256"] for n, found in self.checks.items() if found["kind"] == "line"}


@dataclass
class Known:
    """What the auditor took from Vault: keys by version, the namespace's id, the ids of the worker's entities."""

    keys: dict[str, str]
    namespace: str
    workers: list[str]


@dataclass
class Log:
    """What the files have: the lines that the receipt names, those about its tokens, and creations of others.

    `openers` are the wrapping tokens whose content was read from their cubbyhole. A record that was `rebuilt` has lost
    the accessors of its tokens, so that each is ended by its own lease.
    """

    named: dict[str, dict] = field(default_factory=dict)
    about: list[tuple[str, dict]] = field(default_factory=list)
    openers: set[str] = field(default_factory=set)
    others: set[str] = field(default_factory=set)
    last: str = ""
    rebuilt: bool = False


def signed_payload(envelope: dict, keys: dict) -> dict:
    """The receipt inside a DSSE envelope, if one of Vault's key versions signed it as a receipt."""
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
    covered = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    for signature in envelope["signatures"]:
        version = signature["keyid"].rpartition(":v")[2]
        public = base64.b64decode(keys[version])
        Ed25519PublicKey.from_public_bytes(public).verify(base64.b64decode(signature["sig"]), covered)
    if not envelope["signatures"] or envelope["payloadType"] != TYPE:
        raise InvalidSignature
    return json.loads(payload)


def credentials(receipt: dict) -> list[Credential]:
    """Each token and lease of the task."""
    proof, grants = receipt["proof"], receipt["grants"]
    last = grants[-1] if grants else {}
    earlier = [grant for grant in grants[:-1] if grant["accessor_hmac"]]
    tokens = [("task token", proof["token"], last)]
    for number, (said, grant) in enumerate(zip(proof.get("earlier_tokens", ()), earlier, strict=True), 1):
        tokens.append((f"earlier token {number}", said, grant))
    found = [
        Credential(name, said["verdict"], checks(said), accessor=grant.get("accessor_hmac") or "", role=grant["role"])
        if grant
        else Credential(name, said["verdict"], checks(said))
        for name, said, grant in tokens
    ]
    leases = proof["leases"]
    return found + [Credential(one["lease_id"], one["verdict"], checks(one), lease=one["lease_id"]) for one in leases]


def checks(said: dict) -> dict[int, dict]:
    """The evidence of each check that holds."""
    return {check["n"]: check["evidence"] for check in said["checks"] if check["ok"]}


def signed_facts(receipt: dict) -> list[str]:
    """Who asked and approved, for what, which access, and when it ended, each in one line."""
    names = {one["entity"]: one["name"] for one in receipt.get("approvers", ())}
    approved = [f"{names.get(entity, 'entity')} ({entity})" for entity in receipt["approved_by"]]
    access = [f"{one['template']} {one['with']} at {one['path']}" for one in receipt.get("access", ())]
    said = [
        f"requester {receipt['requester']['name']}, agent {receipt['agent']['name']}, owner {receipt['owner']['name']}",
        f"approved by {', '.join(approved) or 'nobody'}",
        f"intent: {receipt['intent']}",
        *(f"access: {one}" for one in access),
        *(f"issued at {grant['issued_at']}" for grant in receipt["grants"][:1]),
    ]
    if ended := receipt.get("ended"):
        said.append(f"ended at {ended['at']} by {ended['name'] or 'the worker'}: {ended['note'] or ended['reason']}")
    return said


def say(text: str) -> None:
    """Print one line: nothing that a receipt says may begin another one, or command the terminal."""
    print(text.encode("unicode_escape").decode())


def part(entry: dict, *names: str) -> dict:
    """A part of an entry, empty where it is not there."""
    for name in names:
        entry = entry.get(name) or {}
    return entry


def has_failed(entry: dict) -> bool:
    """Whether the answer has an error, or only says that Vault will do it (202)."""
    data = part(entry, "response", "data")
    return bool(entry.get("error")) or "error" in data or data.get("http_status_code") == 202


def no_lease(entry: dict, words: str) -> bool:
    """Whether a look-up failed because there is no such lease. The reason may be an HMAC; that it is a 400 is plain."""
    why = part(entry, "response", "data").get("error") or ""
    return "invalid request" in str(entry.get("error")) and (words in why or why.startswith("hmac-"))


def why_not(entry: dict, one: Credential, n: int, log: Log, known: Known) -> str:
    """Why a line does not show what a check says of a credential; empty if it does."""
    if entry.get("type") != "response" or entry["request"]["operation"] == "help":
        return "it shows nothing that Vault did"
    if n != ISSUED and (part(entry, "request").get("wrap_ttl") or part(entry, "response", "wrap_info")):
        return "its answer is in a wrapping"
    # a wrapping may be opened from any namespace
    unwrapped = one.lease and n == ISSUED and entry["request"]["path"].startswith("sys/wrapping/")
    if known.namespace and not unwrapped and namespace_of(entry) != known.namespace:
        return "it is of another namespace"
    about, by_anyone = (lease_line if one.lease else token_line)(entry, one, n, log)
    if not about:
        return "it does not show this"
    if known.workers and not by_anyone and part(entry, "auth").get("entity_id") not in known.workers:
        return "it is not the worker's"
    return ""


def lease_line(entry: dict, one: Credential, n: int, log: Log) -> tuple[bool, bool]:
    """Whether a line shows a check of a lease, and whether it does so whoever caused it."""
    path, data = entry["request"]["path"], part(entry, "request", "data")
    if n == ISSUED:
        return part(entry, "response", "secret").get("lease_id") == one.lease and not has_failed(entry), True
    if n == REVOKED:
        # a lease_id in the body would override that of the path
        at = f"sys/leases/revoke/{one.lease}"
        return path == at and "lease_id" not in data and not has_failed(entry), False
    if path == f"sys/leases/renew/{one.lease}":
        return "lease_id" not in data and no_lease(entry, "lease not found"), False
    # a look-up names its lease by an HMAC
    return path == "sys/leases/lookup" and "lease_id" in data and no_lease(entry, "invalid lease"), False


def token_line(entry: dict, one: Credential, n: int, log: Log) -> tuple[bool, bool]:
    """Whether a line shows a check of a token, and whether it does so whoever caused it."""
    path, data, failed = entry["request"]["path"], part(entry, "request", "data"), has_failed(entry)
    own_lease = re.fullmatch(rf"sys/leases/(revoke|renew)/{CREATE}{re.escape(one.role)}/h[0-9a-f]{{64}}(\.\w+)?", path)
    unused = log.rebuilt or not is_used(one, log)
    if n == ISSUED:
        wrapped = part(entry, "response", "wrap_info").get("wrapped_accessor")
        return path == CREATE + one.role and wrapped == one.accessor != "" and not failed, False
    if n == REVOKED:
        if path.startswith("sys/leases/revoke-prefix/"):
            prefix = path.removeprefix("sys/leases/revoke-prefix/").rstrip("/")
            # that Vault will do it (202) is enough for a token
            refused = entry.get("error") or "error" in part(entry, "response", "data")
            return f"{CREATE}{one.role}/".startswith(f"{prefix}/") and not refused, True
        if own_lease:
            return own_lease[1] == "revoke" and unused and not failed, False
        named = {"auth/token/revoke-accessor": data.get("accessor"), "auth/token/revoke-self": actor(entry)}
        if path in ("auth/token/revoke", "auth/token/revoke-orphan"):
            named[path] = one.accessor if data.get("token") in tokens_of(one.accessor, log) else None
        return named.get(path) == one.accessor != "" and not failed and not part(entry, "response").get(
            "warnings"
        ), True
    if path == "auth/token/lookup-accessor":
        return data.get("accessor") == one.accessor != "" and "invalid accessor" in str(entry.get("error")), False
    by_lease = (path == "sys/leases/lookup" and "lease_id" in data) or own_lease
    return bool(by_lease and unused and no_lease(entry, "lease")), False


def is_open_to_all(entry: dict) -> bool:
    """Whether Vault allowed a request without any policy: such a path gives no lease."""
    said = part(entry, "auth", "policy_results")
    return said.get("allowed") is True and not said.get("granting_policies")


def namespace_of(entry: dict) -> str:
    return part(entry, "request", "namespace").get("id", "")


def actor(entry: dict) -> str:
    return part(entry, "auth").get("accessor", "")


def opened(entry: dict) -> str:
    """The accessor of the token that somebody unwrapped."""
    return part(entry, "response", "auth").get("accessor", "") if "wrapping" in entry["request"]["path"] else ""


def is_used(one: Credential, log: Log) -> bool:
    """Whether somebody opened a token's wrapping, or used the token."""
    wraps = [part(line, "response", "wrap_info") for _, line in log.about]
    wrapping = {wrap.get("accessor") for wrap in wraps if wrap.get("wrapped_accessor") == one.accessor}
    return bool(wrapping & log.openers) or any(one.accessor in (actor(line), opened(line)) for _, line in log.about)


def tokens_of(accessor: str, log: Log) -> set[str]:
    """The HMACs of the token itself: its unwrap shows that of its issued form, and its acts that of its stored one."""
    issued = {part(line, "response", "auth").get("client_token") for _, line in log.about if opened(line) == accessor}
    stored = {part(line, "request").get("client_token") for _, line in log.about if actor(line) == accessor}
    return (issued | stored) - {None, ""}


def tasks_of(log: Log, own: set[str], known: Known) -> dict[str, set[str]]:
    """The tasks that Vault names beside each token: only tokens of jitvault's roles have such a policy.

    Whoever may make tokens gives them any metadata. Several audit devices show one request, each with other HMACs.
    """
    shown: dict[tuple[str, str, str], dict[str, str]] = {}
    for name, entry in log.about:
        if known.namespace and namespace_of(entry) != known.namespace:
            continue
        for whose, auth in (("caller", part(entry, "auth")), ("answer", part(entry, "response", "auth"))):
            is_ours = any(policy.startswith("jitvault-access-") for policy in auth.get("policies") or ())
            if is_ours and "jitvault_task" in part(auth, "metadata"):
                place = (entry["request"].get("id", name), entry["type"], whose)
                shown.setdefault(place, {})[auth.get("accessor", "")] = auth["metadata"]["jitvault_task"]
    given: dict[str, set[str]] = {}
    for tokens in shown.values():
        for accessor in tokens.keys() & own or tokens.keys():
            given.setdefault(accessor, set()).add(tokens[accessor])
    return given


def lived_on(one: Credential, log: Log) -> bool:
    """Whether Vault, asked after it was seen gone, found or renewed a token."""
    gone = log.named.get(one.lines.get(GONE, ""))
    if gone is None or not one.accessor:
        return False
    paths = ("auth/token/lookup-accessor", "auth/token/renew-accessor")
    about = [line for _, line in log.about if line["request"]["path"] in paths]
    about = [line for line in about if part(line, "request", "data").get("accessor") == one.accessor]
    asked = {line["request"].get("id") for line in about if moment(line["time"]) <= moment(gone["time"])}
    after = [line for line in about if line["type"] == "response" and line["request"].get("id") not in asked]
    return any(not has_failed(line) and part(line, "response", "data").get("num_uses") != BEGUN for line in after)


def left_out(receipt: dict, every: list[Credential], log: Log, known: Known) -> Iterator[str]:
    """What the log shows about the task and its tokens that the receipt does not say."""
    own = {one.accessor for one in every if one.accessor}
    leases = {one.lease for one in every if one.lease}
    found = {
        finding["line"] for finding in receipt["findings"] if finding["rule"] in ("wrapped_lease", "outside_template")
    }
    wrapped: dict[str, list[tuple[str, dict]]] = {}
    given = tasks_of(log, own, known)
    for name, entry in log.about:
        path = entry["request"]["path"]
        lease = part(entry, "response", "secret").get("lease_id")
        if actor(entry) in own and lease and lease not in leases and not has_failed(entry):
            yield f"the receipt leaves out lease {lease!r}"
        if actor(entry) in own and not path.startswith(OWN_PATHS) and not is_open_to_all(entry):
            wrapped.setdefault(entry["request"].get("id", name), []).append((name, entry))
    for lines in wrapped.values():
        asked = any(part(entry, "response", "wrap_info") and not has_failed(entry) for _, entry in lines)
        if asked and not found & {name for name, _ in lines}:
            yield f"a token read {lines[0][1]['request']['path']!r} in a wrapping, and no finding says so"
    for accessor, tasks in given.items():
        if accessor in own and tasks - {receipt["task"]}:
            yield "Vault gave a token of it to another task"
        if accessor not in own and receipt["task"] in tasks:
            yield "Vault gave this task a token that the receipt leaves out"
    for one in every:
        if lived_on(one, log):
            yield f"{one.name} lived after it was found gone"
    if leases and not any(receipt["task"] in given.get(accessor, ()) for accessor in own):
        yield "Vault gave no token to this task that the leases were read with"


def not_shown(one: Credential, log: Log, *, forced: bool) -> Iterator[str]:
    """What a credential of a proven task lacks: each check needs a line of its own, in their order.

    Only where Vault was made to forget a lease is there no revocation.
    """
    if one.verdict == "never_issued" and not one.lease and not one.accessor:
        return
    if one.verdict not in PROVEN:
        yield f"{one.name} is called {one.verdict}, and Vault issued it"
    if ISSUED not in one.lines:
        yield f"no line shows how {one.name} was issued"
    if one.verdict == "expired":
        if one.lease or is_over(one, log) is False:
            yield f"nothing shows that the time of {one.name} was over"
    elif GONE not in one.lines or (REVOKED not in one.lines and not (forced and one.lease)):
        yield f"no lines show how {one.name} was revoked and found gone"
    times = [log.named[line]["time"] for _, line in sorted(one.lines.items()) if line in log.named]
    if times != sorted(times, key=moment):
        yield f"the lines of {one.name} are not in the order of what they are to show"


def is_over(one: Credential, log: Log) -> bool | None:
    """Whether a token's time is over within the files: look-ups and renewals say how long it lives.

    The result is None where there are none, as where the worker died right after the creation.
    """
    ends = []
    for _, entry in log.about:
        answered = part(entry, "response", "auth")
        named = (part(entry, "request", "data").get("accessor"), answered.get("accessor"), actor(entry))
        if entry["type"] != "response" or one.accessor not in named or has_failed(entry):
            continue
        if until := part(entry, "response", "data").get("expire_time"):
            ends.append(moment(until))
        if answered.get("token_ttl"):
            ends.append(moment(entry["time"]) + timedelta(seconds=answered["token_ttl"]))
        elif entry["request"]["path"].startswith("auth/token/renew"):
            # its answer is in a wrapping: nobody knows how long it gave
            return False
    return bool(log.last) and moment(log.last) >= max(ends) if ends else None


def not_joined(every: list[Credential], log: Log) -> Iterator[str]:
    """What is said of a token and no line can show of that very one."""
    for one in every:
        if one.verdict == "expired" and not one.lease and is_over(one, log) is None:
            yield f"when the time of {one.name} was over: no line says how long it could live"
        ends = [
            part(log.named.get(line, {}), "request").get("path", "") for n, line in one.lines.items() if n != ISSUED
        ]
        by_lease = any(path.startswith("sys/leases/") and "/revoke-prefix/" not in path for path in ends)
        if log.rebuilt and not one.lease and by_lease and is_used(one, log):
            yield f"that the lease whose end is shown is that of {one.name}: the record was rebuilt"


def not_approved(receipt: dict) -> Iterator[str]:
    """Who approved and may not have, and which approvals are missing."""
    held = [*((link, f" of {link['task']}") for link in receipt["delegation"]), (receipt, "")]
    # any other part counts before that of an owner, whom policy may let approve
    parties = {one["owner"]["entity"]: f"owner{of}" for one, of in held}
    parties |= {one[who]["entity"]: who + of for one, of in held for who in ("agent", "requester")}
    by_owner = receipt["policy"]["obligations"].get("owner_may_approve")
    for entity in parties.keys() & set(receipt["approved_by"]):
        if parties[entity] != "owner" or not by_owner:
            yield f"the {parties[entity]} approved the task"
    for extension in receipt["extensions"]:
        approved = {one["entity"] for one in extension["approved_by"]}
        if extension["by"]["entity"] in approved:
            yield f"{extension['by']['name']} asked for more time and approved it"
        # a receipt does not say whether policy let the owner approve an extension
        for entity in parties.keys() & approved:
            if parties[entity] != "owner":
                yield f"the {parties[entity]} approved more time"
    if not receipt["recovered"] and (missing := uncounted(receipt)):
        yield missing


def uncounted(receipt: dict) -> str:
    """Which approvals are missing; a record that was rebuilt may have lost some."""
    needed = sum(one["count"] for one in receipt["policy"]["obligations"].get("approvals", ()))
    approved = len(set(receipt["approved_by"]))
    was_granted = any(grant["accessor_hmac"] for grant in receipt["grants"])
    return f"policy demands {needed} approvals, and {approved} approved" if was_granted and approved < needed else ""


def moment(text: str) -> datetime:
    # Vault writes nine digits
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))


def logs(names: str) -> Iterator[Path]:
    """The files that JITVAULT_AUDIT_FILE names, with what was rotated away of them."""
    for path in map(Path, names.split(os.pathsep)):
        # its error is better than that of each line which is missing then
        path.stat()
        beside = path.iterdir() if path.is_dir() else path.parent.glob(f"{path.stem}*")
        yield from sorted(file for file in beside if file.is_file())


def lines_of(log: Path) -> Iterator[bytes]:
    with log.open("rb") as raw:
        begin = raw.read(2)
    if begin == ZSTANDARD:
        raise OSError(f"{log} is compressed by zstd, which this script does not read: unzstd it first")
    with PACKED.get(begin, Path.open)(log, "rb") as lines:
        yield from lines


def read(files: str, receipt: dict, every: list[Credential]) -> Log:
    """Read every line once."""
    wanted = {line for one in every for line in one.lines.values()}
    needles = [one.accessor.encode() for one in every if one.accessor]
    log = Log(rebuilt=bool(receipt["recovered"]))
    for line in (line for file in logs(files) for line in lines_of(file)):
        name = hashlib.sha256(line).hexdigest()
        is_about = any(needle in line for needle in needles) or names_task(line, receipt["task"])
        if name in wanted:
            log.named[name] = json.loads(line)
        if is_about:
            log.about.append((name, json.loads(line)))
        elif b'"path":"cubbyhole/response"' in line:
            log.openers.add(actor(json.loads(line)))
        elif b'"wrapped_accessor"' in line and b'"path":"auth/token/create/jitvault-' in line:
            log.others.add(name)
        stamp = re.search(rb'"time":"(2[0-9T:.-]+Z)"', line)
        log.last = max(log.last, stamp[1].decode()) if stamp else log.last
    return log


def names_task(line: bytes, task: str) -> bool:
    """Whether Vault names the task beside a token."""
    # the same text has several forms in JSON, so it is not looked for in the bytes
    entry = json.loads(line) if b'"jitvault_task"' in line else {}
    given = (part(entry, "auth", "metadata"), part(entry, "response", "auth", "metadata"))
    return any(metadata.get("jitvault_task") == task for metadata in given)


def known(file: str, namespace: str, workers: list[str]) -> Known:
    """What the auditor took from Vault: its answer for the key with two ids, or a trust file."""
    given = json.loads(Path(file).read_text())
    if "receipt_keys" in given:
        keys = {str(key["version"]): key["public_key"] for key in given["receipt_keys"]}
        return Known(keys, given["namespace"]["id"], [worker["entity"] for worker in given["workers"]])
    return Known({v: key["public_key"] for v, key in given["data"]["keys"].items()}, namespace, workers)


def report(receipt: dict, every: list[Credential], log: Log, trusted: Known) -> tuple[list[str], list[str]]:
    """Print each line with what it shows. Returns what is wrong, and what was not checked."""
    proof, wrong = receipt["proof"], []
    rests = [(n, line, log.named.get(line, {})) for one in every for n, line in one.lines.items()]
    # one revocation by a prefix ends many tokens; a look-up names its lease by an HMAC
    prefix = {line for _, line, entry in rests if "/revoke-prefix/" in part(entry, "request").get("path", "")}
    shared = Counter(line for _, line, _ in rests if line not in prefix)
    looked_up = Counter(part(entry, "request", "data").get("lease_id", line) for n, line, entry in rests if n == GONE)
    wrong += [f"{name} is looked up for two credentials" for name, count in looked_up.items() if count > 1]
    for one in every:
        for n, line in sorted(one.lines.items()):
            why = why_not(log.named[line], one, n, log, trusted) if line in log.named else "it is in none of the files"
            why = why or ("it is to show two things" if shared[line] > 1 else "")
            found = "found" if not why else "MISSING" if line not in log.named else "NOT ITS"
            say(f"  {found:7} {line}  {one.name}, check {n}{f': {why}' if why else ''}")
            wrong += [f"line {line}: {why}"] if why and line in log.named else []
        wrong += not_shown(one, log, forced=bool(proof.get("forced"))) if proof["confirmed"] else ()
    if missing := {line for _, line, _ in rests} - log.named.keys():
        wrong.append(f"{len(missing)} lines are in none of the files")
    if not proof["confirmed"]:
        wrong.append("the task was closed without proof")
    if proof["task_id"] != receipt["task"]:
        wrong.append("its proof is about another task")
    if len({namespace_of(entry) for entry in log.named.values()}) > 1 and not trusted.namespace:
        wrong.append("the lines are of several namespaces")
    wrong += left_out(receipt, every, log, trusted)
    wrong += not_approved(receipt)
    unchecked = [] if trusted.namespace else ["of which namespace the lines are (--namespace)"]
    unchecked += [] if trusted.workers else ["whether the worker caused the lines (--worker-entity)"]
    unchecked += ["what the target answered, on which a forced end rests"] if proof.get("forced") else []
    unchecked += [uncounted(receipt)] if receipt["recovered"] and uncounted(receipt) else []
    unchecked += not_joined(every, log)
    return wrong, unchecked


def closing(proof: dict) -> str:
    """How the task was closed. Only a lease with check 6 was asked about at its target."""
    if not proof["confirmed"]:
        return "closed WITHOUT PROOF"
    asked = all(any(check["n"] == TARGET for check in lease["checks"]) for lease in proof["leases"])
    return "sealed" if asked else "revoked at Vault; the target was not asked; sealed"


def main(receipt_file: str, key_file: str, audit_files: str, namespace: str, workers: list[str]) -> int:
    trusted = known(key_file, namespace, workers)
    try:
        receipt = signed_payload(json.loads(Path(receipt_file).read_text()), trusted.keys)
        every = credentials(receipt)
    except (InvalidSignature, KeyError, ValueError, TypeError):
        say("this is NOT a receipt that Vault's key signed")
        return 1
    log = read(audit_files, receipt, every)
    proof = receipt["proof"]
    state = closing(proof)
    say(f"task {receipt['task']}: {proof['end_reason']}, {state} at {receipt['sealed_at']}")
    for line in signed_facts(receipt):
        say(f"  {line}")
    wrong, unchecked = report(receipt, every, log, trusted)
    for said in proof.get("not_proven", ()):
        say(f"  not proven: {said}")
    for problem in dict.fromkeys(wrong):
        say(f"  WRONG   {problem}")
    for what in unchecked:
        say(f"  NOT CHECKED: {what}")
    say(f"  not checked: {len(log.others)} more tokens of the worker's roles are in these files, of any task")
    total = sum(len(one.lines) for one in every)
    say(f"signature: valid; {total} lines {'are NOT all' if wrong else 'are'} in the log and about this task")
    return 1 if wrong else 3 if unchecked else 0


if __name__ == "__main__":
    words = argparse.ArgumentParser(description="Check a receipt of jitvault's without any code of jitvault's.")
    words.add_argument("receipt")
    words.add_argument("key")
    words.add_argument("audit")
    words.add_argument("--namespace", default="")
    words.add_argument("--worker-entity", action="append", default=[])
    given = words.parse_args()
    try:
        sys.exit(main(given.receipt, given.key, given.audit, given.namespace, given.worker_entity))
    except (OSError, EOFError, lzma.LZMAError) as error:
        words.error(str(error))
