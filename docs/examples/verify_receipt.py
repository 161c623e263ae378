"""Check a receipt without trusting jitvault: its signatures, and that the audit log shows what it says.

A receipt is an in-toto statement of the form https://jitvault.dev/receipt/v1, which docs/receipt.md describes; a field
more or less is refused. A thief of the worker's token can sign any receipt, and can cause and name any line that the
worker can cause. So each line has to be Vault's answer, without an error, of jitvault's namespace and about the task's
own token or lease; it has to be the worker's where only the worker's counts; and each check of each credential needs
one of its own. Namespace and worker are compared by the ids that you took from Vault, since names and policies can be
anybody's.

    bao read -format=json jitvault-transit/keys/jitvault-receipts > key.json    # or `vault read …`
    bao read -field=id identity/entity/name/jitvault-worker                     # WORKER: whom the worker logs in as
    jitvault report TASK --receipt receipt.json
    python verify_receipt.py receipt.json key.json "$JITVAULT_AUDIT_FILE" --namespace root --worker-entity WORKER

The file that `jitvault export-keys` writes has all three, the keys of those who asked, approved and ended, and the
issuers of certificates; without these, what people and issuers signed is attested: `verify_receipt.py receipt.json
trust.json LOG`. Each WRONG names its places in
the statement, and ATTESTED are those that nothing derives again. Rotated files beside each log are read as well,
compressed or not; in a directory all files. The script uses the standard library and `cryptography`, and nothing of
jitvault. Exit code 0: everything is there; 1: something is wrong; 2: a file cannot be read; 3: nothing is wrong, and
not everything could be checked. `jitvault verify` also knows ends that met a crash of Vault's.
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

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509 import ocsp
from cryptography.x509.oid import SignatureAlgorithmOID

TYPE = "application/vnd.in-toto+json"
DOCUMENT = "application/vnd.jitvault.document+json"
RECEIPTS = "jitvault-receipts"
ISSUED, REVOKED, GONE, TARGET = 1, 2, 3, 6
BEGUN = -1
PACKED = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
ZSTANDARD = b"\x28\xb5"
CREATE = "auth/token/create/"
PROVEN = ("audit_confirmed", "target_confirmed", "expired")
# what these answer has no lease
OWN_PATHS = ("auth/token/", "sys/", "cubbyhole/")


# The form of a receipt: each object has exactly these fields. A tuple is one of several forms, a list any number of one
# form, or just one ("alone").
TEXT, INT, BOOL, BYTES = "text", "whole number", "true or false", "base64"
COUNT, NUMBER = "whole number, 0 or more", "whole number, 1 or more"
LEAST = {INT: 1 - 2**53, COUNT: 0, NUMBER: 1}
TIME, INSTANT, SHA256, DIGEST = "time in UTC", "time", "SHA-256", "digest"
VERDICT, STATE, REASON, LEVEL, CLOSED, ANSWERED = (
    "verdict",
    "state",
    "reason",
    "level",
    "way to close",
    "form of answer",
)
PARTY = {"entity": TEXT, "name": TEXT}
SIGNED = {"payload": BYTES, "payloadType": TEXT, "signatures": [{"keyid": TEXT, "sig": BYTES}, "alone"]}
PARTIES = {"requester": PARTY, "agent": PARTY, "owner": PARTY}
CHAIN = {"events": NUMBER, "head": SHA256}
ANSWER = {"engine": TEXT, "question": TEXT, "answer": TEXT}
# what a check that does not hold lacks has some of these fields, by its kind
MISSING = {"kind", "lack", "for_good", "about", "name", "at", "line", "read", "count", "elided"}
EVIDENCE = {
    "line": {"sha256": SHA256, "source": TEXT, "request_id": TEXT, "operation": TEXT, "path": TEXT, "at": TIME},
    "expiry": {"at": TIME},
    "interval": {"begin": TIME, "end": TIME},
    "contiguous": {"source": TEXT, "begin": COUNT, "end": COUNT},
    "gap": {"listing": SHA256, "closed": CLOSED, "line": (SHA256, None)},
    "target_answer": ANSWER,
    "signed_answer": {**ANSWER, "form": ANSWERED, "sha256": SHA256, "der": (BYTES, None)},
    "quiet": {"ms": COUNT, "listed": ("missing", None)},
    "no_token": {},
    "missing": {},
}
PROVES = {1: ["line"], 2: ["line", "expiry"], 3: ["line", "expiry"], 4: ["interval"], 5: ["contiguous", "gap"]}
PROVES |= {6: ["target_answer", "signed_answer"], 7: ["quiet", "no_token"]}
CREDENTIAL = {"verdict": VERDICT, "checks": [{"n": INT, "ok": BOOL, "evidence": "evidence"}]}
PROOF = {
    "task_id": TEXT, "state": STATE, "end_reason": (REASON, None), "confirmed": BOOL, "reopened": INT,
    "forced": ({"by": TEXT, "name": TEXT, "reason": TEXT}, None), "dead_ms": (INT, None), "confirmed_ms": (INT, None),
    "leases": [{**CREDENTIAL, "lease_id": TEXT, "template": TEXT, "error": (TEXT, None)}], "token": CREDENTIAL,
    "earlier_tokens": [CREDENTIAL], "target_asked": (BOOL, None), "not_proven": [TEXT],
}  # fmt: skip
EXTENSION = {
    "by": PARTY, "reason": TEXT, "since": TIME, "seconds": INT, "until": TEXT, "window_s": INT, "digest": DIGEST,
    "approved_by": [PARTY], "rules": [TEXT], "policy_digest": TEXT, "replaces": (TEXT, None), "at": TIME,
    "signed_request": SIGNED, "signed": [SIGNED],
}  # fmt: skip
GRANT = {
    "grant": TEXT, "attempt": INT, "role": TEXT, "accessor_hmac": (TEXT, None), "requested_ttl_s": INT, "ttl_s": INT,
    "step_s": INT, "issued_at": (TIME, None), "expires_at": (TIME, None), "verdict": VERDICT,
}  # fmt: skip
OBLIGATIONS = {
    "approvals": [{"group": TEXT, "count": NUMBER}], "max_ttl_s": (INT, None), "max_window_s": (INT, None),
    "confirm": (LEVEL, None), "notify": [TEXT], "owner_may_approve": [TEXT],
}  # fmt: skip
POLICY = {"permitted": BOOL, "obligations": OBLIGATIONS, "rules": [TEXT], "reasons": [TEXT], "policy_digest": TEXT}
PREDICATE = {
    **PARTIES, "installation": TEXT, "task": TEXT, "revision": NUMBER, "intent": TEXT, "approved_by": [TEXT],
    "delegation": [{**PARTIES, "task": TEXT, "digest": DIGEST}], "approvers": [PARTY],
    "children": [{"task": TEXT, "digest": DIGEST, "state": STATE, "chain": CHAIN}],
    "access": [{"template": TEXT, "path": TEXT, "with": {"*": TEXT}}],
    "ended": ({"by": (TEXT, None), "name": (TEXT, None), "at": TIME, "reason": TEXT, "note": TEXT}, None),
    "documents": {"request": (SIGNED, None), "decisions": [SIGNED], "ends": [SIGNED], "freeze": (SIGNED, None)},
    "policy": POLICY, "grants": [GRANT], "extensions": [EXTENSION], "proof": PROOF, "chain": CHAIN, "sealed_at": TIME,
    "findings": [{"rule": TEXT, "message": TEXT, "line": (TEXT, None)}],
    "recovered": [{"at": TIME, "from": {"*": "text or number"}, "verified_by": [TEXT]}],
}  # fmt: skip
STATEMENT = {
    "_type": ["https://in-toto.io/Statement/v1"],
    "subject": [{"name": TEXT, "digest": {"sha256": SHA256}, "content": BYTES}, "alone"],
    "predicateType": ["https://jitvault.dev/receipt/v1"], "predicate": PREDICATE,
}  # fmt: skip
REPEATED = ("installation", "task", "revision", *PARTIES, "delegation", "intent", "access")
SECOND = "[0-9]{4}-[0-9]{2}-[0-9]{2}T(?!24)[0-9]{2}:[0-9]{2}:[0-9]{2}"
FORMS = {TIME: rf"{SECOND}(\.(?!0{{6}})[0-9]{{6}})?Z"}
FORMS |= {INSTANT: rf"{SECOND}(\.[0-9]{{1,6}})?(Z|[+-][0-9]{{2}}:[0-9]{{2}})"}
FORMS |= {SHA256: "[0-9a-f]{64}", DIGEST: "sha256:[0-9a-f]{64}"}
FORMS |= {
    VERDICT: "live|revoke_requested|acknowledged|gone|audit_confirmed|target_confirmed|revoke_failed|irrevocable|"
    "expired|never_issued|unverifiable",
    STATE: "pending_approval|approved|issuing|issued|active|ending|confirmed|sealed|unverified|denied|cancelled|lapsed",
    REASON: "completed|deadline|expired|unclaimed|intercepted|issue_failed|policy|heartbeat|frozen|tripwire|operator|"
    "parent|drift",
    LEVEL: "audit|target",
    CLOSED: "ended_before|revoked_itself|target_refuses|found_revoked|seen_alive",
    ANSWERED: "ocsp|certificate",
    BYTES: "[A-Za-z0-9+/=]*",
}
# the same of what people sign, but for what may be left out
PAPER = {"kind": TEXT, "task": TEXT, "entity": TEXT, "nonce": TEXT, "at": INSTANT}
PAPERS = {
    "submit": {**PAPER, "spec": {"*": "anything"}, "revise": BOOL},
    "extend": {**PAPER, "digest": DIGEST, "ends_at": INSTANT, "seconds": INT, "reason": TEXT},
    "end": {**PAPER, "reason": TEXT, "note": TEXT},
    "freeze": {**PAPER, "agent": TEXT, "template": TEXT, "owner": TEXT, "freezes": BOOL, "reason": TEXT},
    "decision": {
        **PAPER, "digest": DIGEST, "revision": INT, "requester": TEXT, "decision": TEXT, "groups": [TEXT],
        "reason": TEXT, "expires_at": INSTANT,
    },
}  # fmt: skip
# What nobody can derive again, whatever the auditor brings: `*` is any item.
ATTESTED = """
    children approvers/*/name ended/name ended/at policy chain recovered sealed_at extensions/*/approved_by/*/name
    extensions/*/by/name extensions/*/rules extensions/*/policy_digest extensions/*/at findings/*/rule
    findings/*/message grants/*/grant grants/*/attempt grants/*/issued_at grants/*/requested_ttl_s grants/*/ttl_s
    grants/*/step_s grants/*/expires_at proof/reopened proof/forced/name proof/dead_ms proof/confirmed_ms
    proof/not_proven
