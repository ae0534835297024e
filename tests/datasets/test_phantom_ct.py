"""Phantom CT: KiTS19's layout and axes, the seed, what is drawn where, and that no window of HU solves it."""

import json
import shutil

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from pathzoo.datasets.phantom import draw_volume, write_ct
from pathzoo.datasets.phantom.ct import draw_case
from pathzoo.errors import DataError, OutputError
from pathzoo.fileio import sha256_file

SIZE, SLICES = (96, 80), 12


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    told, folder = [], tmp_path_factory.mktemp("ct") / "cohort"
    assert write_ct(folder, 3, 5, SIZE, SLICES, progress=lambda *done: told.append(done)) == folder
    assert told == [(number, 5) for number in range(1, 6)]
    return folder


@pytest.fixture(scope="module")
def cases():
    """Twelve patients, the first five of them with a tumour, as drawn in memory."""
    return [draw_case([7, number], (96, 96), 16, tumour=number < 5) for number in range(12)]


def volumes(case):
    return (nibabel.load(case / f"{name}.nii.gz") for name in ("imaging", "segmentation"))


def test_the_layout(cohort):
    assert sorted(path.name for path in cohort.iterdir()) == [*(f"case_{k:05d}" for k in range(5)), "phantom.json"]
    marker = json.loads((cohort / "phantom.json").read_text())
    assert (marker["phantom"], marker["seed"], marker["patients"]) == ("ct", 3, 5)
    spacings, tumours = set(), 0
    for case in sorted(cohort.glob("case_*")):
        assert sorted(path.name for path in case.iterdir()) == ["imaging.nii.gz", "segmentation.nii.gz"]
        image, label = volumes(case)
        assert image.get_data_dtype() == np.int16 and label.get_data_dtype() == np.uint8
        assert image.shape == label.shape == (SLICES, SIZE[1], SIZE[0])  # slices first, as in KiTS19's files
        np.testing.assert_array_equal(image.affine, label.affine)
        assert nibabel.aff2axcodes(image.affine) == ("I", "P", "L")
        thickness, row, column = image.header.get_zooms()
        assert row == column and 340 <= row * min(SIZE) <= 481 and 6 < thickness < 14
        assert image.header.get_xyzt_units()[0] == "mm"
        spacings.add((float(thickness), float(row)))
        tumours += bool((np.asarray(label.dataobj) == 2).any())
    assert len(spacings) == 5
    assert tumours == 2  # 0.4 of five


