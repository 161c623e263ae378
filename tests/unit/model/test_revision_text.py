from __future__ import annotations

from test_revision import SPEC, resolved, revision, set_in

from jitvault.model.revision_text import describe, difference


def test_plain_words_say_what_is_granted_to_whom_and_for_how_long() -> None:
    words = "\n".join(describe(revision()))
    for said in [
        "olga asks for access for the agent research-agent",
        "data-owner owns the data",
        "Count the orders of last week.",
        "Risk medium: criticality medium, tier low",
        "database/creds/app-ro",
        "pg-read",
        "database=app",
        "5",
        "Read every table.",
        "for 15m from the moment it is granted",
        "at most 10m",
        "network office (10.0.0.0/8)",
        "pandas, psql",
        "target",
    ]:
        assert said in words


def test_plain_words_name_every_path() -> None:
    words = "\n".join(describe(revision(access=[resolved(), resolved(database="crm")])))
    assert "database/creds/app-ro" in words
    assert "database/creds/crm-ro" in words


def test_plain_words_of_other_windows_and_of_any_network() -> None:
    window = {"until": "2030-01-31T10:00:00Z", "not_before": "2030-01-31T09:30:00Z"}
    spec = set_in(set_in(SPEC, "spec.window", window), "spec.network", ...)
    words = "\n".join(describe(revision(spec, cidrs=[])))
    assert "until 2030-01-31 10:00:00 UTC, not before 2030-01-31 09:30:00 UTC" in words
    assert "From: any network." in words


def test_each_of_the_words_is_one_line() -> None:
    assert all(line.isprintable() for line in describe(revision()))


def test_a_difference_names_what_changed() -> None:
    old = revision()
    assert difference(old, revision()) == []
    assert difference(old, revision(number=2)) == []
    intent = difference(old, revision(set_in(SPEC, "spec.intent", "Drop the orders.")))
    assert intent == ["spec.spec.intent: 'Count the orders of last week.' → 'Drop the orders.'"]
    assert difference(old, revision(set_in(SPEC, "spec.network", ...))) == ["spec.spec.network: 'office' → nothing"]
    more = difference(old, revision(cidrs=["10.0.0.0/8", "172.16.0.0/12"]))
    assert more == ["cidrs[1]: nothing → '172.16.0.0/12'"]


def test_a_difference_is_never_silent_about_another_digest() -> None:
    engine = {"role": {"db_name": "elsewhere"}}
    changed = difference(revision(), revision(access=[resolved(engine=engine)]))
    assert len(changed) == 1
    assert changed[0].startswith("access[0].engine_config: 'sha256:")