"""
OPAQUE = {"line": ["source"], "contiguous": ["source", "begin", "end"], "gap": ["closed"], "quiet": ["ms", "listed"]}
OPAQUE |= {"target_answer": [*ANSWER], "signed_answer": ["answer"], "missing": [""]}
BY_ISSUER = ("engine", "question", "form", "sha256", "der")
UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension)


@dataclass
class Credential:
    """A token or lease of the receipt: its checks, and the lines on which they rest, by the number of the check."""

    name: str
    place: str
    said: dict
    lease: str = ""
    accessor: str = ""
    role: str = ""
    grant: str = ""

    @property
    def verdict(self) -> str:
        return self.said["verdict"]

    @property
    def identity(self) -> tuple[str, ...]:
        """The places that say which one it is."""
        return (f"{self.place}/lease_id",) if self.lease else (f"{self.grant}/accessor_hmac", f"{self.grant}/role")

    @property
    def checks(self) -> dict[int, dict]:
        """The evidence of each check that holds."""
        return {check["n"]: check["evidence"] for check in self.said["checks"] if check["ok"]}

    def at(self, n: int, *names: str) -> str:
        """The place of a check, or of something in it; that of all checks where there is no such one."""
        numbers = [check["n"] for check in self.said["checks"]]
        if n not in numbers:
            return f"{self.place}/checks"
        return "/".join((self.place, "checks", str(numbers.index(n)), *names))

    @property
    def lines(self) -> dict[int, str]:
        """Evidence names a line by the SHA-256 of its bytes, line feed included."""
        return {n: found["sha256"] for n, found in self.checks.items() if found["kind"] == "line"}


@dataclass
class Known:
    """What the auditor took from Vault: keys by version, the namespace's id, the ids of the worker's entities.

    And the keys of those who sign, by entity and version, and the issuers of certificates.
    """

    keys: dict[str, str]
    namespace: str
    workers: list[str]
    signers: dict[tuple[str, str], str]
    issuers: list[x509.Certificate] = field(default_factory=list)


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


def is_signed(envelope: dict, key: str) -> bool:
    """Whether this key, base64, signed a DSSE envelope."""
    payload, kind = base64.b64decode(envelope["payload"], validate=True), envelope["payloadType"].encode()
    covered = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    try:
        signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
        Ed25519PublicKey.from_public_bytes(base64.b64decode(key)).verify(signature, covered)
    except InvalidSignature:
        return False
    return True


def named_once(pairs: list[tuple[str, object]]) -> dict:
    """An object in which no name is twice: two programs could read two values."""
    if len(dict(pairs)) != len(pairs):
        raise ValueError
    return dict(pairs)


def no_number(text: str) -> float:
    """Refuse what is no JSON, although Python reads it: NaN and Infinity."""
    raise ValueError(text)


def is_canonical(statement: dict, payload: bytes) -> bool:
    """Whether these are the only bytes in which it can be written."""
    try:
        return canonical(statement).encode() == payload
    except ValueError:
        # half of a character
        return False


def canonical(value: object) -> str:
    """The form of RFC 8785 of a value without fractions: names are in the order of UTF-16."""
    if isinstance(value, list):
        return f"[{','.join(map(canonical, value))}]"
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return f"{{{','.join(f'{canonical(name)}:{canonical(value[name])}' for name in names)}}}"
    return json.dumps(value, ensure_ascii=False)


def signed_payload(envelope: dict, keys: dict) -> bytes:
    """What is inside a DSSE envelope, if one of Vault's key versions signed it as a receipt."""
    version = {f"{RECEIPTS}:v{one}": one for one in keys}[envelope["signatures"][0]["keyid"]]
    if envelope["payloadType"] != TYPE or len(envelope["signatures"]) != 1 or not is_signed(envelope, keys[version]):
        raise InvalidSignature
    return base64.b64decode(envelope["payload"])


