"""Fuzz the reading of audit lines: `make fuzz`. The arguments are libFuzzer's.

Any bytes whatever are a chunk of the stream. The laws of `unit/audit/decoding/laws.py` hold for them, and nothing but
`Undecodable` comes out. The seeds in `corpus/` are written by hand: their HMACs are of nothing.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["jitvault.audit", "jitvault.audit.observation"]):
    import jitvault.audit.decoding.decoder  # noqa: F401 - what is imported here is what is instrumented

from unit.audit.decoding.laws import scan_is_decoding_of_each_line, skimming_is_decoding


def one_input(data: bytes) -> None:
    rest = data
    # each bad line ends a stretch, and what comes after it is read as the next
    for _ in range(8):
        found = scan_is_decoding_of_each_line(rest)
        if found.bad is None:
            break
        rest = rest[found.consumed :]
    for raw in data.split(b"\n")[:4]:
        # borders that move with the input
        step = 1 + sum(raw[:8]) % 97
        skimming_is_decoding(raw + b"\n", list(range(0, len(raw), step)) if len(raw) < 10_000 else [len(raw) // step])


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
