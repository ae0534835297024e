"""Claims between real processes: nobody does a slide twice, and what a killed one had is taken up."""

import errno
import signal
import subprocess
import sys
import textwrap

import pytest

from pathzoo.errors import OutputError, SlideError
from pathzoo.wsi.claims import FOLDER, Claims

_HOLD = """
import sys, time
from pathlib import Path
from pathzoo.wsi.claims import Claims
with Claims(Path(sys.argv[1])) as claims, claims.claim("a") as ours:
    (Path(sys.argv[1]) / ".a.abcdefgh").mkdir()
    print(ours, flush=True)
    time.sleep(60)
"""
_RACE = """
import sys, time
from pathlib import Path
from pathzoo.wsi.claims import Claims
out = Path(sys.argv[1])
with Claims(out) as claims:
    for name in map(str, range(40)):
        if (out / name).exists() or claims.failure(name):
            continue
        with claims.claim(name) as ours:
            if ours and not (out / name).exists():
                time.sleep(0.002)
                (out / name).mkdir()  # FileExistsError where two had it
                print(name)
"""


def _start(code, out):
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(out)], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_claim_is_refused_while_it_is_held_and_free_when_its_process_is_killed(tmp_path, how):
    other = _start(_HOLD, tmp_path / "out")
    assert other.stdout.readline() == "True\n"
    with Claims(tmp_path / "out") as claims:
        with claims.claim("a") as ours:
            assert not ours
        with claims.claim("a.b") as ours:
            assert ours
            assert (tmp_path / "out/.a.abcdefgh").exists()
        other.send_signal(how)
        other.wait()
        with claims.claim("a") as ours:
            assert ours
            assert not (tmp_path / "out/.a.abcdefgh").exists(), "leftovers of the killed process"
    other.stdout.close()
    assert not (tmp_path / "out").exists(), "nothing came into it"


def test_three_processes_do_everything_once(tmp_path):
    processes = [_start(_RACE, tmp_path / "out") for _ in range(3)]
    done = [process.communicate(timeout=60)[0].split() for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert sorted(name for names in done for name in names) == sorted(map(str, range(40)))
    assert not (tmp_path / "out" / FOLDER).exists()


def test_a_failure_is_known_to_the_others_and_forgotten_by_the_next_call(tmp_path):
    (tmp_path / "kept").write_text("")
    with Claims(tmp_path) as one, Claims(tmp_path) as two:
        one.note_failure("a", "truncated")
        assert two.failure("a") == "truncated"
        assert two.failure("b") is None
    with Claims(tmp_path) as later:
        assert later.failure("a") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]


def test_notes_of_a_killed_call_are_forgotten_too(tmp_path):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "a.failed").write_text("old")
    with Claims(tmp_path) as claims:
        assert claims.failure("a") is None


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SlideError, match="file/out: cannot be written"), Claims(tmp_path / "file/out"):
        pass


def test_a_folder_that_nothing_came_into_goes_again_unless_the_user_made_it(tmp_path):
    (tmp_path / "own").mkdir()
    for out in (tmp_path / "own", tmp_path / "new/deep"):
        with Claims(out) as claims, claims.claim("a") as ours:
            assert ours
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_the_last_to_leave_removes_the_folder_that_another_made(tmp_path):
    first, second = Claims(tmp_path / "new/deep"), Claims(tmp_path / "new/deep")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert (tmp_path / "new/deep").exists()
    second.__exit__(None, None, None)
    assert not list(tmp_path.iterdir())


_COME = """
import fcntl, os, sys, time
handle = os.open(sys.argv[1] + "/.claims/present", os.O_RDWR)
fcntl.flock(handle, fcntl.LOCK_EX)
print("here", flush=True)
time.sleep(0.5)
"""


def test_who_comes_while_another_is_coming_is_present_all_the_same(tmp_path):
    """Else the other would take the folder of claims away from under it."""
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "present").touch()
    other = _start(_COME, tmp_path)
    assert other.stdout.readline() == "here\n"
    with Claims(tmp_path) as claims:
        other.wait()
        other.stdout.close()
        with Claims(tmp_path) as third:
            third.note_failure("a", "truncated")
        assert claims.failure("a") == "truncated", "the third was not alone, so it left the folder as it was"


def test_the_folder_is_looked_through_once_however_many_slides_there_are(tmp_path, monkeypatch):
    (tmp_path / ".a7.abcdefgh").mkdir()
    (tmp_path / ".a7.old.abcdefgh").mkdir()  # of a slide called a7.old
    (tmp_path / ".a8.old.abcdefgh" / "a8").mkdir(parents=True)
    looked, plain = [], Claims._find_leftovers
    monkeypatch.setattr(Claims, "_find_leftovers", lambda self: (looked.append(1), plain(self))[1])
    with Claims(tmp_path) as claims:
        for number in range(50):
            with claims.claim(f"a{number}") as ours:
                assert ours
    assert len(looked) == 1
    assert [path.name for path in tmp_path.iterdir()] == [".a7.old.abcdefgh"]


def test_a_note_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    def write_text(path, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathzoo.wsi.claims.write_text", write_text)
    with Claims(tmp_path) as claims, pytest.raises(OutputError, match="No space left on device; what is done is kept"):
        claims.note_done("a")


def test_a_name_may_be_as_long_as_a_file_systems(tmp_path):
    with Claims(tmp_path) as claims, claims.claim("n" * 251) as ours:
        assert ours
        claims.note_failure("n" * 251, "why")
        assert claims.failure("n" * 251) == "why"


def test_who_comes_late_finds_what_the_others_noted(tmp_path):
    """Of two processes of one launcher one may begin when the other has nothing left to do."""
    early, late = Claims(tmp_path, rank=1), Claims(tmp_path, rank=0)
    with early:
        early.note_failure("bad", "no slide")
        assert not early.wait_for_arrivals(2, 0.2)
        with late:
            assert early.wait_for_arrivals(2, 0) and late.wait_for_arrivals(2, 0)
            early.__exit__(None, None, None)
            assert late.failure("bad") == "no slide"
            early.__enter__()
    assert not (tmp_path / FOLDER).exists()
    with Claims(tmp_path, rank=1) as later:  # another launch counts its own
        assert later.wait_for_arrivals(1, 0) and not later.wait_for_arrivals(2, 0)