def credentials(receipt: dict) -> list[Credential]:
    """Each token and lease of the task."""
    proof, grants = receipt["proof"], [*enumerate(receipt["grants"])]
    at = "/predicate/proof"
    earlier = [(n, grant) for n, grant in grants[:-1] if grant["accessor_hmac"]]
    tokens = [("task token", f"{at}/token", proof["token"], grants[-1] if grants else None)]
    for number, (said, grant) in enumerate(zip(proof["earlier_tokens"], earlier, strict=False)):
        tokens.append((f"earlier token {number + 1}", f"{at}/earlier_tokens/{number}", said, grant))
    found = []
    for name, place, said, made in tokens:
        n, grant = made or (0, {"accessor_hmac": None, "role": ""})
        where = f"/predicate/grants/{n}" if made else "/predicate/grants"
        found.append(Credential(name, place, said, "", grant["accessor_hmac"] or "", grant["role"], where))
    for n, said in enumerate(proof["leases"]):
        found.append(Credential(said["lease_id"], f"{at}/leases/{n}", said, lease=said["lease_id"]))
    return found


def misfits(value: object, form: object, place: str = "") -> Iterator[str]:
    """The places at which a value has not its form."""
    if isinstance(form, tuple):
        if not (value is None and None in form):
            yield from misfits(value, form[0], place)
    elif form in ("evidence", "missing"):
        kind = value.get("kind") if isinstance(value, dict) else None
        if kind not in ([*EVIDENCE] if form == "evidence" else ["missing"]):
            yield f"{place}/kind"
        elif kind == "missing":
            yield from (f"{place}/{key}" for key in sorted(value.keys() - MISSING))
        else:
            yield from misfits(value, {"kind": TEXT, **EVIDENCE[kind]}, place)
    elif isinstance(form, dict):
        yield from misfit_fields(value, form, place)
    elif isinstance(form, list) and isinstance(value, list):
        if "alone" in form and len(value) != 1:
            yield place
        for n, one in enumerate(value):
            yield from misfits(one, form[0], f"{place}/{n}")
    elif form[0] != value if isinstance(form, list) else not is_of(value, form):
        yield place


def misfit_fields(value: object, form: dict, place: str) -> Iterator[str]:
    """The same of an object; `*` is any key."""
    if not isinstance(value, dict):
        yield place
        return
    forms = dict.fromkeys(value, form["*"]) if "*" in form else form
    yield from (f"{place}/{key}" for key in sorted(forms.keys() ^ value.keys()))
    for key in forms.keys() & value.keys():
        yield from misfits(value[key], forms[key], f"{place}/{key}")


def is_of(value: object, form: object) -> bool:
    """Whether a value is of one of the simple forms."""
    if form == "text or number":
        return value is None or is_of(value, INT) or is_of(value, TEXT)
    if form == BOOL or isinstance(value, bool):
        return form in (BOOL, "anything") and (form != BOOL or isinstance(value, bool))
    if form in LEAST:
        # what is more has no one form in JSON (RFC 8785)
        return isinstance(value, int) and LEAST[form] <= value < 2**53
    if form in ("anything", TEXT):
        return form == "anything" or isinstance(value, str)
    if not isinstance(value, str) or not re.fullmatch(FORMS[form], value):
        return False
    try:
        # a month 13 has the form of a time
        return bool(moment(value)) if form in (TIME, INSTANT) else form != BYTES or is_base64(value)
    except ValueError:
        return False


def is_base64(text: str) -> bool:
    return base64.b64encode(base64.b64decode(text, validate=True)).decode() == text


def differing(said: object, shown: object, place: str) -> Iterator[str]:
    """The places at which two values differ."""
    if isinstance(said, dict) and isinstance(shown, dict) and said.keys() == shown.keys():
        for key in said:
            yield from differing(said[key], shown[key], f"{place}/{key}")
    elif isinstance(said, list) and isinstance(shown, list) and len(said) == len(shown):
        for n, (one, other) in enumerate(zip(said, shown, strict=True)):
            yield from differing(one, other, f"{place}/{n}")
    elif said != shown:
        yield place


def wrong(text: str, *places: str) -> str:
    """What does not hold, after the places of what contradicts it."""
    return f"{', '.join(places)}: {text}"


def other_revision(statement: dict) -> Iterator[str]:
    """Where the approved revision has another digest, or says something else."""
    subject, receipt = statement["subject"][0], statement["predicate"]
    content = base64.b64decode(subject["content"])
    if hashlib.sha256(content).hexdigest() != subject["digest"]["sha256"]:
        yield wrong("the revision has another digest", "/subject/0/digest/sha256", "/subject/0/content")
        return
    try:
        revision = json.loads(content)
        access = [{name: one[name] for name in ("template", "path", "with")} for one in revision["access"]]
        shown = {"delegation": [], **revision, "access": access, "intent": revision["spec"]["spec"]["intent"]}
        places = [place for name in REPEATED for place in differing(receipt[name], shown[name], f"/predicate/{name}")]
    except (ValueError, LookupError, TypeError, RecursionError):
        places = ["/subject/0/content"]
    for place in places:
        yield wrong("the revision says otherwise", place)
    if subject["name"] != receipt["task"]:
        yield wrong("the subject is another task's", "/subject/0/name", "/predicate/task")


@dataclass
class Papers:
    """What people signed: by its place, each document that is about the task and of who signed it."""

    said: dict[str, dict] = field(default_factory=dict)
    unproven: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def below(self, place: str) -> list[tuple[str, dict]]:
        return [(at, one) for at, one in self.said.items() if at == place or at.startswith(f"{place}/")]

    def are_proven(self, *places: str) -> bool:
        return not any(at == place or at.startswith(f"{place}/") for at in self.unproven for place in places)


def read_papers(receipt: dict, known: Known) -> Papers:
    """Read each embedded document, and check who signed it, about which task."""
    papers, documents = Papers(), receipt["documents"]
    single = [(name, kind) for name, kind in (("request", "submit"), ("freeze", "freeze")) if documents[name]]
    every = [(f"/predicate/documents/{name}", kind, documents[name]) for name, kind in single]
    for name, kind in (("decisions", "decision"), ("ends", "end")):
        every += [(f"/predicate/documents/{name}/{n}", kind, one) for n, one in enumerate(documents[name])]
    for n, extension in enumerate(receipt["extensions"]):
        at = f"/predicate/extensions/{n}"
        every.append((f"{at}/signed_request", "extend", extension["signed_request"]))
        every += [(f"{at}/signed/{m}", "decision", one) for m, one in enumerate(extension["signed"])]
    for place, kind, envelope in every:
        read_paper(papers, place, kind, envelope, receipt["task"], known)
    return papers


