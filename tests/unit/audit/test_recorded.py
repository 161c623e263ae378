"""The same requests on OpenBao and on HashiCorp Vault: which credential each line is about.

`recorded/` has the audit lines of both servers for the same 81 requests in the same order, and beside each request the
HMACs of the tokens and accessors that it carried or that its answer gave out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jitvault.audit.classify import observe
from jitvault.audit.entry import Entry
from jitvault.audit.observation import Kind, Observation, Place
from jitvault.audit.trail import derived_tokens, owning_token, with_subjects

HERE = Path(__file__).parent / "recorded"
SERVERS = ("openbao-2.7.2", "vault-1.14.9")
# a task's token is known by its role and its policy
_OURS = (('"auth/token/create/jit"', '"auth/token/create/jitvault-x"'), ('"agent"', '"jitvault-access-x"'))
_HMAC = re.compile(r"hmac-sha256:[0-9a-f]{64}")

# what each line of a request says, and of which credential: the request's line, then the answer's. `tN` is the token
# that request N made, `lN` the lease that it gave, `root` the administrator's token, `?` nobody that is known
TABLE = """
 0 token created | token_created root | token_created root
 1 token created wrapped | token_created root | token_created t1
 2 wrapping looked up by body | - | -
 3 wrapping looked up by header | - | -
 4 unwrapped by header | - | unwrapped t1
 5 unwrapped again by header | unwrap_refused t1
 6 unwrapped again by body of a stranger | unwrap_refused t1
 7 unwrapped again by body without a token | unwrap_refused t1
 8 token created wrapped | token_created root | token_created t8
 9 unwrapped by body of a stranger | - | unwrapped t8
10 token created wrapped | token_created root | token_created t10
11 unwrapped by body without a token | unwrap_refused t10 | unwrap_refused t10
12 token created wrapped | token_created root | token_created t12
13 rewrapped by header | unwrap_refused t12 | unwrap_refused t12
14 token created wrapped | token_created root | token_created t14
15 rewrapped by body | - | rewrapped t14
16 wrapping read by its cubbyhole | - | cubbyhole_read t14
17 token created wrapped as jwt | token_created root | token_created t17
18 jwt unwrapped by header | - | unwrapped t17
19 token created wrapped as jwt | token_created root | token_created t19
20 jwt unwrapped by body | - | unwrapped t19
21 token looks itself up | used t1 | used t1
22 lease read | used t1 | lease_issued l22 t1
23 lease read wrapped | used t1 | used t1
24 lease unwrapped by header | - | lease_issued l24 t1
25 lease read wrapped | used t1 | used t1
26 lease unwrapped by body | - | lease_issued l26 t1
27 lease read wrapped as jwt | used t1 | used t1
28 lease jwt unwrapped by header | - | lease_issued l28 t1
29 lease read wrapped as jwt | used t1 | used t1
30 lease jwt unwrapped by body | - | lease_issued l30 ?
31 child token created | used t1 | used t1
32 child token looks itself up | - | -
33 denied | denied t1 | denied t1
34 renewed by accessor | renewed t1 | renewed t1
35 renewed by accessor, as text | renewed t1 | renewed t1
36 renews itself | renewed t1 | renewed t1
37 renewed by token | renewed t1 | renewed t1
38 looked up by accessor | token_lookup t1 | token_lookup t1
39 lease looked up | lease_lookup root | lease_lookup root
40 lease renewed | renewed ? | renewed l22
41 leases listed | - | -
42 lease revoked by path | lease_revoked l22 root | lease_revoked l22 root
43 lease looked up when gone | lease_lookup root | lease_lookup root
44 lease revoked again | lease_revoked l22 root | lease_revoked l22 root
45 lease of a role that cannot be revoked | - | -
46 lease whose revocation fails | lease_revoked l45 root | lease_revoked l45 root
47 lease looked up after it failed | lease_lookup root | lease_lookup root
48 lease revoked without sync | lease_revoked l45 root | lease_revoked l45 root
49 lease looked up while it is retried | lease_lookup root | lease_lookup root
50 lease force-revoked | hazard root | hazard root
51 leases tidied | hazard root | hazard root
52 tokens tidied | hazard root | hazard root
53 revoked by accessor | token_revoked t1 | token_revoked t1
54 used after the end | refused t1 | refused t1
55 read after the end | refused t1 | refused t1
56 looked up by accessor when gone | token_lookup t1 | token_lookup t1
57 revoked by accessor again | token_revoked t1 | token_revoked t1
58 revokes itself | token_revoked t0 | token_revoked t0
59 batch token created | - | -
60 batch token looks itself up | - | -
61 approle secret id made | - | -
62 approle login | - | -
63 approle login refused | - | -
64 approle login wrapped | - | -
65 kv written | - | -
66 kv write refused by cas | - | -
67 kv read | - | -
68 kv read of nothing | - | -
69 kv deleted | - | -
70 kv metadata deleted | - | -
71 transit signed | - | -
72 canary | canary root | canary root
73 engine connection written | hazard root | hazard root
74 engine role written | hazard root | hazard root
75 token role written | - | -
76 policy written | - | -
77 prefix of tokens revoked | hazard root | hazard root
78 audit device enabled | hazard root | hazard root
79 mount moved | hazard root | hazard root
80 health
"""


@cache
def recorded(server: str) -> list[dict[str, Any]]:
    text = (HERE / f"{server}.jsonl").read_text()
    for theirs, ours in _OURS:
        text = text.replace(theirs, ours)
    return [json.loads(line) for line in text.splitlines()]


def observed(requests: list[dict[str, Any]]) -> Iterator[tuple[int, Observation | None]]:
    for n, request in enumerate(requests):
        for m, line in enumerate(request["lines"]):
            entry = msgspec.json.decode(json.dumps(line), type=Entry)
            yield n, observe(entry, line=f"{n}.{m}", place=Place("a", 1, 10 * n + m))


def labels(requests: list[dict[str, Any]]) -> dict[str, str]:
    """What the tables call an accessor's HMAC or a lease."""
    found = {requests[0]["lines"][0]["auth"]["accessor"]: "root", "": "?"}
    for n, request in enumerate(requests):
        for name in ("wrapped_accessor", "answered_accessor"):
            if accessor := request["hashes"].get(name):
                found.setdefault(accessor, f"t{n}")
        for line in request["lines"]:
            if lease := ((line.get("response") or {}).get("secret") or {}).get("lease_id"):
                found.setdefault(lease, f"l{n}")
    return found


