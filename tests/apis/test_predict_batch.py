"""Many slides: bad ones are survived, what was killed goes on, and two processes share the work."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from batch_worker import Slow, tasks

from pathzoo.apis.launch import Place, place
from pathzoo.apis.predict_batch import run_batch
from pathzoo.apis.preemption import EXIT_PREEMPTED
from pathzoo.errors import ConfigError, OutputError, SlideError
from pathzoo.wsi.claims import Claims

_WORKER = Path(__file__).with_name("batch_worker.py")


def _slide(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(100, 200, (320, 384, 3)).astype(np.uint8)
    pixels[..., 1] = 60
    resolution = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb", compression="deflate", **resolution)


@pytest.fixture
def slides(tmp_path) -> Path:
    folder = tmp_path / "slides"
    folder.mkdir()
    for number in range(4):
        _slide(folder / f"s{number}.tif", number)
    return folder


def _start(slides: Path, out: Path, log: Path, seconds: float = 0.0) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(_WORKER), str(slides), str(out), str(log), str(seconds)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def _content(out: Path) -> dict[str, bytes]:
    """All outputs but what holds times."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "predict_run.json"
    }


def _wait_until_busy(out: Path, process: subprocess.Popen) -> None:
    """Until the first slide is done and the second begun."""
    deadline = time.monotonic() + 60
    while not ((out / "s0/predict_run.json").exists() and list(out.glob(".s1.*"))):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)


def test_a_bad_slide_is_named_and_the_others_are_done(slides, tmp_path, capsys):
    (slides / "s1.tif").write_bytes((slides / "s1.tif").read_bytes()[:300])
    batch = run_batch(tasks(slides), Slow(), tmp_path / "out")
    assert [path.name for path, _ in batch.failed] == ["s1.tif"]
    assert "s1.tif" in batch.failed[0][1] and "\n" not in batch.failed[0][1]
    assert "s1.tif" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["s0", "s2", "s3"]


def test_what_is_done_is_left_as_it_is_unless_asked_otherwise(slides, tmp_path):
    out = tmp_path / "out"
    first = run_batch(tasks(slides), Slow(), out)
    assert first.reused == 0 and len(first.results) == 4
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*.csv")}
    _slide(slides / "s4.tif", 9)
    second = run_batch(tasks(slides), Slow(), out)
    assert second.reused == 4 and len(second.results) == 5
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert [r.counts for r in second.results[:4]] == [r.counts for r in first.results]
    third = run_batch(tasks(slides), Slow(), out, overwrite=True)
    assert third.reused == 0 and len(third.results) == 5


def test_an_output_by_other_options_or_of_something_else_is_no_result_of_this_call(slides, tmp_path):
    out = tmp_path / "out"
    run_batch(tasks(slides), Slow(), out)
    (out / "s2/predict_run.json").unlink()
    before = _content(out)
    batch = run_batch(tasks(slides, overlap=0.5), Slow(), out)
    reasons = [reason for _, reason in batch.failed]
    assert len(reasons) == 4
    assert sum("other options" in reason and "--overwrite" in reason for reason in reasons) == 3
    assert "no finished prediction" in reasons[2]
    assert _content(out) == before
    with pytest.raises(SlideError, match="another model or other options"):
        run_batch(tasks(slides, overlap=0.5)[:1], Slow(), out)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_was_ended_goes_on_and_ends_as_an_unbroken_one(slides, tmp_path, how):
    run_batch(tasks(slides), Slow(), tmp_path / "unbroken")
    out, log = tmp_path / "out", tmp_path / "log"
    broken = _start(slides, out, log, 0.05)
    _wait_until_busy(out, broken)
    broken.send_signal(how)
    said = broken.communicate(timeout=30)[1]
    if how == signal.SIGTERM:
        assert broken.returncode == EXIT_PREEMPTED
        assert "the same command goes on" in said
        assert not [path for path in out.iterdir() if path.name.startswith(".")], "no half-written folder, no claim"
    batch = run_batch(tasks(slides), Slow(), out)
    assert batch.reused >= 1 and len(batch.results) == 4 and not batch.failed
    assert _content(out) == _content(tmp_path / "unbroken")
    assert sorted(path.name for path in out.iterdir()) == ["s0", "s1", "s2", "s3"]


def test_two_processes_do_every_slide_once_and_a_bad_one_is_tried_once(slides, tmp_path):
    (slides / "s2.tif").write_bytes(b"no slide")
    out, log = tmp_path / "out", tmp_path / "log"
    processes = [_start(slides, out, log, 0.02) for _ in range(2)]
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    lines = [line.split() for line in log.read_text().splitlines()]
    assert sum(int(line[0]) for line in lines) == 3, "each good slide was done by one of them"
    assert [int(line[4]) for line in lines] == [1, 1], "both know of the bad one"
    assert sum("s2.tif" in text for text in said) == 1, "and one of them tried it"
    assert sorted(path.name for path in out.iterdir()) == ["s0", "s1", "s3"]