def read_paper(papers: Papers, place: str, kind: str, envelope: dict, task: str, known: Known) -> None:
    if envelope["payloadType"] != DOCUMENT or len(envelope["signatures"]) != 1:
        papers.wrong.append(
            wrong("it is no document with one signature", f"{place}/payloadType", f"{place}/signatures")
        )
        return
    try:
        said = json.loads(base64.b64decode(envelope["payload"]).decode(), parse_constant=no_number)
        json.dumps(said, ensure_ascii=False).encode()
        may_lack = {"cancels"} if kind == "extend" else set()
        bad = [*misfits({key: one for key, one in said.items() if key not in may_lack}, PAPERS[kind])]
    except (ValueError, AttributeError, RecursionError):
        said, bad = {}, [""]
    about = scope_of(said) if kind == "freeze" and not bad else task
    if bad or (said["kind"], said["task"]) != (kind, about):
        papers.wrong.append(wrong(f"it is no signed {kind} about this task", f"{place}/payload"))
        return
    key, _, version = envelope["signatures"][0]["keyid"].rpartition(":v")
    public = known.signers.get((said["entity"], version))
    if key != f"jitvault-signer-{said['entity']}" or not re.fullmatch("[1-9][0-9]{0,8}", version):
        papers.wrong.append(wrong("another one than its author signed it", f"{place}/signatures/0/keyid"))
    elif public and not is_signed(envelope, public):
        papers.wrong.append(wrong("its author did not sign it", f"{place}/signatures/0", f"{place}/payload"))
    else:
        papers.said[place] = said
        papers.unproven += [] if public else [place]


def scope_of(freeze: dict) -> str:
    """What a freeze has in place of a task: the hash of the scope that it names."""
    names = [(part, freeze[part]) for part in ("agent", "template", "owner") if freeze[part]]
    words = " and ".join(f"{part} {name}" for part, name in names)
    return hashlib.sha256(words.encode()).hexdigest()[:32] if names else "all"


def other_papers(statement: dict, papers: Papers) -> Iterator[str]:
    """Where the signed documents say something else than the receipt."""
    receipt, digest = statement["predicate"], f"sha256:{statement['subject'][0]['digest']['sha256']}"
    at = "/predicate/documents"
    for place, request in papers.below(f"{at}/request"):
        spec = request["spec"].get("spec")
        asked = spec if isinstance(spec, dict) else {}
        listed = asked.get("access") if isinstance(asked.get("access"), list) else [None]
        shown = [{name: one[name] for name in ("template", "with")} for one in receipt["access"]]
        told = (receipt["requester"]["entity"], receipt["intent"], shown)
        # a template without parameters needs none, and why it is needed decides nothing
        entries = [one if isinstance(one, dict) else {} for one in listed]
        access = [{"template": one.get("template"), "with": one.get("with", {})} for one in entries]
        if (request["entity"], asked.get("intent"), access) != told:
            yield wrong("it asks for something else", f"{place}/payload")
    if receipt["documents"]["request"] is None and not receipt["recovered"]:
        yield wrong("the signed request is missing", f"{at}/request")
    approvals, about = papers.below(f"{at}/decisions"), (receipt["revision"], receipt["requester"]["entity"])
    named = {entity: f"/predicate/approved_by/{n}" for n, entity in enumerate(receipt["approved_by"])}
    yield from other_approvals(approvals, named, digest, about, "/predicate/approved_by", receipt)
    for n, extension in enumerate(receipt["extensions"]):
        at = f"/predicate/extensions/{n}"
        for place, request in papers.below(f"{at}/signed_request"):
            yield from other_extension(extension, request, digest, at, place)
        named = {one["entity"]: f"{at}/approved_by/{m}/entity" for m, one in enumerate(extension["approved_by"])}
        about = (receipt["revision"], extension["by"]["entity"])
        signed = papers.below(f"{at}/signed")
        yield from other_approvals(signed, named, extension["digest"], about, f"{at}/approved_by", receipt)
        if f"sha256:{hashlib.sha256(content_of(statement, extension)).hexdigest()}" != extension["digest"]:
            names = ("digest", "by", "reason", "since", "seconds", "until", "window_s")
            yield wrong("it has another digest", *(f"{at}/{name}" for name in names))
    yield from other_ends(receipt, papers)


def other_approvals(
    approvals: list[tuple[str, dict]], named: dict[str, str], digest: str, about: tuple, at: str, receipt: dict
) -> Iterator[str]:
    """Decisions that are no approvals of this, and entities that are named and signed none, or not once."""
    signed = Counter(one["entity"] for _, one in approvals)
    for place, one in approvals:
        if (one["decision"], one["digest"], one["revision"], one["requester"]) != ("approve", digest, *about):
            yield wrong("it approves something else", f"{place}/payload")
        if one["entity"] not in named or signed[one["entity"]] > 1:
            yield wrong("its author is not named once as approver", f"{place}/payload", at)
    for entity, place in named.items():
        if entity not in signed and not receipt["recovered"]:
            yield wrong("a signed approval is missing", place)


def approvals_signed(receipt: dict, papers: Papers) -> bool:
    """Whether keys that the auditor brought signed an approval of everybody who is named for one."""
    named = {"/predicate/documents/decisions": receipt["approved_by"]}
    for n, extension in enumerate(receipt["extensions"]):
        named[f"/predicate/extensions/{n}/signed"] = [one["entity"] for one in extension["approved_by"]]
    for place, entities in named.items():
        signed = {one["entity"] for at, one in papers.below(place) if papers.are_proven(at)}
        if not {*entities} <= signed:
            return False
    return True


def other_extension(extension: dict, request: dict, digest: str, at: str, place: str) -> Iterator[str]:
    """Where the signed request for more time says something else than the extension."""
    pairs = {
        "by/entity": (request["entity"], extension["by"]["entity"]),
        "reason": (request["reason"], extension["reason"]),
        "seconds": (request["seconds"], extension["seconds"]),
        "since": (moment(request["ends_at"]), moment(extension["since"])),
    }
    for name, (signed, said) in pairs.items():
        if signed != said:
            yield wrong("the signed request for more time says otherwise", f"{at}/{name}", f"{place}/payload")
    if request["digest"] != digest or request.get("cancels") is not None:
        yield wrong("it asks for no more time of this revision", f"{place}/payload")


def content_of(statement: dict, extension: dict) -> bytes:
    """The bytes of an extension that its approvers signed the digest of."""
    receipt = statement["predicate"]
    names = ("by", "reason", "since", "seconds", "until", "window_s")
    content = {
        **{name: extension[name] for name in names},
        **{name: receipt[name] for name in ("installation", "task", "revision")},
        "apiVersion": "jitvault.dev/v1",
        "kind": "Extension",
        "revision_digest": f"sha256:{statement['subject'][0]['digest']['sha256']}",
    }
    return canonical(content).encode()


def end_signed(receipt: dict, papers: Papers) -> str | None:
    """The place of the document by which somebody ended the task as the receipt says."""
    ended, reasons = receipt["ended"] or {}, {"completed": "completed", "intercepted": "intercepted"}
    said = (ended.get("by"), ended.get("note"), ended.get("reason"))
    for place, one in papers.below("/predicate/documents/freeze"):
        if (one["entity"], one["reason"], "frozen") == said:
            return place
    for place, one in papers.below("/predicate/documents/ends"):
        if (one["entity"], one["note"], reasons.get(one["reason"], "operator")) == said:
            return place
    return None


