"""A lab's folder of tiles, and a cache of its own for every test."""

import pytest
from tile_stores import write
from tile_tables import write_image


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PATHZOO_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def lab(tmp_path):
    """A folder with tiles of 12 patients, 4 each, and their table."""
    lines = ["path,label,patient,slide,mpp,x,y"]
    for n in range(48):
        write_image(tmp_path / "tiles" / f"{n:02d}.png", n)
        patient = n // 4
        lines.append(f"tiles/{n:02d}.png,{'tumour' if patient % 2 else 'normal'},P{patient},S{patient},0.5,{n * 100},7")
    (tmp_path / "tiles.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def folder(tmp_path):
    """12 tiles in two folders, one of them nested."""
    for number in range(12):
        write(tmp_path / "pool" / ("deep/er" if number % 2 else "flat") / f"{number:02d}.png", number)
    (tmp_path / "pool" / "notes.txt").write_text("no picture")
    (tmp_path / "pool" / ".hidden.png").write_bytes(b"no picture")
    return tmp_path / "pool"
