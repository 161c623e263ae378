"""Who goes first where there are too many, and what of it leaves the disk."""

from __future__ import annotations

import io
import os
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitvault.audit.files import untrusted
from jitvault.audit.files.spool import Spool, SpoolSources
from jitvault.audit.files.untrusted import MARK, mark_trusted, parse_quota
from jitvault.audit.receivers.http_senders import Senders
from jitvault.audit.receivers.peers import Guest, Peer, first_to_go, peer_at
from jitvault.errors import UsageError

MIB = 1024 * 1024
VAULT = Peer("tcp-10.0.0.5", "10.0.0.5")
hosts = st.sampled_from(["10.0.0.5", "10.0.0.6", "10.0.0.7"])
guests = st.builds(
    Guest,
    hosts.map(lambda host: Peer(f"tcp-{host}", host)),
    st.floats(0, 100),
    came_whole=st.booleans(),
    busy=st.booleans(),
    known=st.booleans(),
)


# --- who goes ---


@given(st.lists(guests, max_size=20), st.floats(0, 100))
def test_a_known_peer_goes_only_where_there_is_no_other(others: list[Guest], since: float) -> None:
    vault = Guest(VAULT, since, known=True)
    goes = first_to_go([vault, *others])
    assert goes is not vault or all(other.known for other in others)


@given(st.integers(2, 50), st.floats(0, 100))
def test_many_of_one_address_do_not_push_out_one_of_another(number: int, since: float) -> None:
    crowd = [Guest(Peer("tcp-10.0.0.6", "10.0.0.6"), float(n)) for n in range(number)]
    assert first_to_go([Guest(VAULT, since), *crowd]) is crowd[0]
    assert first_to_go([]) is None


def test_who_brought_nothing_whole_goes_before_who_did() -> None:
    idle, slow, new = Guest(VAULT, 1, came_whole=True), Guest(VAULT, 2, busy=True), Guest(VAULT, 3)
    there = [idle, slow, new]
    order = []
    while (goes := first_to_go(there)) is not None:
        there.remove(goes)
        order.append(goes)
    assert order == [new, slow, idle]


def test_one_party_is_one_peer_however_its_address_is_written() -> None:
    assert peer_at("tcp", "::ffff:10.0.0.5") == peer_at("tcp", "10.0.0.5") == VAULT
    one, other, elsewhere = (peer_at("http", host) for host in ("2001:db8::1", "2001:db8::2:1%eth0", "2001:db8:1::1"))
    assert one.group == other.group != elsewhere.group
    assert one.name != other.name


# --- what goes ---


def size(spool: Spool) -> int:
    return sum(path.stat().st_size for path in spool.directory.iterdir())


def test_of_untrusted_files_the_oldest_go_and_the_connection_stays(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", quota=8 * MIB)
    trusted, gone, open_ = (spool.writer(name) for name in ("trusted", "gone", "open"))
    mark_trusted(trusted.path)
    for writer in (trusted, gone):
        writer.write(b"x" * MIB)
        os.utime(writer.path, (1, 1))
        spool.release(writer)
    for n in range(20):
        open_.write(b"%d" % n * MIB + b"\n")
        assert spool.too_much() is None, "its earlier segments were enough"
        assert size(spool) < 9 * MIB
    assert not gone.path.exists() and trusted.path.stat().st_size == MIB
    # its last lines are those that stay
    assert open_.path.read_bytes().startswith(b"19")
    mark_trusted(open_.path)
    for n in range(20):
        open_.write(b"%d" % n * MIB + b"\n")
        assert spool.too_much() is None
    assert size(spool) > 20 * MIB, "what is trusted has no quota"
    spool.release(open_)


def test_where_no_file_may_go_the_longest_of_the_biggest_group_has_to(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", quota=120)
    vault = spool.writer("tcp-10.0.0.5-1", group="10.0.0.5")
    crowd = [spool.writer(f"tcp-10.0.0.6-{n}", group="10.0.0.6") for n in range(4)]
    vault.write(b"v" * 30)
    for n, writer in enumerate(crowd):
        writer.write(b"x" * (9 + n))
    assert spool.too_much() is crowd[3]
    spool.release(crowd[3])
    assert spool.too_much() is None
    assert vault.path.exists() and not crowd[3].path.exists()
    for writer in (vault, *crowd[:3]):
        spool.release(writer)


def test_many_small_files_go_too_and_a_later_run_counts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted, "MAX_FILES", 16)
    for _ in range(2):
        spool = Spool(tmp_path / "spool")
        for n in range(20):
            writer = spool.writer(f"tcp-10.0.0.6-{n}")
            writer.write(b"x\n")
            spool.release(writer)
            spool.too_much()
        assert 8 < len(list(spool.directory.iterdir())) <= 16


def test_one_that_was_vouched_for_is_known_in_a_later_run(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    tcp, http = spool.writer("tcp-10.0.0.5-4711"), spool.writer("http-2001:db8::1")
    for writer in (tcp, http):
        spool.release(writer)
    for source in SpoolSources(spool.directory, name="spool").present():
        source.vouch()
        source.vouch()
    later = Spool(tmp_path / "spool")
    assert later.knows("tcp-10.0.0.5") and later.knows("http-2001:db8::1")
    assert not later.knows("tcp-10.0.0.6") and not later.knows("http-10.0.0.5")


def test_a_mark_goes_with_its_file_and_follows_no_link(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    writer = spool.writer("tcp-10.0.0.5-1")
    target = tmp_path / "elsewhere"
    mark = writer.path.with_name(writer.path.name + MARK)
    mark.symlink_to(target)
    mark_trusted(writer.path)
    assert not target.exists() and not writer.trusted
    mark.unlink()
    mark_trusted(writer.path)
    assert writer.trusted
    spool.release(writer)
    writer.path.unlink()
    spool.remove_old(timedelta(days=7))
    assert list(spool.directory.iterdir()) == []


def test_one_more_address_ends_the_file_of_one_that_nobody_vouched_for(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    senders = Senders(spool, limit=2)
    for host in ("10.0.0.5", "10.0.0.6"):
        senders.keep(peer_at("http", host), io.BytesIO(b"{}\n"))
    (vault,) = spool.directory.glob("*10.0.0.5.log")
    mark_trusted(vault)
    for host in ("10.0.0.7", "10.0.0.8"):
        senders.keep(peer_at("http", host), io.BytesIO(b"{}\n"))
    senders.keep(peer_at("http", "10.0.0.5"), io.BytesIO(b"{}\n"))
    assert vault.read_bytes() == b"{}\n{}\n"


@pytest.mark.parametrize("text", ["", "0MiB", "64", "64MB", "-1GiB", "64mib", "٤MiB", "9999999GiB"])
def test_a_quota_is_whole_mebibytes_or_gibibytes(text: str) -> None:
    with pytest.raises(UsageError):
        parse_quota(text)
    assert (parse_quota("64MiB"), parse_quota("2GiB")) == (64 * MIB, 2048 * MIB)