def force_signed(receipt: dict, papers: Papers) -> str | None:
    """The place of the document by which an operator had the task forced closed."""
    forced = receipt["proof"]["forced"] or {}
    said = ("forced", forced.get("by"), forced.get("reason"))
    found = papers.below("/predicate/documents/ends")
    return next((place for place, one in found if (one["reason"], one["entity"], one["note"]) == said), None)


def other_ends(receipt: dict, papers: Papers) -> Iterator[str]:
    """Where who ended the task, or had it forced, signed something else."""
    ended, ends = receipt["ended"] or {}, papers.below("/predicate/documents/ends")
    by_them = [place for place, one in ends if one["entity"] == ended.get("by")]
    is_persons = ended.get("reason") in ("completed", "operator", "intercepted")
    if by_them and is_persons and end_signed(receipt, papers) is None:
        places = ("/predicate/ended/note", "/predicate/ended/reason", f"{by_them[0]}/payload")
        yield wrong("who ended the task signed another end", *places)
    if receipt["proof"]["forced"] and not receipt["recovered"] and force_signed(receipt, papers) is None:
        yield wrong("nobody signed that it be forced", "/predicate/proof/forced/by", "/predicate/proof/forced/reason")


def other_freeze(receipt: dict, papers: Papers) -> Iterator[str]:
    """Where a freeze does not have the task, or is not the one that ended it."""
    for place, freeze in papers.below("/predicate/documents/freeze"):
        held = {one: [receipt[one]["name"], receipt[one]["entity"]] for one in ("agent", "owner")}
        held["template"] = [one["template"] for one in receipt["access"]]
        for name, names in held.items():
            if freeze[name] and freeze[name].casefold() not in map(str.casefold, names):
                yield wrong(f"it is about another {name}", f"{place}/payload")
        if not freeze["freezes"] or end_signed(receipt, papers) != place:
            names = [f"/predicate/ended/{name}" for name in ("by", "note", "reason")]
            yield wrong("it is not the freeze that ended the task", f"{place}/payload", *names)


def answered(one: Credential) -> dict:
    """The evidence of check 6 with what the issuer of a certificate signed; empty where there is none."""
    found = one.checks.get(TARGET, {})
    return found if found.get("kind") == "signed_answer" else {}


def other_answer(one: Credential, sealed_at: str, last: str) -> Iterator[str]:
    """Where what an issuer signed is not about the certificate that the receipt names, or does not call it over."""
    said, at = answered(one), one.at(TARGET, "evidence")
    if said["engine"] != "pki" or not one.lease:
        yield wrong("only a certificate has an issuer", f"{at}/engine")
    der = base64.b64decode(said["der"] or "")
    if said["der"] is not None and hashlib.sha256(der).hexdigest() != said["sha256"]:
        yield wrong("it has another digest", f"{at}/sha256", f"{at}/der")
    elif said["der"] is not None:
        try:
            name, why = (
                certificate_said(der, sealed_at, last) if said["form"] == "certificate" else response_said(der, one)
            )
        except UNREADABLE:
            name, why = said["question"], "it cannot be read"
        if why:
            yield wrong(why, f"{at}/der", f"{at}/form")
        if name != said["question"]:
            yield wrong("it is about another certificate", f"{at}/question", f"{at}/der")


def spelled(serial: int) -> str:
    """A serial number as Vault writes it."""
    return serial.to_bytes((serial.bit_length() + 7) // 8 or 1, "big").hex(":")


def certificate_said(der: bytes, sealed_at: str, last: str) -> tuple[str, str]:
    """The serial number of a certificate, and why it does not show its end.

    When the task was sealed is the worker's word, so the time of the files' last line counts as well.
    """
    certificate = x509.load_der_x509_certificate(der)
    is_over = last and certificate.not_valid_after_utc < min(moment(sealed_at), moment(last))
    return spelled(certificate.serial_number), "" if is_over else "it was valid when the task was sealed"


def response_said(der: bytes, one: Credential) -> tuple[str, str]:
    """The serial number of an OCSP response, and why it does not show the end of that certificate."""
    (single,) = ocsp.load_der_ocsp_response(der).responses
    again = (x509.ReasonFlags.certificate_hold, x509.ReasonFlags.remove_from_crl)
    if single.certificate_status != ocsp.OCSPCertStatus.REVOKED or single.revocation_reason in again:
        return spelled(single.serial_number), "it does not call it revoked for good"
    ends = [moment(one.checks[n]["at"]) for n in (ISSUED, REVOKED) if "at" in one.checks.get(n, {})]
    # it has whole seconds
    is_late = all(single.this_update_utc >= end.replace(microsecond=0) for end in ends)
    return spelled(single.serial_number), "" if is_late else "it is older than the end of the lease"


def issuer_signed(said: dict, issuers: list[x509.Certificate]) -> bool | None:
    """Whether the issuer that the answer names signed it; None where that is none of these."""
    if not said.get("der"):
        return None
    der = base64.b64decode(said["der"])
    try:
        if said["form"] == "certificate":
            return any(is_issued(x509.load_der_x509_certificate(der), issuer) for issuer in issuers) or None
        answer = ocsp.load_der_ocsp_response(der)
        for issuer in issuers:
            asked = ocsp.OCSPRequestBuilder().add_certificate(issuer, issuer, hashes.SHA256()).build()
            names = (asked.issuer_name_hash, asked.issuer_key_hash)
            if (answer.issuer_name_hash, answer.issuer_key_hash) == names:
                return has_signed(issuer.public_key(), answer)
    except UNREADABLE:
        pass
    return None


def is_issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *UNREADABLE):
        return False
    return True


def has_signed(key: object, answer: ocsp.OCSPResponse) -> bool:
    """Whether an issuer's own key signed an OCSP response, with a hash that nobody can forge."""
    method, covered = answer.signature_hash_algorithm, answer.tbs_response_bytes
    how: tuple = ()
    if isinstance(key, ec.EllipticCurvePublicKey):
        how = (ec.ECDSA(method),)
    elif isinstance(key, rsa.RSAPublicKey):
        is_pss = answer.signature_algorithm_oid == SignatureAlgorithmOID.RSASSA_PSS
        how = (padding.PSS(padding.MGF1(method), padding.PSS.AUTO) if is_pss else padding.PKCS1v15(), method)
    try:
        key.verify(answer.signature, covered, *how)
    except (InvalidSignature, TypeError):
        # the type is wrong where the answer names no hash, and a key of this kind needs one
        return False
    return not isinstance(method, (hashes.MD5, hashes.SHA1))


