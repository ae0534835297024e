"""8-bit slices that were windowed already."""

import numpy as np
import pytest
from ct_files import write_pictures
from PIL import Image

from pathzoo.ct.pictures import find_pictures
from pathzoo.ct.volume import LabelMap, ReadOptions
from pathzoo.errors import ConfigError, DataError


def find(root, manifest=None, known_range=(0, 255), **options):
    return find_pictures(root / "images", root / "labels", manifest, known_range, ReadOptions(**options))


@pytest.mark.parametrize(("low", "high"), [(0, 255), (-160, 240), (-200, 300)])
def test_pixel_values_mean_hu_of_the_known_range(tmp_path, low, high):
    made = write_pictures(tmp_path, "case_00025", (64, 7))
    (case,), notes = find(tmp_path, known_range=(low, high))
    found = case.read(with_hu=True)
    assert notes == [] and found.numbers == (7, 64) and case.shape == (2, 5, 6) and case.spacing is None
    assert found.positions is None and (case.name, case.patient) == ("case_00025", "case_00025")
    for index, number in enumerate(found.numbers):
        picture, label = made[number]
        for value, hu in zip(picture.ravel().tolist(), found.hu[index].ravel().tolist(), strict=True):
            assert hu == round(low + value / 255 * (high - low)) or abs(low + value / 255 * (high - low) - hu) == 0.5
        assert (found.labels[index] == label).all()
    assert found.hu.dtype == np.int16


def test_a_manifest_names_case_and_slice(tmp_path):
    write_pictures(tmp_path, "x", (1, 2, 3))
    table = tmp_path / "m.csv"
    table.write_text("image,case,slice,more\nx_slice_0002.png,B,20,\nx_slice_0001.png,A,10,\n")
    cases, notes = find(tmp_path, table)
    assert [(case.name, case.pictures[0].number) for case in cases] == [("A", 10), ("B", 20)]
    assert notes == ["1 pictures that m.csv does not name were left out, first x_slice_0003.png"]
    table.write_text("image,case,slice\nx_slice_0009.png,B,20\n")
    with pytest.raises(DataError, match=r"m\.csv:2: no picture .*x_slice_0009\.png"):
        find(tmp_path, table)
    table.write_text("image,case,slice\nx_slice_0001.png,B,-1\n")
    with pytest.raises(DataError, match=r"m\.csv:2: case 'B', slice '-1'"):
        find(tmp_path, table)
    table.write_text("image,case,slice\nx_slice_0001.png,B,1\nx_slice_0002.png,B,1\n")
    with pytest.raises(DataError, match=r"x_slice_0001\.png is slice 1 of B too"):
        find(tmp_path, table)


def test_grey_stored_as_rgb_is_grey_and_colour_is_refused(tmp_path):
    made = write_pictures(tmp_path, "c", (1,))
    path = tmp_path / "images" / "c_slice_0001.png"
    Image.fromarray(np.repeat(made[1][0][..., None], 3, 2)).save(path)
    assert (find(tmp_path)[0][0].read(with_hu=True).hu[0] == made[1][0]).all()
    Image.fromarray(np.stack([made[1][0], made[1][0] // 2, made[1][0]], 2)).save(path)
    with pytest.raises(DataError, match="mode RGB, not 8-bit grey"):
        find(tmp_path)[0][0].read(with_hu=True)
    Image.fromarray(made[1][0].astype(np.uint16)).save(path)
    with pytest.raises(DataError, match=r"mode I.*, not 8-bit grey"):
        find(tmp_path)[0][0].read(with_hu=True)


def test_bad_sets_of_pictures(tmp_path):
    with pytest.raises(ConfigError, match=r"--pictures .*: no such folder"):
        find(tmp_path)
    write_pictures(tmp_path, "c", (1, 2))
    label = tmp_path / "labels" / "c_slice_0002.png"
    values = np.asarray(Image.open(label)).copy()
    Image.fromarray(np.full((5, 6), 7, np.uint8)).save(label)
    with pytest.raises(DataError, match=r"c_slice_0002\.png: label value 7 in slice 0 of c"):
        find(tmp_path)[0][0].read(with_hu=False)
    found = find(tmp_path, label_map=LabelMap.parse(["7=2"]))[0][0].read(with_hu=False)
    assert (found.labels[1] == 2).all() and found.hu is None
    Image.fromarray(values[:4]).save(label)
    with pytest.raises(DataError, match=r"has 6 x 4 px, its image .* 6 x 5"):
        find(tmp_path)[0][0].read(with_hu=False)
    label.unlink()
    with pytest.raises(DataError, match=r"no label .*c_slice_0002\.png \(1 such pictures\).*--skip-incomplete"):
        find(tmp_path)
    cases, notes = find(tmp_path, skip_incomplete=True)
    assert cases[0].shape[0] == 1 and notes == ["1 pictures without a label were left out, first c_slice_0002.png"]
    (tmp_path / "images" / "c_slice_0001.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match=r"c_slice_0001\.png: cannot be read as a picture"):
        find(tmp_path, skip_incomplete=True)
    write_pictures(tmp_path, "unnamed", (1,))
    (tmp_path / "images" / "unnamed_slice_0001.png").rename(tmp_path / "images" / "unnamed.png")
    with pytest.raises(DataError, match=r"unnamed\.png: its name does not tell case and slice"):
        find(tmp_path)
    with pytest.raises(ConfigError, match=r"--known-range 255 0"):
        find(tmp_path, known_range=(255, 0))


def test_a_case_has_slices_of_one_size(tmp_path):
    write_pictures(tmp_path, "c", (1,))
    write_pictures(tmp_path, "c", (2,), shape=(8, 8))
    with pytest.raises(DataError, match=r"has 8 x 8 px, c_slice_0001\.png of the same case c 6 x 5"):
        find(tmp_path)


@pytest.mark.real
def test_the_real_pictures_are_read_as_the_manifest_counts_them(real_data):
    import csv

    folder = real_data / "kidney_ct"
    options = ReadOptions()
    cases, _ = find_pictures(
        folder / "kits19" / "images", folder / "kits19" / "labels", folder / "manifest.csv", (0, 255), options
    )
    with (folder / "manifest.csv").open(newline="") as file:
        counted = {(row["case"], int(row["slice"])): row for row in csv.DictReader(file)}
    assert sum(case.shape[0] for case in cases) == len(counted) == 63 and len(cases) == 27
    for case in cases:
        found = case.read(with_hu=True)
        for index, number in enumerate(found.numbers):
            row = counted[case.name, number]
            assert [(found.labels[index] == value).sum() for value in (1, 2)] == [
                int(row["kidney_px"]),
                int(row["tumour_px"]),
            ]
            kidney = found.hu[index][found.labels[index] == 1]
            assert len(kidney) == 0 or 20 < np.median(kidney) < 255