def said(requests: list[dict[str, Any]]) -> list[str]:
    """A row of the table for each request."""
    lines = list(observed(requests))
    stands_for, named = derived_tokens([o for _, o in lines if o]), labels(requests)
    subjects = {o.line: o for o in with_subjects([o for _, o in lines if o])}
    rows = [f"{n:2} {request['case']}" for n, request in enumerate(requests)]
    for n, o in lines:
        if o is None:
            rows[n] += " | -"
            continue
        line = subjects[o.line]
        # a proof goes by the subject of a revocation
        about = named.get(line.subject if line.kind is Kind.TOKEN_REVOKED else owning_token(line, stands_for), "?")
        lease = f" {named.get(line.subject, '?')}" if line.kind in (Kind.LEASE_ISSUED, Kind.LEASE_REVOKED) else ""
        rows[n] += f" | {line.kind}{lease} {about}"
    return rows


def hashes_renamed(requests: list[dict[str, Any]], rename: Callable[[str], str]) -> list[dict[str, Any]]:
    text = "\n".join(map(json.dumps, requests))
    text = _HMAC.sub(lambda found: rename(found[0]), text)
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("server", SERVERS)
def test_each_line_is_about_the_same_credential_on_both(server: str) -> None:
    assert said(recorded(server)) == TABLE.strip("\n").splitlines()


@pytest.mark.parametrize("server", SERVERS)
def test_nothing_goes_by_what_a_hash_looks_like(server: str) -> None:
    other = hashes_renamed(recorded(server), lambda hmac: "hmac-sha256:" + hmac[:11:-1])
    assert said(other) == said(recorded(server))


def test_where_both_forms_of_a_token_are_the_same_one_may_stand_for_the_other() -> None:
    """What links on Vault links on OpenBao, where a line with the kept form has the one that is given out."""
    requests = json.loads(json.dumps(recorded("openbao-2.7.2")))
    for request in requests:
        for line in request["lines"]:
            auth = line.get("auth") or {}
            if auth.get("client_token") == line["request"].get("client_token"):
                auth.pop("client_token", None)
    assert said(requests) == said(recorded("openbao-2.7.2"))


def test_without_the_kept_form_a_use_after_the_end_is_nobodys() -> None:
    """On Vault a line of a dead token has that form alone: whoever never acted before cannot be named."""
    requests = recorded("vault-1.14.9")
    (late,) = [n for n, request in enumerate(requests) if request["case"] == "used after the end"]
    used = [n for n, request in enumerate(requests) if 20 < n < late and "sent_token" in request["hashes"]]
    silent = [{**request, "lines": []} if n in used else request for n, request in enumerate(requests)]
    assert said(requests)[late].endswith("| refused t1 | refused t1")
    assert said(silent)[late].endswith("| refused ? | refused ?")


@pytest.mark.parametrize("server", SERVERS)
def test_a_revocation_that_names_the_token_in_its_body_is_of_that_token(server: str) -> None:
    """As a renewal names it, in the same form."""
    (n,) = [n for n, request in enumerate(recorded(server)) if request["case"] == "renewed by token"]
    text = json.dumps(recorded(server)[n]).replace("auth/token/renew", "auth/token/revoke")
    requests = [*recorded(server)[:n], json.loads(text)]
    assert said(requests)[n].endswith("| token_revoked t1 | token_revoked t1")