def attested(receipt: dict, every: list[Credential], papers: Papers, issuers: list) -> Iterator[str]:
    """The places of what nothing derives again."""
    patterns = ATTESTED.split()
    if (signed := end_signed(receipt, papers)) is None or not papers.are_proven(signed):
        patterns += ["ended/by", "ended/note", "ended/reason", "proof/end_reason"]
    if (signed := force_signed(receipt, papers)) is None or not papers.are_proven(signed):
        patterns.append("proof/forced")
    if not approvals_signed(receipt, papers):
        patterns += ["approved_by", "extensions/*/approved_by"]
    patterns += [] if receipt["documents"]["request"] else ["documents/request"]
    for pattern in patterns:
        yield from places_of(receipt, pattern.split("/"), "/predicate")
    yield from papers.unproven
    for one in every:
        for n, check in enumerate(one.said["checks"]):
            names = OPAQUE.get(check["evidence"]["kind"], [])
            if check["evidence"] == answered(one) and not issuer_signed(check["evidence"], issuers):
                names = [*names, *BY_ISSUER]
            yield from (f"{one.place}/checks/{n}/evidence/{name}".rstrip("/") for name in names)


def places_of(value: object, pattern: list[str], place: str) -> Iterator[str]:
    """The places of the values that a pattern names."""
    if not pattern:
        yield place
    elif isinstance(value, list) and pattern[0] == "*":
        for n, one in enumerate(value):
            yield from places_of(one, pattern[1:], f"{place}/{n}")
    elif isinstance(value, dict) and pattern[0] in value:
        yield from places_of(value[pattern[0]], pattern[1:], f"{place}/{pattern[0]}")


def not_following(receipt: dict, every: list[Credential]) -> Iterator[str]:
    """What does not follow from the evidence that stands beside it."""
    proof, at = receipt["proof"], "/predicate/proof"
    for one in every:
        yield from unfit_checks(one)
        if one.verdict in PROVEN:
            yield from unfit_verdict(one, forced=bool(proof["forced"]))
    if proof["task_id"] != receipt["task"]:
        yield wrong("its proof is about another task", f"{at}/task_id")
    if (proof["state"], proof["confirmed"]) not in (("confirmed", True), ("unverified", False)):
        yield wrong("no closed task is so", f"{at}/state", f"{at}/confirmed")
    if receipt["ended"] and receipt["ended"]["reason"] != proof["end_reason"]:
        yield wrong("the proof names another reason", "/predicate/ended/reason", f"{at}/end_reason")
    asked = [6 in (check["n"] for check in lease["checks"]) for lease in proof["leases"]]
    if proof["target_asked"] is not (all(asked) if asked else None):
        yield wrong("its checks say otherwise", f"{at}/target_asked")
    yield from unasked(receipt, every) if proof["confirmed"] else ()
    quiet = every[0].checks.get(7)
    has_token = any(grant["accessor_hmac"] for grant in receipt["grants"])
    if proof["confirmed"] and not (quiet and is_quiet(quiet, has_token=has_token)):
        yield wrong("nothing shows that the task was quiet", every[0].at(7))
    for n, child in enumerate(receipt["children"]):
        if proof["confirmed"] and child["state"] not in ("sealed", "cancelled", "denied", "lapsed"):
            yield wrong("a task below it is not over", f"/predicate/children/{n}/state")
    yield from unfit_lists(receipt)


def unasked(receipt: dict, every: list[Credential]) -> Iterator[str]:
    """Credentials that the target did not refuse, and leases that policy has proven by the target, and are not."""
    for one in every:
        if not all(check["ok"] for check in one.said["checks"] if check["n"] == TARGET):
            yield wrong("the target did not refuse it", one.at(TARGET, "ok"), "/predicate/proof/confirmed")
        is_asked = not one.lease or one.verdict == "target_confirmed"
        if receipt["policy"]["obligations"]["confirm"] == "target" and not is_asked:
            places = (f"{one.place}/verdict", "/predicate/policy/obligations/confirm")
            yield wrong("policy demands proof by the target", *places)


def is_quiet(quiet: dict, *, has_token: bool) -> bool:
    return (quiet["kind"] == "quiet" and quiet["ms"] >= 1000) if has_token else quiet["kind"] == "no_token"


def unfit_checks(one: Credential) -> Iterator[str]:
    """Checks that there are not, that are there twice, or that have evidence of another kind."""
    for n, count in Counter(check["n"] for check in one.said["checks"]).items():
        if count > 1 or n not in PROVES or (n == 7 and one.lease):
            yield wrong(f"it has check {n} {count} times", one.at(n, "n"), f"{one.place}/checks")
    for check in one.said["checks"]:
        found = check["evidence"]
        is_empty = found["kind"] == "contiguous" and found["begin"] >= found["end"]
        is_empty |= not found.get("answer", "x").strip()
        if check["ok"] and (found["kind"] not in PROVES.get(check["n"], ()) or is_empty):
            yield wrong("its evidence is of another kind", one.at(check["n"], "evidence"), one.at(check["n"], "n"))


def unfit_verdict(one: Credential, *, forced: bool) -> Iterator[str]:
    """Checks that a proven verdict needs, and the interval that check 4 covers."""
    needed = {1, 3, 5, 6} if forced and one.lease else {1, 2, 3, 4, 5}
    if 6 in one.checks or one.verdict == "target_confirmed":
        needed |= {6}
        if one.verdict != "target_confirmed":
            yield wrong("check 6 says more", f"{one.place}/verdict")
    for n in sorted(needed - one.checks.keys()):
        yield wrong(f"check {n} does not hold", f"{one.place}/verdict", one.at(n))
    if (one.checks.get(2, {}).get("kind") == "expiry") is not (one.verdict == "expired"):
        yield wrong("it was ended in another way", f"{one.place}/verdict", one.at(2, "evidence"))
    between = one.checks.get(4, {})
    for name, n in (("begin", 1), ("end", 3)):
        if name in between and between[name] != one.checks.get(n, {}).get("at"):
            yield wrong("check 4 covers another interval", one.at(4, "evidence", name))


def unfit_lists(receipt: dict) -> Iterator[str]:
    """Where tokens, leases, grants and extensions do not fit each other."""
    proof, grants = receipt["proof"], [*enumerate(receipt["grants"])]
    earlier = [(n, grant) for n, grant in grants[:-1] if grant["accessor_hmac"]]
    pairs = [*zip(earlier, enumerate(proof["earlier_tokens"]), strict=False)]
    if len(earlier) != len(proof["earlier_tokens"]):
        yield wrong("tokens are missing", "/predicate/proof/earlier_tokens", "/predicate/grants")
    said = [(f"/predicate/grants/{n}", g, f"/predicate/proof/earlier_tokens/{m}", t) for (n, g), (m, t) in pairs]
    said += [(f"/predicate/grants/{n}", g, "/predicate/proof/token", proof["token"]) for n, g in grants[-1:]]
    for at, grant, place, token in said:
        if grant["verdict"] != token["verdict"]:
            yield wrong("grant and proof disagree", f"{at}/verdict", f"{place}/verdict")
    attempts, named = [grant["attempt"] for _, grant in grants], [one["entity"] for one in receipt["approvers"]]
    for every, place in ((attempts, "grants"), (named, "approvers")):
        if len({*every}) < len(every):
            yield wrong("one of them is listed twice", f"/predicate/{place}")
    ids = [grant["grant"] for _, grant in grants]
    for n, extension in enumerate(receipt["extensions"]):
        if extension["replaces"] is not None and extension["replaces"] not in ids:
            yield wrong("it replaced a token of no grant", f"/predicate/extensions/{n}/replaces", "/predicate/grants")
    paths = {one["path"]: one["template"] for one in receipt["access"]}
    for n, lease in enumerate(proof["leases"]):
        at, path = f"/predicate/proof/leases/{n}", lease["lease_id"].rpartition("/")[0]
        if lease["template"] != paths.get(path, path):
            yield wrong("it is a lease of another template", f"{at}/template", f"{at}/lease_id")
        if lease["error"] is not None and lease["verdict"] in PROVEN:
            yield wrong("it ended, and has an error", f"{at}/error")


