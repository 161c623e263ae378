"""Each mutation still applies, and red is told from green and from neither. `make mutants` runs them all."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import pytest

from mutants import trial, witness
from mutants.mutation import ROOT, Mutation, Stale, mutations, scope
from mutants.trial import Copy

ALL = mutations()
WHOLE = "tests/unit/lifecycle/confirmation/test_checks.py"
NARROW = f"{WHOLE}::test_tidying_tokens_is_a_hazard_to_a_token"


def _meaning(code: str) -> str:
    """Return what is compared of a file, or of one definition in it, which may be indented."""
    code = code.strip("\n")
    return ast.dump(ast.parse(f"if 1:\n{code}" if code[0] == " " else code))


@lru_cache(None)
def _read(file: str) -> str:
    return (ROOT / file).read_text()


def named(words: str) -> Mutation:
    (found,) = [mutation for mutation in ALL if mutation.breaks == words]
    return found


def hazards(**changes: str) -> Mutation:
    return replace(named("4: hazards are ignored"), tests=(NARROW,), **changes)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    yield Copy(tmp_path_factory.mktemp("mutants") / "copy")


@pytest.mark.parametrize("table", dict.fromkeys(mutation.table for mutation in ALL))
def test_the_mutations_of_a_table_still_apply(table: str) -> None:
    wrong = {m.breaks: why for m in ALL if m.table == table and (why := _why_it_cannot_be_seen(m))}
    assert wrong == {}


def _why_it_cannot_be_seen(mutation: Mutation) -> str:
    if stale := mutation.why_stale(ROOT):
        return stale
    if mutation.file.endswith(".py"):
        text = _read(mutation.file)
        mutant = mutation.applied(text)
        begin, end = scope(text, mutation.within)
        try:
            after = _meaning(mutant[begin : end + len(mutant) - len(text)])
        except SyntaxError as error:
            return f"it is no Python any more: {error}"
        if after == _meaning(text[begin:end]):
            return "it changes nothing"
    named = [(file, name) for file, _, name in (test.partition("::") for test in mutation.tests) if name]
    missing = [name for file, name in named if f"def {name}(" not in _read(file)]
    return f"there is no {missing[0]}" if missing else ""


def test_each_mutation_is_one_of_its_own() -> None:
    assert len({(m.file, m.within, m.old, m.new) for m in ALL}) == len(ALL)
    assert len({m.breaks for m in ALL}) == len(ALL)


@pytest.mark.parametrize("n", range(1, 8))
def test_each_numbered_check_is_broken_several_times(n: int) -> None:
    assert len([m for m in ALL if m.breaks.startswith(f"{n}: ")]) >= 2


@pytest.mark.thorough
def test_a_mutant_is_caught_in_a_copy_that_is_put_back(copy: Copy) -> None:
    mutation = named("4: hazards are ignored")
    verdict = copy.judge(mutation)
    assert (verdict.why, verdict.caught_by.partition("::")[0]) == ("", WHOLE)
    for place in (copy.place, ROOT):
        assert mutation.why_stale(place) == ""


@pytest.mark.thorough
def test_a_mutant_that_no_test_notices_survives(copy: Copy) -> None:
    harmless = hazards(new="    acts = [o for o in lines if o.kind is Kind('hazard')]")
    assert copy.judge(harmless).why == "survived"


@pytest.mark.parametrize(
    "new",
    [
        "    acts = [o for o in lines if o.kind is Kind.HAZARD and nobody_knows]",
        "    acts = [o for o in lines if o.kind is is Kind.HAZARD]",
        "    import nowhere\n    acts = [o for o in lines if o.kind is Kind.HAZARD]",
    ],
)
@pytest.mark.thorough
def test_code_that_is_only_broken_is_no_mutant(copy: Copy, new: str) -> None:
    verdict = copy.judge(hazards(new=new))
    assert verdict.why.startswith("no verdict")


def test_a_mutation_whose_text_is_not_there_once_is_stale(copy: Copy) -> None:
    for changes in ({"old": "this is nowhere"}, {"old": "o"}, {"within": "nobody"}):
        assert copy.judge(hazards(**changes)).why.startswith("stale")


MOVED = """\
class Door:
    def open(self, key: str) -> bool:
        if key in self.keys:
            return True
        return False

def open(key: str) -> bool:
    return True
"""


def mutation_of(within: str, old: str, new: str) -> Mutation:
    return Mutation("doors", "everybody has a key", "door.py", old, new, (), within)


def test_a_mutation_is_of_the_function_that_it_names_however_its_text_is_indented_and_broken() -> None:
    for old in ("if key in self.keys:\n    return True", "if   key in\n   self.keys: return True"):
        changed = mutation_of("Door.open", old, "return True").applied(MOVED)
        assert changed == MOVED.replace("if key in self.keys:\n            return True", "return True")
    outer = mutation_of("Door.open", "return True\n        return False", "    pass\nreturn True").applied(MOVED)
    assert outer == MOVED.replace("return True\n        return False", "pass\n        return True")
    assert mutation_of("open", "True", "False").applied(MOVED) == MOVED.replace(
        "    return True\n", "    return False\n"
    ).replace("            return False\n        return", "            return True\n        return")


@pytest.mark.parametrize(
    ("within", "old", "new", "why"),
    [
        ("", "return True", "pass", "2 times in door.py"),
        ("Door", "def shut", "pass", "0 times in Door of door.py"),
        ("Door.shut", "return True", "pass", "Door.shut is defined 0 times"),
        ("open", "return True", "return  True".replace("  ", " "), "changes nothing"),
    ],
)
def test_a_mutation_of_what_is_not_there_says_where_it_looked(within: str, old: str, new: str, why: str) -> None:
    with pytest.raises(Stale, match=why):
        mutation_of(within, old, new).applied(MOVED)


@pytest.mark.thorough
def test_another_checkout_is_never_tested_instead(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when an installation comes first: pytest does not begin, and that is neither red nor green."""
    monkeypatch.setattr(trial, "ROOT_VARIABLE", "SOMETHING_ELSE")
    monkeypatch.setenv(witness.ROOT, str(ROOT / "docs"))
    run = copy.run([NARROW])
    assert (run.code, run.is_green, run.is_red) == (pytest.ExitCode.USAGE_ERROR, False, False)
    assert "is tested, and not the copy" in run.said
