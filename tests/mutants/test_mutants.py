"""Each mutation still applies, and red is told from green and from neither. `make mutants` runs them all."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mutants import trial, witness
from mutants.mutation import ROOT, Mutation, mutations
from mutants.trial import Copy

ALL = mutations()
WHOLE = "tests/unit/lifecycle/confirmation/test_checks.py"
NARROW = f"{WHOLE}::test_tidying_tokens_is_a_hazard_to_a_token"


def named(words: str) -> Mutation:
    (found,) = [mutation for mutation in ALL if mutation.breaks == words]
    return found


def hazards(**changes: str) -> Mutation:
    return replace(named("4: hazards are ignored"), tests=(NARROW,), **changes)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    yield Copy(tmp_path_factory.mktemp("mutants") / "copy")


@pytest.mark.parametrize("mutation", ALL, ids=lambda m: f"{m.table} {m.breaks}")
def test_a_mutation_still_applies(mutation: Mutation) -> None:
    assert mutation.why_stale(ROOT) == ""
    text = (ROOT / mutation.file).read_text().replace(mutation.old, mutation.new)
    if mutation.file.endswith(".py"):
        ast.parse(text)
    for test in mutation.tests:
        file, _, name = test.partition("::")
        assert not name or f"def {name}(" in (ROOT / file).read_text()


def test_each_mutation_is_one_of_its_own() -> None:
    assert len({(m.file, m.old, m.new) for m in ALL}) == len(ALL)
    assert len({m.breaks for m in ALL}) == len(ALL)


@pytest.mark.parametrize("n", range(1, 8))
def test_each_numbered_check_is_broken_several_times(n: int) -> None:
    assert len([m for m in ALL if m.breaks.startswith(f"{n}: ")]) >= 2


@pytest.mark.parametrize(
    "words", ["4: hazards are ignored", "6: open sessions are ignored", "2: ours counts after somebody else's"]
)
@pytest.mark.thorough
def test_a_mutant_is_caught_in_a_copy_that_is_put_back(copy: Copy, words: str) -> None:
    mutation = named(words)
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
    for old in ("this is nowhere", "return"):
        assert copy.judge(hazards(old=old)).why.startswith("stale")


@pytest.mark.thorough
def test_another_checkout_is_never_tested_instead(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when an installation comes first: pytest does not begin, and that is neither red nor green."""
    monkeypatch.setattr(trial, "ROOT_VARIABLE", "SOMETHING_ELSE")
    monkeypatch.setenv(witness.ROOT, str(ROOT / "docs"))
    run = copy.run([NARROW])
    assert (run.code, run.is_green, run.is_red) == (pytest.ExitCode.USAGE_ERROR, False, False)
    assert "is tested, and not the copy" in run.said
