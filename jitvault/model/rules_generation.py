"""The generation of the rules that this code follows.

Workers of different versions must not judge the same tasks. The generation is neither the package version nor the
schema version. Raise it by one with every change of what a worker reads from audit lines, what it grants by, what
it calls proven, or what it needs to seal a task. Otherwise an older worker beside a newer one would settle valid
requests as refused, or seal what the newer one would not. The ledger keeps the highest generation that has worked
on it, and takes no writes from a lower one.
"""

from __future__ import annotations

GENERATION = 6
