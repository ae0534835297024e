"""DICOM series that pydicom wrote: order, orientation, HU, and what is refused."""

import numpy as np
import pydicom
import pytest
from ct_files import AFFINE, ORIGIN, SHAPE, SPACING, dicom_slice, volume, write_nifti, write_series
from pydicom.uid import generate_uid

from pathzoo.ct.dicom import find_dicom, read_hu
from pathzoo.ct.volume import ReadOptions
from pathzoo.errors import ConfigError, DataError


def find(root, **options):
    return find_dicom(root, ReadOptions(**options))


def one(root, **options):
    (case,), _ = find(root, **options)
    return case.read(with_hu=True)


def change(folder, number, **tags):
    """Sets tags of the `number`-th file by place; None removes one."""
    files = sorted(
        (path for path in folder.glob("IM*")), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2]
    )
    data = pydicom.dcmread(files[number])
    for name, value in tags.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    data.save_as(files[number])
    return files[number]


def test_a_series_is_sorted_scaled_and_put_on_the_body_axes(tmp_path):
    hu, labels = write_series(tmp_path / "s")
    (tmp_path / "s" / "notes.txt").write_text("not DICOM")
    (case,), notes = find(tmp_path)
    found = case.read(with_hu=True)
    assert (found.hu == hu).all() and (found.labels == labels).all() and notes == []
    assert case.patient == "P 1" and case.shape == SHAPE and np.allclose(case.spacing, SPACING)
    assert np.allclose(found.positions, [ORIGIN[2] + 3 * k for k in range(SHAPE[0])])
    assert "P 1" not in case.name and case.name.startswith("series_")
    assert case.read(with_hu=False).hu is None


def test_a_prone_series_from_the_head_down_gives_the_same_slices(tmp_path):
    """Rows to the front, columns to the patient's right: the array is turned, its labels' file is not."""
    hu, labels = volume()
    stored = (hu.astype(int) + 1000) // 2
    series = generate_uid()
    corner = AFFINE @ [0, SHAPE[1] - 1, SHAPE[2] - 1, 1]
    for k in range(SHAPE[0]):
        place = (-corner[0], -corner[1], ORIGIN[2] + 3 * k)
        turned = stored[k, ::-1, ::-1]
        dicom_slice(tmp_path / f"{9 - k}.dcm", turned, place, series, k, cosines=(-1, 0, 0, 0, -1, 0))
    write_nifti(tmp_path / "segmentation.nii.gz", labels, AFFINE)
    found = one(tmp_path)
    assert (found.hu == 2 * stored - 1000).all() and (found.labels == labels).all()


def test_series_of_several_patients_in_one_folder_are_told_apart(tmp_path):
    made = {}
    for seed, patient in enumerate(("P 1", "P 2", "P 1")):
        series = generate_uid(entropy_srcs=[str(seed)])
        made[seed] = write_series(tmp_path / f"w{seed}", seed, patient, series)
        (tmp_path / "all").mkdir(exist_ok=True)
        for path in (tmp_path / f"w{seed}").iterdir():
            name = f"segmentation_{series}.nii.gz" if path.suffix == ".gz" else f"{seed}{path.name}"
            path.rename(tmp_path / "all" / name)
    cases, _ = find(tmp_path / "all")
    assert sorted(case.patient for case in cases) == ["P 1", "P 1", "P 2"] and len({c.name for c in cases}) == 3
    for case in cases:
        found = case.read(with_hu=True)
        assert any((found.hu == hu).all() and (found.labels == labels).all() for hu, labels in made.values())


def test_padding_pixels_are_air(tmp_path):
    write_series(tmp_path, PixelPaddingValue=5)
    path = change(tmp_path, 1)
    data = pydicom.dcmread(path)
    pixels = data.pixel_array.copy()
    pixels[0, :2] = 5
    data.PixelData = pixels.tobytes()
    data.save_as(path)
    assert read_hu(path)[0, :2].tolist() == [-1024, -1024]


