"""Claims between real processes: nobody does a slide twice, and what a killed one had is taken up."""

import signal
import subprocess
import sys
import textwrap

import pytest

from pathzoo.errors import SlideError
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
    assert not list((tmp_path / "out").iterdir())


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