def signed_facts(receipt: dict) -> list[str]:
    """Who asked and approved, for what, which access, and when it ended, each in one line."""
    names = {one["entity"]: one["name"] for one in receipt["approvers"]}
    approved = [f"{names.get(entity, 'entity')} ({entity})" for entity in receipt["approved_by"]]
    access = [f"{one['template']} {one['with']} at {one['path']}" for one in receipt["access"]]
    said = [
        f"requester {receipt['requester']['name']}, agent {receipt['agent']['name']}, owner {receipt['owner']['name']}",
        f"approved by {', '.join(approved) or 'nobody'}",
        f"intent: {receipt['intent']}",
        *(f"access: {one}" for one in access),
        *(f"issued at {grant['issued_at']}" for grant in receipt["grants"][:1]),
    ]
    if ended := receipt["ended"]:
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
            yield wrong(f"the receipt leaves out lease {lease!r}", "/predicate/proof/leases")
        if actor(entry) in own and not path.startswith(OWN_PATHS) and not is_open_to_all(entry):
            wrapped.setdefault(entry["request"].get("id", name), []).append((name, entry))
    for lines in wrapped.values():
        asked = any(part(entry, "response", "wrap_info") and not has_failed(entry) for _, entry in lines)
        if asked and not found & {name for name, _ in lines}:
            path = lines[0][1]["request"]["path"]
            yield wrong(f"a token read {path!r} in a wrapping, and no finding says so", "/predicate/findings")
    for accessor, tasks in given.items():
        if accessor in own and tasks - {receipt["task"]}:
            yield wrong("Vault gave a token of it to another task", "/predicate/grants", "/predicate/task")
        if accessor not in own and receipt["task"] in tasks:
            yield wrong("Vault gave this task a token that the receipt leaves out", "/predicate/grants")
    for one in every:
        if lived_on(one, log):
            yield wrong(f"{one.name} lived after it was found gone", one.at(GONE))
    if leases and not any(receipt["task"] in given.get(accessor, ()) for accessor in own):
        places = ("/predicate/grants", "/predicate/task")
        yield wrong("Vault gave no token to this task that the leases were read with", *places)


def not_shown(one: Credential, log: Log, *, forced: bool) -> Iterator[str]:
    """What a credential of a proven task lacks: each check needs a line of its own, in their order.

    Only where Vault was made to forget a lease is there no revocation.
    """
    if one.verdict == "never_issued" and not one.lease and not one.accessor:
        return
    if one.verdict not in PROVEN:
        yield wrong(f"{one.name} is called {one.verdict}, and Vault issued it", f"{one.place}/verdict")
    if ISSUED not in one.lines:
        yield wrong(f"no line shows how {one.name} was issued", one.at(ISSUED))
    if one.verdict == "expired":
        if one.lease or is_over(one, log) is False:
            yield wrong(f"nothing shows that the time of {one.name} was over", one.at(REVOKED))
    elif GONE not in one.lines or (REVOKED not in one.lines and not (forced and one.lease)):
        yield wrong(f"no lines show how {one.name} was revoked and found gone", one.at(REVOKED), one.at(GONE))
    times = [log.named[line]["time"] for _, line in sorted(one.lines.items()) if line in log.named]
    if times != sorted(times, key=moment):
        yield wrong("its lines are not in the order of what they are to show", f"{one.place}/checks")


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
    approvers = "/predicate/approved_by"
    for entity in parties.keys() & set(receipt["approved_by"]):
        if parties[entity] != "owner" or not by_owner:
            yield wrong(f"the {parties[entity]} approved the task", approvers)
    for n, extension in enumerate(receipt["extensions"]):
        approved = {one["entity"] for one in extension["approved_by"]}
        at = f"/predicate/extensions/{n}"
        if extension["by"]["entity"] in approved:
            yield wrong(f"{extension['by']['name']} asked for more time and approved it", f"{at}/approved_by")
        # a receipt does not say whether policy let the owner approve an extension
        for entity in parties.keys() & approved:
            if parties[entity] != "owner":
                yield wrong(f"the {parties[entity]} approved more time", f"{at}/approved_by")
    for n, named in enumerate(receipt["approvers"]):
        if named["entity"] not in receipt["approved_by"]:
            yield wrong("who is named did not approve", f"/predicate/approvers/{n}/entity", approvers)
    if not receipt["policy"]["permitted"] and any(grant["accessor_hmac"] for grant in receipt["grants"]):
        yield wrong("policy did not permit it", "/predicate/policy/permitted")
    if not receipt["recovered"] and (missing := uncounted(receipt)):
        yield wrong(missing, approvers, "/predicate/policy/obligations/approvals")


def uncounted(receipt: dict) -> str:
    """Which approvals are missing; a record that was rebuilt may have lost some."""
    needed = sum(one["count"] for one in receipt["policy"]["obligations"].get("approvals", ()))
    approved = len(set(receipt["approved_by"]))
    was_granted = any(grant["accessor_hmac"] for grant in receipt["grants"])
    return f"policy demands {needed} approvals, and {approved} approved" if was_granted and approved < needed else ""