@pytest.mark.parametrize(("value", "limit"), [(4095, 4000), (4000, 4095)])
def test_a_range_of_padding_is_air(tmp_path, value, limit):
    write_series(tmp_path, PixelPaddingValue=value, PixelPaddingRangeLimit=limit)
    path = change(tmp_path, 1)
    data = pydicom.dcmread(path)
    pixels = data.pixel_array.copy()
    pixels[0, :5] = (3999, 4000, 4050, 4095, 4096)
    data.PixelData = pixels.tobytes()
    data.save_as(path)
    assert (read_hu(path)[0, :5] == -1024).tolist() == [False, True, True, True, False]


def test_an_empty_patient_id_is_not_known(tmp_path):
    write_series(tmp_path, patient="")
    assert find(tmp_path)[0][0].patient is None


def test_localizers_other_modalities_and_reports_are_left_out_and_said(tmp_path):
    write_series(tmp_path / "ct")
    write_series(tmp_path / "scout", 1, shape=(2, 5, 6), labels=False)
    write_series(tmp_path / "scout2", 2, labels=False, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_series(tmp_path / "mr", 3, labels=False, Modality="MR")
    change(tmp_path / "mr", 0, Rows=None, Columns=None, PixelData=None)
    cases, notes = find(tmp_path)
    assert len(cases) == 1
    assert notes == [
        "2 localizers (1 or 2 slices) left out",
        "1 series of the modality MR, not CT, left out",
    ] or notes == ["1 series of the modality MR, not CT, left out", "2 localizers (1 or 2 slices) left out"]
    with pytest.raises(DataError, match=r"no CT series below it \(1 series of the modality MR, not CT, left out\)"):
        find(tmp_path / "mr")


def test_a_gap_is_refused_with_its_place(tmp_path):
    write_series(tmp_path, places=[10, 13, 16, 22, 25, 28], shape=(6, 5, 6))
    with pytest.raises(DataError, match=r"z = 16 and 22 mm .* 6 mm apart, elsewhere 3 mm, 1 slice\(s\) missing"):
        find(tmp_path)


def test_a_jump_of_the_spacing_is_refused_and_rounding_is_not(tmp_path):
    write_series(tmp_path / "a", places=[-140, -137, -133.995, -131])
    find(tmp_path / "a")
    write_series(tmp_path / "b", places=[0, 3, 6, 9.05])
    with pytest.raises(DataError, match=r"between z = 6 and 9\.05 mm the slices of .* are 3\.05 mm apart, elsewhere 3"):
        find(tmp_path / "b")


def test_two_slices_in_one_place_and_copies_are_refused(tmp_path):
    write_series(tmp_path / "a", places=[0, 3, 3, 6])
    with pytest.raises(DataError, match=r"lies where IM\d+ does, at z = 3 mm: keep one"):
        find(tmp_path / "a")
    write_series(tmp_path / "b")
    path = change(tmp_path / "b", 0)
    (tmp_path / "b" / "copy").write_bytes(path.read_bytes())
    with pytest.raises(DataError, match=r"is the same image as .*: keep one of the copies"):
        find(tmp_path / "b")


def test_a_series_of_two_patients_is_refused(tmp_path):
    write_series(tmp_path)
    change(tmp_path, 2, PatientID="P 2")
    with pytest.raises(DataError, match=r"is of the patient 'P [12]', and .* of the same series of 'P [12]': correct"):
        find(tmp_path)


@pytest.mark.parametrize(("cosines", "kind"), [((1, 0, 0, 0, 0, -1), "coronal"), ((0, 1, 0, 0, 0, -1), "sagittal")])
def test_other_planes_are_refused(tmp_path, cosines, kind):
    series = generate_uid()
    axis = {"coronal": 1, "sagittal": 0}[kind]
    for k in range(4):
        place = [0.0, 0.0, 0.0]
        place[axis] = 3.0 * k
        dicom_slice(tmp_path / f"{k}.dcm", np.zeros((5, 6)), place, series, k, cosines=cosines)
    write_nifti(tmp_path / "segmentation.nii.gz", volume()[1], AFFINE)
    with pytest.raises(DataError, match=f"is {kind}, not axial"):
        find(tmp_path)


def test_a_tilted_gantry_is_refused(tmp_path):
    series = generate_uid()
    for k in range(4):
        dicom_slice(tmp_path / f"{k}.dcm", np.zeros((5, 6)), (0, 0.5 * k, 3 * k), series, k)
    write_nifti(tmp_path / "segmentation.nii.gz", volume()[1], AFFINE)
    with pytest.raises(DataError, match=r"shift sideways by 1\.5 mm in all \(tilted gantry\)"):
        find(tmp_path)


@pytest.mark.parametrize(
    ("tags", "text"),
    [
        ({"ImagePositionPatient": None}, "ImagePositionPatient is missing"),
        ({"ImageOrientationPatient": None}, "ImageOrientationPatient is missing"),
        ({"PixelSpacing": None}, r"PixelSpacing is missing: give --spacing"),
        ({"PixelSpacing": [0.9, 0.7]}, "PixelSpacing .* of the same series"),
        ({"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}, "ImageOrientationPatient .* of the same series"),
        ({"Rows": 4}, "Rows and Columns .* of the same series"),
        ({"NumberOfFrames": 3}, "holds 3 frames"),
    ],
)
def test_slices_that_do_not_fit_together_are_refused(tmp_path, tags, text):
    write_series(tmp_path)
    change(tmp_path, 2, **tags)
    with pytest.raises(DataError, match=text):
        find(tmp_path)


def test_spacing_that_no_slice_states_may_be_given(tmp_path):
    write_series(tmp_path, PixelSpacing=None)
    assert np.allclose(find(tmp_path, spacing=SPACING)[0][0].spacing, SPACING)


@pytest.mark.parametrize(
    ("tags", "text"),
    [
        ({"RescaleSlope": None}, r"RescaleSlope is missing, so its values are no HU"),
        ({"RescaleIntercept": None}, r"RescaleIntercept is missing"),
        ({"RescaleType": "US"}, r"RescaleType is 'US', not HU"),
        ({"PixelData": b"\0\0"}, r"its pixels cannot be read .*truncated or damaged"),
        ({"RescaleSlope": 9000}, r"no Hounsfield unit"),
    ],
)
def test_values_that_are_no_hu_are_refused(tmp_path, tags, text):
    write_series(tmp_path)
    change(tmp_path, 2, **tags)
    (case,), _ = find(tmp_path)
    with pytest.raises(DataError, match=text):
        case.read(with_hu=True)


def test_a_compression_that_nothing_decodes_is_named_with_what_helps(tmp_path):
    write_series(tmp_path)
    path = change(tmp_path, 1)
    data = pydicom.dcmread(path)
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8 not decoded here \xff\xd9"])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
    data.save_as(path)
    with pytest.raises(DataError, match=r"pixels cannot be read .*store the series uncompressed, or install a decoder"):
        read_hu(path)


def test_labels_are_needed_and_on_the_same_grid(tmp_path):
    write_series(tmp_path / "a", labels=False)
    with pytest.raises(DataError, match=r"no segmentation\.nii\.gz beside the series .*--skip-incomplete"):
        find(tmp_path / "a")
    assert find(tmp_path / "a", skip_incomplete=True)[0] == []
    write_series(tmp_path / "b")
    write_nifti(tmp_path / "b" / "segmentation.nii.gz", volume()[1], np.diag([1, 1, 1.1, 1]) @ AFFINE)
    with pytest.raises(DataError, match="mm apart; resample the labels"):
        find(tmp_path / "b")


def test_damaged_files_and_folders(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        find(tmp_path / "no")
    (tmp_path / "x.dcm").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"x\.dcm: is not DICOM"):
        find(tmp_path)


def test_without_pydicom_the_extra_is_named(tmp_path, monkeypatch):
    write_series(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(ConfigError, match=r"pydicom is not installed; .*pip install pathzoo\[ct\]"):
        find(tmp_path)
