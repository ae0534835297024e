"""The packing tool: folders, tables and slides into one store, or one clear line and nothing written."""

import cv2
import numpy as np
import pytest
import tifffile
from dataset_converters.pack_tiles import main

from pathzoo.datasets.packed_tiles import PackedTiles
from pathzoo.fileio import sha256_file

SIZE = 8


def picture(seed, width=SIZE, height=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write(path, seed, width=SIZE, height=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(picture(seed, width, height), cv2.COLOR_RGB2BGR))
    return path


@pytest.fixture
def lab(tmp_path):
    for number in range(4):
        write(tmp_path / "lab" / "sub" / f"{number}.png", number)
    (tmp_path / "lab" / "t.csv").write_text(
        "path,label,patient,slide,mpp,x,y\n"
        "sub/0.png,DCIS,P1,S1,0.5,80,90\nsub/1.png,benign,P1,S1,0.5,,\nsub/2.png,DCIS,,,0.5,0,0\nsub/3.png,,P2,,0.5,,\n"
    )
    return tmp_path / "lab"


def pack(out, *words):
    return main([*map(str, words), "-o", str(out), "--size", str(SIZE)])


def test_a_table_keeps_what_it_knows(lab, tmp_path, capsys):
    out = tmp_path / "new" / "s.safetensors"
    assert pack(out, lab / "t.csv", "--keep-pixels", "--classes", "benign", "ADH", "DCIS") == 0
    assert "4 tiles of 8 px from 4 files, 2 known patients, 1 tiles without one" in capsys.readouterr().out
    store = PackedTiles(out)
    assert all((store[number] == picture(number)).all() for number in range(4))
    assert store.items == tuple(f"sub/{number}.png" for number in range(4))
    assert store.patients == ("P1", "P1", None, "P2") and store.slides == ("S1", "S1", None, None)
    assert store.classes == ("benign", "ADH", "DCIS") and store.labels.tolist() == [2, 0, 2, -1]
    assert store.x.tolist() == [80, -1, 0, -1] and store.mpp.tolist() == [0.5] * 4 and not store.phantom
    assert store.source_sha256[1].tobytes().hex() == sha256_file(lab / "sub" / "1.png")
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    again = tmp_path / "again.safetensors"
    assert main(["--csv", str(lab / "t.csv"), "-o", str(again), "--size", "8", "--keep-pixels"]) == 0
    assert (PackedTiles(again).sha256 == store.sha256).all() and PackedTiles(again).classes == ("DCIS", "benign")
    assert PackedTiles(again).digest != store.digest, "the same pixels, other labels"
    assert main(["--verify", str(out)]) == 0
    assert "all 4 tiles and what is known of them are as they were packed" in capsys.readouterr().out
    out.write_bytes(out.read_bytes().replace(b'"P2"', b'"P1"'))
    assert main(["--verify", str(out)]) == 2
    assert "its names (items, patients, slides) were changed since it was packed" in capsys.readouterr().err


def test_larger_pictures_are_cut_and_what_is_left_over_is_counted(tmp_path, capsys):
    write(tmp_path / "pool" / "wide.png", 3, 27, 17)
    write(tmp_path / "pool" / "one.png", 4)
    (tmp_path / "pool" / "phantom.json").write_text("{}")
    assert pack(tmp_path / "s.safetensors", tmp_path / "pool", "--keep-pixels") == 0
    dropped = 1 - (7 * 64) / (27 * 17 + 64)
    assert f"1 pictures were cut, which drops {dropped:.1%} of all pixels at edges" in capsys.readouterr().out
    store, whole = PackedTiles(tmp_path / "s.safetensors"), picture(3, 27, 17)
    assert len(store) == 7 and store.items[0] == "one.png" and store.items[1] == "wide.png#x=0,y=0" and store.phantom
    for number in range(1, 7):
        x, y = int(store.x[number]), int(store.y[number])
        assert store.items[number] == f"wide.png#x={x},y={y}"
        assert (store[number] == whole[y : y + 8, x : x + 8]).all()


def test_pictures_are_brought_to_one_resolution(tmp_path):
    write(tmp_path / "pool" / "a.png", 1, 16, 16)
    out = tmp_path / "s.safetensors"
    assert pack(out, tmp_path / "pool", "--mpp", 0.5, "--source-mpp", 0.25) == 0
    store = PackedTiles(out)
    mean = picture(1, 16, 16).reshape(8, 2, 8, 2, 3).mean((1, 3))
    assert len(store) == 1 and np.abs(store[0] - mean).max() <= 1 and store.mpp[0] == 0.5


def test_slides_give_random_places_over_tissue(tmp_path):
    canvas = np.full((500, 700, 3), 245, np.uint8)
    canvas[100:400, 100:300] = (150, 80, 160)
    dots = {"resolution": (1e4, 1e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(
        tmp_path / "s.tif", canvas, tile=(64, 64), photometric="rgb", compression="zlib", metadata=None, **dots
    )
    words = (tmp_path / "s.tif", "--mpp", 2.0, "--tiles-per-slide", 30)
    out = tmp_path / "a.safetensors"
    assert pack(out, *words, "--seed", 5) == 0
    store = PackedTiles(out)
    assert len(store) == 30 and set(store.slides) == {"s"} and set(store.patients) == {None}
    covered = [(np.abs(store[number].astype(int) - (150, 80, 160)).max(-1) < 3).mean() for number in range(30)]
    assert np.mean(covered) > 0.8 and min(covered) > 0, "centres lie on tissue, as finely as the mask knows it"
    for number in range(30):
        x, y = int(store.x[number]), int(store.y[number])
        expected = canvas[y : y + 16, x : x + 16].reshape(8, 2, 8, 2, 3).mean((1, 3))
        assert np.abs(store[number] - expected).max() <= 1
    pack(tmp_path / "told.safetensors", *words, "--seed", 5, "--source-mpp", 0.5)
    assert PackedTiles(tmp_path / "told.safetensors").digest == store.digest, "the slide states 1 um itself"
    pack(tmp_path / "b.safetensors", *words, "--seed", 5)
    pack(tmp_path / "c.safetensors", *words, "--seed", 6)
    assert PackedTiles(tmp_path / "b.safetensors").digest == store.digest
    assert PackedTiles(tmp_path / "c.safetensors").items != store.items
    assert pack(tmp_path / "d.safetensors", tmp_path / "s.tif", "--mpp", 2.0) == 2
    assert not (tmp_path / "d.safetensors").exists()


def test_patients_of_slides_and_folders_come_from_a_table(tmp_path, capsys):
    tissue = np.full((200, 200, 3), (150, 80, 160), np.uint8)
    for name in ("s1", "s2"):
        write(tmp_path / "lab" / "tiles" / f"{name}_0.png", 1)
        tifffile.imwrite(tmp_path / "lab" / f"{name}.tif", tissue, tile=(64, 64), photometric="rgb", metadata=None)
    table = tmp_path / "patients.csv"
    table.write_text("slide,patient\ns1,P1\ns2.tif,P2\ns1_0.png,P1\nother,P3\n")
    out, words = tmp_path / "s.safetensors", ("--keep-pixels", "--tiles-per-slide", "2", "--patients")
    assert pack(out, tmp_path / "lab", *words, table) == 0
    said = capsys.readouterr()
    assert "6 tiles of 8 px from 4 files, 2 known patients, 1 tiles without one" in said.out
    assert f"warning: patient unknown for 1 files (s2_0.png): {table} has none" in said.err
    assert f"warning: {table}: 1 name is none of the sources' files or slides (other)" in said.err
    store = PackedTiles(out)
    found = {item.split("#")[0]: patient for item, patient in zip(store.items, store.patients, strict=True)}
    assert found == {"s1.tif": "P1", "s2.tif": "P2", "tiles/s1_0.png": "P1", "tiles/s2_0.png": None}
    assert main(["--verify", str(out)]) == 0
    table.write_text("slide,patient\nother,P3\n")
    assert pack(tmp_path / "none.safetensors", tmp_path / "lab", *words, table) == 2
    assert "none of its 1 names (other)" in capsys.readouterr().err and not (tmp_path / "none.safetensors").exists()


def _grey16(lab):
    cv2.imwrite(str(lab / "sub" / "g.png"), np.full((8, 8), 3000, np.uint16))


def _colour16(lab):
    cv2.imwrite(str(lab / "sub" / "c.png"), np.full((8, 8, 3), 3000, np.uint16))


def _slide16(lab):
    deep = np.full((300, 400, 3), 3000, np.uint16)
    tifffile.imwrite(lab / "s.tif", deep, tile=(64, 64), photometric="rgb", metadata=None)


def _damage(lab):
    (lab / "sub" / "2.png").write_bytes((lab / "sub" / "2.png").read_bytes()[:-20])


@pytest.mark.parametrize(
    ("prepare", "words", "message"),
    [
        (None, ["lab"], "give either --mpp F"),
        (None, ["lab", "--mpp", "0.5", "--keep-pixels"], "give either --mpp F"),
        (None, ["lab", "--mpp", "-1"], "--mpp -1.0: give microns per pixel"),
        (None, ["lab", "--mpp", "0.5"], r"microns per pixel of sub/0.png are not known"),
        (None, ["--keep-pixels"], "give one or several sources"),
        (None, ["lab", "--keep-pixels", "--size", "9"], "sub/0.png has 8 x 8 px, smaller than a tile of 9 px"),
        (None, ["lab/t.csv", "--keep-pixels", "--classes", "benign"], "label 'DCIS' is none of --classes benign"),
        (None, ["empty", "--keep-pixels"], "empty: holds no picture"),
        (_grey16, ["lab", "--keep-pixels"], "g.png: pixels of mode I;16 have no plain RGB value"),
        (
            _colour16,
            ["lab", "--keep-pixels"],
            "c.png: pixels of mode RGB have no plain RGB value (16 bits per channel)",
        ),
        (
            _slide16,
            ["lab/s.tif", "--keep-pixels", "--tiles-per-slide", "3"],
            "s.tif: pixels of mode TIFF have no plain",
        ),
        (_damage, ["lab", "--keep-pixels"], "2.png: truncated or damaged"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(lab, monkeypatch, capsys, prepare, words, message):
    monkeypatch.chdir(lab.parent)
    (lab.parent / "empty").mkdir()
    if prepare:
        prepare(lab)
    assert main([*words, "-o", "out/s.safetensors", *([] if "--size" in words else ["--size", "8"])]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (lab.parent / "out").exists()


def test_a_failure_halfway_leaves_nothing(lab, monkeypatch, capsys):
    from pathzoo.datasets import packed_writer

    before, seen = packed_writer.PackedWriter.add, []

    def full(self, *values, **more):
        seen.append(1)
        if len(seen) == 3:
            raise OSError(28, "No space left on device")
        before(self, *values, **more)

    monkeypatch.setattr(packed_writer.PackedWriter, "add", full)
    assert pack(lab.parent / "out" / "s.safetensors", lab, "--keep-pixels") == 2
    assert "cannot be written (No space left on device)" in capsys.readouterr().err
    assert not list((lab.parent / "out").iterdir())


@pytest.mark.parametrize("place", ["lab", "lab/sub"])
def test_drawn_pictures_are_not_packed_as_tissue(lab, tmp_path, capsys, place):
    """A store says nothing of who drew its tiles, nor from whose label maps."""
    (lab / "synthetic.json").write_text("{}")
    assert pack(tmp_path / "s.safetensors", tmp_path / place, "--keep-pixels") == 2
    said = capsys.readouterr().err
    assert "lab: holds drawn regions" in said and said.count("\n") == 1
    assert not (tmp_path / "s.safetensors").exists()
