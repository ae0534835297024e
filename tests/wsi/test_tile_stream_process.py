"""The reading process: it is kept, it never outlives its parent, and reading goes on where none can be had."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from wsi.faulty_slides import TiledSlide, misbehave

from pathzoo.errors import SlideError
from pathzoo.wsi import isolation, read_process, read_worker
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.tile_stream import read_tiles
from pathzoo.wsi.tiling import tile_grid

READ = """
import os, sys
import numpy as np
from pathzoo.wsi import isolation, read_process
from pathzoo.wsi.slide import Slide
from pathzoo.wsi.tile_stream import read_tiles
from pathzoo.wsi.tiling import tile_grid
from wsi.faulty_slides import TiledSlide

def grid_of(slide):
    return tile_grid(slide.bounds, (150, 150), 1.0)

def total(slide):
    return sum(int(batch.pixels.sum()) for batch in read_tiles(slide, grid_of(slide), slide.mpp, 4, timeout=20))

def children():
    return [process.pid for process in read_process.living]

if __name__ == "__main__":
    path = sys.argv[1]
"""


@pytest.fixture
def slide(make_slide):
    return Slide(make_slide())


def grid_of(slide):
    return tile_grid(slide.bounds, (150, 150), 1.0)


def total(slide, **options) -> int:
    return sum(int(batch.pixels.sum()) for batch in read_tiles(slide, grid_of(slide), slide.mpp, 4, **options))


def script(tmp_path: Path, body: str) -> list[str]:
    path = tmp_path / "script.py"
    path.write_text(READ + textwrap.indent(textwrap.dedent(body), "    "))
    return [sys.executable, str(path), str(tmp_path / "slide.tif")]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def gone(pid: int) -> bool:
    """Whether a process ends within some seconds; a zombie has ended."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_one_process_serves_many_slides_in_whatever_folder(slide, monkeypatch):
    expected = total(slide, isolate=False)
    pids = set()
    for folder in (slide.path.parent, slide.path.parent.parent):
        monkeypatch.chdir(folder)  # a relative path means another file after this
        relative = Slide(os.path.relpath(slide.path), reader="openslide")
        assert total(relative) == expected == total(slide)
        pids.add(isolation._idle.pid)
    assert len(pids) == 1
    isolation.end_idle()
    assert gone(pids.pop()) and isolation._idle is None
    isolation.prepare()
    assert isolation._idle.alive and total(slide) == expected


def test_streams_at_once_have_a_process_each(slide):
    first, second = (read_tiles(slide, grid_of(slide), 0.5, 4) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.pixels, other.pixels) and not np.shares_memory(one.pixels, other.pixels)
    assert len({process.pid for process in read_process.living}) == 1  # one is kept


def test_closing_early_ends_the_process_and_the_memory_stays_valid(slide):
    batches = read_tiles(slide, grid_of(slide), 0.5, 4)
    batch = next(batches)
    pids = [process.pid for process in read_process.living]
    batches.close()
    assert all(gone(pid) for pid in pids) and not read_process.living
    assert int(batch.pixels.sum()) > 0


def test_it_imports_neither_torch_nor_the_callers_script(slide, tmp_path):
    body = """
    total(Slide(path))
    modules = isolation.call_isolated("test", 20, eval, "sorted(__import__('sys').modules)")
    assert not {"torch", "mmengine", "script"} & set(modules), modules
    assert "-c" == isolation.call_isolated("test", 20, eval, "__import__('sys').argv[0]")
    print("fine")
    """
    done = subprocess.run(script(tmp_path, body), capture_output=True, text=True, env=environment())
    assert done.stdout == "fine\n", done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_none_is_left_behind_when_the_caller_is_interrupted(slide, tmp_path, number):
    body = """
    import signal
    from wsi.faulty_slides import TiledSlide
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it otherwise
    slide = TiledSlide(path, faults={(0, 5, 5): "hang"})
    for batch in read_tiles(slide, grid_of(slide), slide.mpp, 4, timeout=60):
        print(*children(), flush=True)
    """
    # A group of its own, signalled as a whole, as a terminal does.
    child = subprocess.Popen(
        script(tmp_path, body),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    )
    pids = [int(text) for text in child.stdout.readline().split()]
    assert pids
    time.sleep(0.3)  # it waits for the tile that hangs
    os.killpg(child.pid, number) if number != signal.SIGKILL else child.kill()
    assert child.wait(10) != 0
    child.stdout.close()
    assert all(gone(pid) for pid in pids)


def test_none_is_left_behind_where_it_hangs_with_pythons_lock(slide, tmp_path):
    """No thread of it can notice that the caller is gone: the system ends it."""
    body = """
    from wsi.faulty_slides import misbehave
    isolation.prepare()
    print(*children(), flush=True)
    isolation.call_isolated("test", 60, misbehave, "hang with Python's lock", None)
    """
    child = subprocess.Popen(script(tmp_path, body), stdout=subprocess.PIPE, env=environment())
    (pid,) = (int(text) for text in child.stdout.readline().split())
    time.sleep(1.5)  # it has started, and hangs
    child.kill()
    child.wait(10)
    child.stdout.close()
    assert gone(pid)


