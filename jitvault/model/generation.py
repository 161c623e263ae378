"""Which generation of rules this code follows, so that workers of different versions do not judge the same tasks.

It is no version of the package and none of the schema. Raise it by one with every change of what a worker reads from
audit lines, what it grants by, what it calls proven, or what it needs to seal a task. An older worker beside a newer
one would settle valid requests as refused, or seal what the newer one would not. The ledger keeps the highest
generation that worked on it, and takes no writes from a lower one.
"""

from __future__ import annotations

GENERATION = 2