def moment(text: str) -> datetime:
    # Vault writes nine digits, and a receipt has the nearest of six
    nanoseconds = re.search(r"\.(\d{1,9})", text)
    whole = datetime.fromisoformat(re.sub(r"\.\d+", "", text))
    return whole + timedelta(microseconds=(int(nanoseconds[1].ljust(9, "0")) + 500) // 1000 if nanoseconds else 0)


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
    wanted = {line for one in every for line in one.lines.values()} | {one["line"] for one in receipt["findings"]}
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
    try:
        return brought(json.loads(Path(file).read_bytes()), namespace, workers)
    except (LookupError, ValueError, TypeError, AttributeError):
        raise OSError(f"{file} is no trust file, and not Vault's answer for the key") from None


def brought(given: dict, namespace: str, workers: list[str]) -> Known:
    if "receipt_keys" in given:
        keys = {str(key["version"]): key["public_key"] for key in given["receipt_keys"]}
        signers = {(one["entity"], str(one["version"])): one["public_key"] for one in given["signers"]}
        issuers = [x509.load_pem_x509_certificate(pem.encode()) for pem in given["issuers"]]
        workers = [worker["entity"] for worker in given["workers"]]
        for key in (*keys.values(), *signers.values()):
            Ed25519PublicKey.from_public_bytes(base64.b64decode(key, validate=True))
        return Known(keys, given["namespace"]["id"], workers, signers, issuers)
    return Known({v: key["public_key"] for v, key in given["data"]["keys"].items()}, namespace, workers, {})


def report(receipt: dict, every: list[Credential], log: Log, trusted: Known) -> tuple[list[str], list[str]]:
    """Print each line with what it shows. Returns what is wrong, and what was not checked."""
    proof, bad = receipt["proof"], []
    rests = [(n, line, log.named.get(line, {})) for one in every for n, line in one.lines.items()]
    # one revocation by a prefix ends many tokens; a look-up names its lease by an HMAC
    prefix = {line for _, line, entry in rests if "/revoke-prefix/" in part(entry, "request").get("path", "")}
    shared = Counter(line for _, line, _ in rests if line not in prefix)
    looked_up = Counter(part(entry, "request", "data").get("lease_id", line) for n, line, entry in rests if n == GONE)
    bad += [f"/predicate/proof: {name} is looked up for two" for name, count in looked_up.items() if count > 1]
    for one in every:
        for n, line in sorted(one.lines.items()):
            why = why_not(log.named[line], one, n, log, trusted) if line in log.named else "it is in none of the files"
            why = why or ("it is to show two things" if shared[line] > 1 else "")
            found = "found" if not why else "MISSING" if line not in log.named else "NOT ITS"
            say(f"  {found:7} {line}  {one.name}, check {n}{f': {why}' if why else ''}")
            places = (one.at(n, "evidence", "sha256"), *one.identity)
            bad += [f"{', '.join(places)}: line {line}: {why}"] if why else []
            bad += told_otherwise(one, n, log.named[line]) if line in log.named else []
        bad += not_shown(one, log, forced=bool(proof.get("forced"))) if proof["confirmed"] else ()
    if not proof["confirmed"]:
        bad.append("/predicate/proof/confirmed: the task was closed without proof")
    if len({namespace_of(entry) for entry in log.named.values()}) > 1 and not trusted.namespace:
        bad.append("/predicate/proof: the lines are of several namespaces")
    for n, finding in enumerate(receipt["findings"]):
        if finding["line"] and finding["line"] not in log.named:
            bad.append(f"/predicate/findings/{n}/line: it is in none of the files")
    bad += left_out(receipt, every, log, trusted)
    bad += not_approved(receipt)
    unchecked = [] if trusted.namespace else ["of which namespace the lines are (--namespace)"]
    unchecked += [] if trusted.workers else ["whether the worker caused the lines (--worker-entity)"]
    silent = [one for one in every if one.lease and REVOKED not in one.checks]
    silent = [one for one in silent if not issuer_signed(answered(one), trusted.issuers)]
    unchecked += ["what the target answered, on which a forced end rests"] if proof.get("forced") and silent else []
    unchecked += [uncounted(receipt)] if receipt["recovered"] and uncounted(receipt) else []
    unchecked += not_joined(every, log)
    return bad, unchecked


def told_otherwise(one: Credential, n: int, entry: dict) -> Iterator[str]:
    """What the receipt says of a line, and the line does not."""
    said, request = one.checks[n], entry["request"]
    shown = {
        "at": moment(entry["time"]) == moment(said["at"]),
        "path": request["path"] == said["path"],
        "request_id": request.get("id", "") == said["request_id"],
        "operation": said["operation"] in operations(request["path"], n),
    }
    for name, is_so in shown.items():
        if not is_so:
            yield wrong("the line says otherwise", one.at(n, "evidence", name))
    serial = part(entry, "response", "data").get("serial_number")
    if n == ISSUED and answered(one) and answered(one)["question"] != serial:
        yield wrong("the lease is another certificate's", one.at(TARGET, "evidence", "question"), *one.identity)


def operations(path: str, n: int) -> tuple[str, ...]:
    """What jitvault calls a line of this path, as evidence of a check."""
    if n == ISSUED:
        return ("token_created",) if path.startswith(CREATE) else ("lease_issued",)
    if path.startswith("sys/leases/revoke-prefix/"):
        return ("hazard", "lease_revoked", "token_revoked")
    known = {"sys/leases/revoke/": "lease_revoked", "sys/leases/renew/": "renewed", "sys/leases/lookup": "lease_lookup"}
    known |= {"auth/token/lookup": "token_lookup", "auth/token/revoke": "token_revoked"}
    return tuple(name for begin, name in known.items() if path.startswith(begin))


def closing(proof: dict) -> str:
    """How the task was closed. Only a lease with check 6 was asked about at its target."""
    if not proof["confirmed"]:
        return "closed WITHOUT PROOF"
    asked = all(any(check["n"] == TARGET for check in lease["checks"]) for lease in proof["leases"])
    return "sealed" if asked else "revoked at Vault; the target was not asked; sealed"


def main(receipt_file: str, key_file: str, audit_files: str, namespace: str = "", workers: tuple = ()) -> int:
    trusted = known(key_file, namespace, workers)
    try:
        file = Path(receipt_file).read_bytes()
        envelope = json.loads(file, object_pairs_hook=named_once, parse_constant=no_number)
        payload = signed_payload(envelope, trusted.keys)
        statement = json.loads(payload)
    except (InvalidSignature, LookupError, ValueError, TypeError, RecursionError):
        say("this is NOT a receipt that Vault's key signed")
        return 1
    bad = [wrong("this is not a receipt of the form v1", place or "/") for place in misfits(statement, STATEMENT)]
    if not bad and not is_canonical(statement, payload):
        bad = [wrong("two readers can differ", "/")]
    if bad:
        for problem in bad:
            say(f"  WRONG   {problem}")
        return 1
    receipt = statement["predicate"]
    every, papers = credentials(receipt), read_papers(receipt, trusted)
    log = read(audit_files, receipt, every)
    proof = receipt["proof"]
    state = closing(proof)
    say(f"task {receipt['task']}: {proof['end_reason']}, {state} at {receipt['sealed_at']}")
    for line in signed_facts(receipt):
        say(f"  {line}")
    found, unchecked = report(receipt, every, log, trusted)
    found += [*other_revision(statement), *papers.wrong, *other_papers(statement, papers)]
    found += [*other_freeze(receipt, papers), *not_following(receipt, every)]
    for one in filter(answered, every):
        found += other_answer(one, receipt["sealed_at"], log.last)
        if issuer_signed(answered(one), trusted.issuers) is False:
            found.append(wrong("its issuer did not sign it", one.at(TARGET, "evidence", "der")))
    for said in proof["not_proven"]:
        say(f"  not proven: {said}")
    for problem in dict.fromkeys(found):
        say(f"  WRONG   {problem}")
    for place in attested(receipt, every, papers, trusted.issuers):
        say(f"  ATTESTED {place}")
    for what in unchecked:
        say(f"  NOT CHECKED: {what}")
    say(f"  not checked: {len(log.others)} more tokens of the worker's roles are in these files, of any task")
    total = sum(len(one.lines) for one in every)
    say(f"signature: valid; {total} lines {'are NOT all' if found else 'are'} in the log and about this task")
    return 1 if found else 3 if unchecked else 0


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