def test_it_runs_nothing_that_lies_in_the_working_folder_and_takes_odd_search_paths(slide, tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    for name in ("json", "socket", "signal", "numpy", "cv2"):
        (folder / f"{name}.py").write_text("open('executed', 'w').close()")
    body = """
    sys.path.append(tmp := __import__("pathlib").Path(path).parent)  # Python passes over what is no text
    os.chdir(tmp / "slides")
    assert isolation.call_isolated("test", 20, os.getpid) in children()
    print("fine")
    """
    done = subprocess.run(script(tmp_path, body), capture_output=True, text=True, env=environment())
    assert done.stdout == "fine\n", done.stderr
    assert not (folder / "executed").exists()


def test_it_ends_with_its_parent_that_ends_as_usual_or_by_an_error(slide, tmp_path):
    for body in ("total(Slide(path)); print(*children())", "total(Slide(path)); print(*children(), flush=True); 1 / 0"):
        done = subprocess.run(script(tmp_path, body), capture_output=True, text=True, env=environment())
        assert ("ZeroDivisionError" in done.stderr) == ("1 / 0" in body)
        pids = [int(text) for text in done.stdout.split()]
        assert pids and all(gone(pid) for pid in pids)


def test_forked_and_spawned_parents_read_on(slide, tmp_path):
    body = """
    import multiprocessing
    expected = total(Slide(path))
    before = children()
    running = read_tiles(Slide(path), grid_of(Slide(path)), 0.5, 4)
    first = int(next(running).pixels.sum())
    for method, workers in (("fork", 2), ("spawn", 1)):
        with multiprocessing.get_context(method).Pool(workers) as pool:
            assert pool.map(total, [Slide(path)] * workers, 1) == [expected] * workers
    assert first + sum(int(batch.pixels.sum()) for batch in running) == expected
    assert children() == before and total(Slide(path)) == expected  # the parent's own was left alone
    print("fine")
    """
    done = subprocess.run(script(tmp_path, body), capture_output=True, text=True, env=environment())
    assert done.stdout == "fine\n", done.stderr


def test_closed_standard_streams_do_no_harm(slide, tmp_path):
    body = """
    from pathlib import Path
    Path(path + ".out").write_text(str(total(Slide(path))))
    """
    command = ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *script(tmp_path, body)]
    assert subprocess.run(command, env=environment()).returncode == 0
    assert Path(f"{slide.path}.out").read_text() == str(total(slide, isolate=False))


def broken(*arguments, **options):
    raise OSError("no more processes")


@pytest.mark.parametrize("what", ["Popen", "memfd", "executable", "pickle"])
def test_without_a_process_tiles_are_read_here_and_that_is_said(slide, monkeypatch, what):
    isolation.end_idle()
    options, expected = {}, total(slide, isolate=False)
    if what == "Popen":
        monkeypatch.setattr(subprocess, "Popen", broken)
    elif what == "memfd":
        monkeypatch.setattr(read_worker, "_anonymous_file", broken)
    elif what == "executable":
        monkeypatch.setattr(sys, "executable", "/bin/false")
    else:
        slide.__reduce__ = None
        slide.__class__ = type("Local", (Slide,), {"__module__": "nowhere"})
    with pytest.warns(RuntimeWarning, match="slides are read in this process, .*: ") as seen:
        assert total(slide, **options) == expected
    assert len(seen) == 1 and "\n" not in str(seen[0].message)


def test_memory_without_memfd(slide, monkeypatch):
    isolation.end_idle()
    monkeypatch.delattr(os, "memfd_create")
    assert total(slide) == total(slide, isolate=False)


def test_errors_come_as_they_are(slide, tmp_path):
    with pytest.raises(SlideError, match=r"slide\.tif: has 0\.5 microns per pixel, coarser than the 0\.1") as caught:
        next(read_tiles(slide, grid_of(slide), 0.1, 4))
    assert "\n" not in str(caught.value)
    with pytest.raises(SlideError, match=r"none\.tif: no such file"):
        isolation.probe(tmp_path / "none.tif")
    isolation.probe(slide.path)
    with pytest.raises(SlideError, match=r"slide: decoder gave no answer within 0\.3 s"):
        isolation.call_isolated("slide", 0.3, time.sleep, 100)
    with pytest.raises(SlideError, match=r"slide: decoder crashed \(SIGABRT\)"):
        isolation.call_isolated("slide", 20, os.abort)
    with pytest.raises(
        SlideError, match=r"slide: .* \(SIGKILL\), perhaps for want of memory; give the run more memory"
    ):
        isolation.call_isolated("slide", 20, misbehave, "out of memory", None)
    assert total(slide) == total(slide, isolate=False)


def test_no_descriptor_is_left_open(slide):
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    isolation.end_idle()
    before = descriptors()
    for _ in range(3):
        next(read_tiles(slide, grid_of(slide), 0.5, 4))
        assert total(slide)
        isolation.end_idle()
    assert descriptors() <= before


def test_time_in_which_nobody_looked_is_no_hang(slide):
    tiled = TiledSlide(slide.path)
    batches = read_tiles(tiled, grid_of(tiled), 0.5, 1, timeout=0.4)
    next(batches)
    child = next(iter(read_process.living)).pid
    os.kill(child, signal.SIGSTOP)  # as by a scheduler, the caller being stopped as well, or busy
    time.sleep(0.8)
    os.kill(child, signal.SIGCONT)
    assert not any(batch.damage for batch in batches)
    assert [process.pid for process in read_process.living] == [child]