def test_the_affine_says_where_things_lie(cohort):
    """In canonical space (R, A, S): the liver is on the right, the spine behind the middle, slices rise."""
    for case in sorted(cohort.glob("case_*"))[:3]:
        hu = np.asarray(nibabel.as_closest_canonical(nibabel.load(case / "imaging.nii.gz")).dataobj)
        middle, front = hu.shape[0] // 2, hu.shape[1] // 2
        upper = ndimage.gaussian_filter(hu[:, :, -SLICES // 3 :].astype(float), (1, 1, 0))
        organ = (upper > 30) & (upper < 150)
        # Axes run to the right, to the front, to the head.
        assert organ[middle:, front:].mean() > organ[:middle, front:].mean()
        bone = np.argwhere(hu[middle - 8 : middle + 8] > 300)[:, 1]
        assert bone.mean() < front
        file = np.asarray(nibabel.load(case / "imaging.nii.gz").dataobj)
        np.testing.assert_array_equal(file[::-1], hu[::-1, ::-1].transpose(2, 1, 0))


def test_what_is_written_is_what_is_drawn(cohort):
    drawn = draw_case([3, 42, 0], SIZE, SLICES, tumour=_has_tumour(cohort / "case_00000"))
    image, label = volumes(cohort / "case_00000")
    np.testing.assert_array_equal(np.asarray(image.dataobj)[::-1], drawn.hu)
    np.testing.assert_array_equal(np.asarray(label.dataobj)[::-1], drawn.labels)
    assert image.header.get_zooms() == pytest.approx(drawn.spacing)


def test_the_seed_decides_and_more_patients_leave_the_first_alone(cohort, tmp_path):
    write_ct(tmp_path / "again", 3, 2, SIZE, SLICES)
    write_ct(tmp_path / "other", 4, 2, SIZE, SLICES)
    for name in ("case_00000/imaging.nii.gz", "case_00001/segmentation.nii.gz"):
        digest = sha256_file(cohort / name)
        assert sha256_file(tmp_path / "again" / name) == digest != sha256_file(tmp_path / "other" / name)
    assert sha256_file(cohort / "case_00000/imaging.nii.gz") != sha256_file(cohort / "case_00001/imaging.nii.gz")
    hu, labels = draw_volume(5, (64, 64), 4)
    again = draw_volume(5, (64, 64), 4)
    np.testing.assert_array_equal(hu, again[0])
    np.testing.assert_array_equal(labels, again[1])
    assert not np.array_equal(hu, draw_volume(6, (64, 64), 4)[0])


def test_drawing_goes_on_where_it_was_left(cohort, tmp_path):
    folder = tmp_path / "cohort"
    write_ct(folder, 3, 2, SIZE, SLICES)
    kept = (folder / "case_00000" / "imaging.nii.gz").stat().st_mtime_ns
    shutil.rmtree(folder / "case_00001")
    write_ct(folder, 3, 3, SIZE, SLICES)
    assert (folder / "case_00000" / "imaging.nii.gz").stat().st_mtime_ns == kept
    for case in ("case_00001", "case_00002"):
        assert sha256_file(folder / case / "imaging.nii.gz") == sha256_file(cohort / case / "imaging.nii.gz")
    assert json.loads((folder / "phantom.json").read_text())["patients"] == 3


@pytest.mark.parametrize(("rate", "with_tumour"), [(0.0, {0}), (1.0, {6}), (0.25, {1, 2})])
def test_the_rate_of_tumours(tmp_path, rate, with_tumour):
    write_ct(tmp_path / "cohort", 0, 6, (48, 48), 6, rate)
    assert sum(map(_has_tumour, sorted((tmp_path / "cohort").glob("case_*")))) in with_tumour


def test_labels_and_hu_fit(cases):
    for drawn in cases:
        hu, labels = drawn.hu, drawn.labels
        assert hu.dtype == np.int16 and labels.dtype == np.uint8 and set(np.unique(labels)) <= {0, 1, 2}
        assert hu[:, 0, 0].mean() < -900  # air in the corner
        assert (labels == 1).any(axis=(1, 2)).mean() >= 0.7  # kidneys in most slices
        assert 80 < np.median(hu[labels == 1]) < 230
        pixel = np.prod(drawn.spacing)
        millilitres = [(labels == value).sum() * pixel / 1000 for value in (1, 2)]
        assert 100 < millilitres[0] < 600
        if (labels == 2).any():
            assert 0.2 < millilitres[1] < 160
            assert 20 < np.median(hu[labels == 2]) < 130
            kidney = ndimage.binary_dilation(labels == 1, iterations=2)
            assert (kidney & (labels == 2)).any()  # it grows from a kidney
            assert ndimage.label(labels == 2)[1] <= 2
    assert [bool((drawn.labels == 2).any()) for drawn in cases] == [True] * 5 + [False] * 7


def test_there_are_two_kidneys_one_on_each_side(cases):
    for drawn in cases:
        whole = ndimage.binary_closing(drawn.labels > 0, iterations=1)
        parts, count = ndimage.label(whole)
        sizes = ndimage.sum_labels(whole, parts, range(1, count + 1))
        first, second = np.argsort(sizes)[::-1][:2] + 1
        columns = [np.argwhere(parts == part)[:, 2].mean() for part in (first, second)]
        assert (columns[0] - 47.5) * (columns[1] - 47.5) < 0


def test_slices_hang_together(cases):
    """A neighbouring slice is more alike than one four away: bodies are drawn in three dimensions."""
    for drawn in cases[:4]:
        shown = np.clip(drawn.hu, -200, 200).astype(float)
        near, far = (np.abs(shown[step:] - shown[:-step]).mean() for step in (1, 4))
        assert near < 0.8 * far


def test_patients_differ_in_phase_build_and_noise(cases):
    kidney = [np.median(drawn.hu[drawn.labels == 1]) for drawn in cases]
    fields = [drawn.spacing[1] for drawn in cases]
    noise = [drawn.hu[:, :3, :3].std() for drawn in cases]  # in air
    assert np.ptp(kidney) > 30 and np.ptp(fields) > 0.3 and max(noise) > 1.5 * min(noise)


def test_no_window_of_hu_finds_the_tumour(cases):
    """The best of all HU windows, chosen on the very voxels it is judged on, is far from a segmentation."""
    voxels = [np.concatenate([drawn.hu[drawn.labels == value] for drawn in cases]) for value in range(3)]
    edges = np.arange(-100, 405, 5)
    up_to = np.stack([np.searchsorted(np.sort(values), edges) for values in voxels])  # (3, E)
    best = {}
    for value in (1, 2):
        inside = up_to[:, None, :] - up_to[:, :, None]  # (3, low, high)
        with np.errstate(invalid="ignore"):
            dice = 2 * inside[value] / (inside.sum(axis=0) + len(voxels[value]))
        best[value] = np.where(edges[None] > edges[:, None], dice, 0).max()
    assert best[2] < 0.15
    assert best[1] < 0.7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patients": 0}, "0 patients"),
        ({"seed": -1}, "a seed from 0 on"),
        ({"tumour_rate": 1.5}, r"tumour rate 1\.5.*a rate in 0\.\.1"),
        ({"size": (96, 40)}, "96x40 px: give at least 1 slice and 48 px each way"),
        ({"slices": 0}, "0 slices"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path, arguments, message):
    with pytest.raises(DataError, match=message):
        write_ct(tmp_path / "cohort", **arguments)
    assert not (tmp_path / "cohort").exists()


def test_a_folder_of_other_cases_is_refused(cohort, tmp_path):
    with pytest.raises(DataError, match="a phantom of other settings: give an empty folder"):
        write_ct(cohort, 4, 5, SIZE, SLICES)
    with pytest.raises(DataError, match="case_00004, more than 3 patients"):
        write_ct(cohort, 3, 3, SIZE, SLICES)
    (tmp_path / "case_00000").mkdir()
    with pytest.raises(DataError, match=r"holds case_00000 and no readable phantom\.json"):
        write_ct(tmp_path, 3, 1, SIZE, SLICES)


def test_a_full_disk_leaves_no_half_case(tmp_path, monkeypatch):
    save = nibabel.save

    def full(image, path):
        if path.name.startswith("segmentation"):
            raise OSError(28, "No space left on device")
        save(image, path)

    monkeypatch.setattr(nibabel, "save", full)
    with pytest.raises(OutputError, match=r"case_00000: cannot be written \(No space left on device\); make room"):
        write_ct(tmp_path / "cohort", 3, 1, (48, 48), 2)
    assert [path.name for path in (tmp_path / "cohort").iterdir()] == ["phantom.json"]


def _has_tumour(case):
    return bool((np.asarray(nibabel.load(case / "segmentation.nii.gz").dataobj) == 2).any())