class _Defective(Slow):
    """Fails by a defect on a slide of one colour."""

    def __call__(self, tiles, /):
        if (tiles == 7).all():
            raise ZeroDivisionError("a defect")
        return super().__call__(tiles)


def test_a_defect_on_one_slide_does_not_end_the_others(slides, tmp_path, capsys):
    resolution = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(slides / "s1.tif", np.full((64, 64, 3), 7, np.uint8), tile=(64, 64), **resolution)
    batch = run_batch(tasks(slides, tissue=False), _Defective(), tmp_path / "out")
    assert [path.name for path, _ in batch.failed] == ["s1.tif"] and len(batch.results) == 3
    assert "ZeroDivisionError: a defect" in batch.failed[0][1]
    assert "Traceback" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):  # alone it is shown as it is
        run_batch(tasks(slides, tissue=False)[1:2], _Defective(), tmp_path / "alone")
    assert not (tmp_path / "alone").exists()


def test_a_full_disk_ends_the_run_with_4_where_something_was_done(slides, tmp_path, monkeypatch):
    from pathzoo.apis import predict_batch

    plain, done = predict_batch.predict_slide, []

    def predict_slide(*arguments, **keywords):
        if len(done) == 2:
            raise OutputError("full")
        done.append(1)
        return plain(*arguments, **keywords)

    monkeypatch.setattr(predict_batch, "predict_slide", predict_slide)
    with pytest.raises(OutputError) as end:
        run_batch(tasks(slides), Slow(), tmp_path / "out")
    assert end.value.exit_code == 4
    with pytest.raises(OutputError) as end:
        run_batch(tasks(slides), Slow(), tmp_path / "other")
    assert end.value.exit_code == 2
    assert not (tmp_path / "other").exists()


def test_notes_on_a_failure_hold_a_pseudonym_where_names_are_secret(slides, tmp_path, monkeypatch, capsys):
    """A killed run leaves its notes in the output folder."""
    (slides / "s1.tif").write_bytes(b"no slide")
    noted = []
    plain = Claims.note_failure
    monkeypatch.setattr(Claims, "note_failure", lambda self, name, text: (noted.append(text), plain(self, name, text)))
    secret = [replace(task, name=f"slide-{n}", title=f"slide-{n}") for n, task in enumerate(tasks(slides))]
    with Claims(tmp_path / "out") as other:
        batch = run_batch(secret, Slow(), tmp_path / "out")
        assert len(noted) == 1 and "slide-1: " in noted[0] and "s1" not in noted[0] and str(slides) not in noted[0]
        assert str(slides / "s1.tif") in batch.failed[0][1] and str(slides / "s1.tif") in capsys.readouterr().err
        again = run_batch(secret, Slow(), tmp_path / "out")  # what the others know is told with the path again
        assert again.failed == batch.failed
        assert other.failure("slide-1") == noted[0]


def test_without_locks_each_process_of_a_launcher_does_its_part(slides, tmp_path, monkeypatch, capsys):
    def flock(handle, kind):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    done = [run_batch(tasks(slides), Slow(), tmp_path / "out", where=Place(rank, rank, 3)) for rank in range(3)]
    assert [sorted(path.folder.name for path in part.results) for part in done] == [["s0", "s3"], ["s1"], ["s2"]]
    assert not any(part.shared for part in done) and not any(part.reused for part in done)
    assert "knows no file locks" in capsys.readouterr().err


def test_the_record_holds_no_path(slides, tmp_path):
    run_batch(tasks(slides)[:1], Slow(), tmp_path / "out")
    text = (tmp_path / "out/s0/predict_run.json").read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["arguments"]["overlap"] is None


def test_places_under_a_launcher(monkeypatch):
    assert place("none").world_size == 1
    with pytest.raises(ConfigError, match="RANK is not set; start it by `torchrun`"):
        place("pytorch")
    for name, value in (("SLURM_PROCID", "5"), ("SLURM_LOCALID", "1"), ("SLURM_NTASKS", "8")):
        monkeypatch.setenv(name, value)
    where = place("slurm")
    assert (where.rank, where.local_rank, where.world_size) == (5, 1, 8)


def test_another_slide_of_the_same_name_and_size_is_not_taken_for_the_one_that_was_done(slides, tmp_path):
    out = tmp_path / "out"
    run_batch(tasks(slides)[:1], Slow(), out)
    data = bytearray((slides / "s0.tif").read_bytes())
    data[len(data) // 2] ^= 1
    (slides / "s0.tif").write_bytes(data)
    with pytest.raises(SlideError, match="other options"):
        run_batch(tasks(slides)[:1], Slow(), out)
