"""Events on disk: what is written is there, whatever ends the process."""

import itertools
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.spool import SEGMENT_BYTES, Spool, read_records

EVENTS = [b'{"id": "1"}', b'{"id": "2"}', '{"id": "h\u00e9"}'.encode()]


def open_spool(directory: Path) -> Spool:
    spool = Spool(directory, 2**20)
    spool.open()
    return spool


def drain(spool: Spool) -> list[bytes]:
    """Everything, in the order in which it would be sent."""
    events = []
    while (segment := spool.oldest()) is not None:
        events += spool.read(segment)
        spool.drop(segment)
    return events


def segments_in(directory: Path) -> list[Path]:
    return sorted(directory.glob("*/*.events"))


def test_events_come_back_in_order_and_unchanged(tmp_path):
    """Byte for byte, because their identity with an earlier try is what keeps the ledger from billing twice."""
    spool = open_spool(tmp_path)
    spool.append(EVENTS[:2])
    spool.append(EVENTS[2:])
    assert (spool.events, spool.size) == (3, sum(8 + len(event) for event in EVENTS))
    assert drain(spool) == EVENTS
    assert (spool.events, spool.size, spool.oldest_seconds) == (0, 0, 0.0)


def test_only_the_owner_may_read_them(tmp_path):
    """Events name people."""
    spool = open_spool(tmp_path / "new")
    spool.append(EVENTS)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").rglob("*") if path.is_file()}
    assert modes == {0o600}
    folders = [tmp_path / "new", *(path for path in (tmp_path / "new").iterdir())]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}


def test_a_segment_ends_when_it_is_large(tmp_path):
    """What was sent can be deleted while more is coming."""
    spool = open_spool(tmp_path)
    large = [b"x" * (SEGMENT_BYTES // 2)] * 5
    for event in large:
        spool.append([event])
    assert len(segments_in(tmp_path)) == 3
    assert drain(spool) == large
    assert segments_in(tmp_path) == []


def test_two_gateways_on_one_directory_never_send_the_same_events(tmp_path):
    """A folder whose gateway lives is not touched; once it is gone, one of the others takes it over."""
    living, other, third = open_spool(tmp_path), open_spool(tmp_path), open_spool(tmp_path)
    living.append(EVENTS)
    assert [other.adopt(), third.adopt()] == [0, 0]
    assert other.oldest() is None
    living.close()
    assert [other.adopt(), third.adopt()] == [3, 0]
    assert drain(other) == EVENTS
    assert third.adopt() == 0
    other.close()
    third.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_gateway_left_goes_before_what_is_new(tmp_path):
    """Oldest first, whoever wrote it."""
    first = open_spool(tmp_path)
    first.append(EVENTS[:1])
    first.close()
    second = open_spool(tmp_path)
    assert second.events == 1
    second.append(EVENTS[1:])
    assert drain(second) == EVENTS


def test_a_kill_loses_nothing_that_was_taken(tmp_path):
    """SIGKILL between two appends, half a record behind the last one: the next start has all that `append` took."""
    script = f"""
import os, signal, sys
from pathlib import Path
from gateway.spool import Spool
spool = Spool(Path({str(tmp_path)!r}), 2**20)
spool.open()
for number in range(50):
    spool.append([b'{{"id": "%d"}}' % number])
os.write(spool._writing[0], b"\\x20\\x00\\x00\\x00\\xff")
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=Path.cwd(), check=False).returncode == -9
    spool = open_spool(tmp_path)
    assert spool.events == 50
    assert drain(spool) == [b'{"id": "%d"}' % number for number in range(50)]
    spool.close()
    assert list(tmp_path.iterdir()) == []


@given(cut=st.integers(0, 60), events=st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=4))
def test_a_torn_end_costs_only_the_event_it_belongs_to(tmp_path_factory, cut, events):
    """Wherever the segment ends, the whole records in front are read and nothing is made up."""
    spool = open_spool(tmp_path_factory.mktemp("spool"))
    spool.append(events)
    segment = spool.oldest()
    content = segment.path.read_bytes()[: max(0, segment.size - cut)]
    read, problem = read_records(content)
    ends = list(itertools.accumulate(8 + len(event) for event in events))
    assert read == [event for event, end in zip(events, ends, strict=True) if end <= len(content)]
    assert (problem is None) == (len(content) in (0, *ends))
    spool.close()


def test_a_damaged_record_is_noticed_and_kept(tmp_path, caplog):
    """A flipped bit is no event; what stands before it is sent, the file stays for a person to look at."""
    spool = open_spool(tmp_path)
    spool.append(EVENTS)
    segment = spool.oldest()
    content = bytearray(segment.path.read_bytes())
    content[8 + len(EVENTS[0]) + 8 + 3] ^= 1
    segment.path.write_bytes(content)
    assert drain(spool) == EVENTS[:1]
    assert "spool_damaged" in caplog.text
    (kept,) = tmp_path.glob("*/*.damaged")
    assert kept.read_bytes() == bytes(content)


def test_an_append_that_fails_leaves_nothing_half(tmp_path, monkeypatch):
    """The next one, when there is room again, is readable to its end."""
    spool = open_spool(tmp_path)
    spool.append(EVENTS[:1])

    def full(descriptor, content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("gateway.spool.os.write", full)
        with pytest.raises(OSError, match="No space"):
            spool.append(EVENTS[1:])
    spool.append(EVENTS[1:])
    assert drain(spool) == EVENTS


def test_its_age_is_that_of_the_oldest_event(tmp_path):
    """What an operator reads in /health."""
    spool = open_spool(tmp_path)
    spool.append(EVENTS[:1])
    time.sleep(0.05)
    spool.append(EVENTS[1:])
    assert 0.05 <= spool.oldest_seconds < 60


def test_what_is_none_of_ours_is_left_alone(tmp_path):
    """A stray file or folder in the directory is neither sent nor deleted."""
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "note.txt").write_text("keep")
    spool = open_spool(tmp_path)
    spool.append(EVENTS)
    assert drain(spool) == EVENTS
    spool.close()
    assert sorted(os.listdir(tmp_path)) == ["lost+found", "note.txt"]


def test_what_others_laid_there_is_not_sent(tmp_path):
    """Events of a folder that somebody else made, or linked to, would be bills in the gateway's name."""
    spool = open_spool(tmp_path / "elsewhere")
    spool.append(EVENTS)
    spool.close()
    (left,) = (tmp_path / "elsewhere").iterdir()
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "1").symlink_to(left)
    assert open_spool(tmp_path / "spool").events == 0
    if os.geteuid() == 0:  # others may not give a file away
        (tmp_path / "spool" / "1").unlink()
        left.rename(tmp_path / "spool" / "2")
        os.chown(tmp_path / "spool" / "2", 12_345, 12_345)
        assert open_spool(tmp_path / "spool").events == 0
        os.chown(tmp_path / "spool" / "2", os.geteuid(), os.getegid())
        assert open_spool(tmp_path / "spool").events == len(EVENTS)
