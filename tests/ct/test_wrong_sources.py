"""Sources whose every file can be read, and that are not what they look like."""

import nibabel as nib
import numpy as np
import pytest
from ct_files import AFFINE, SHAPE, SPACING, volume, write_case, write_nifti, write_pictures, write_series
from PIL import Image
from slice_command import convert, refused

from pathzoo.ct.cases import find_kits19
from pathzoo.ct.dicom import find_dicom
from pathzoo.ct.pictures import find_pictures
from pathzoo.ct.store import SliceStore
from pathzoo.ct.volume import ReadOptions
from pathzoo.errors import DataError

HU, LABELS = volume()


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (HU.astype(int) + 1024, "30..2517"),  # as the scanner stores them, its intercept lost
        (HU / 1500.0, "-1..1"),  # normalised
        (np.clip(HU, -45, 105), "-45..105"),  # through the liver's window
        (np.full(SHAPE, -1024), "-1024..-1024"),
    ],
)
def test_values_that_could_be_hu_and_are_none_are_refused(tmp_path, values, shown):
    write_case(tmp_path, "c", hu=values, dtype=np.float32)
    (case,), _ = find_kits19(tmp_path, ReadOptions())
    low, high = shown.split("..")
    with pytest.raises(
        DataError, match=rf"imaging\.nii\.gz: its values lie in {low}\.\.{high}, and CT in HU shows fat"
    ):
        case.read(with_hu=True)


def test_a_series_without_its_intercept_is_refused(tmp_path):
    write_series(tmp_path, RescaleSlope=1, RescaleIntercept=0, PixelRepresentation=0)
    (case,), _ = find_dicom(tmp_path, ReadOptions())
    with pytest.raises(DataError, match=r"its values lie in .* slope and intercept"):
        case.read(with_hu=True)


@pytest.mark.parametrize("slope", [0, -1])
def test_a_slope_that_is_none_is_refused(tmp_path, slope):
    write_series(tmp_path, RescaleSlope=slope)
    (case,), _ = find_dicom(tmp_path, ReadOptions())
    with pytest.raises(DataError, match=rf"RescaleSlope is {slope}\.0: it has to be above 0"):
        case.read(with_hu=True)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1e-3), ("micron", 1e3), ("mm", 1), ("unknown", 1)])
def test_spacing_is_brought_to_millimetres(tmp_path, unit, factor):
    for name, values in (("imaging", HU), ("segmentation", LABELS)):
        image = nib.Nifti1Image(values, np.diag([factor, factor, factor, 1]) @ AFFINE)
        image.header.set_xyzt_units(unit)
        (tmp_path / "c").mkdir(exist_ok=True)
        nib.save(image, tmp_path / "c" / f"{name}.nii.gz")
    (case,), _ = find_kits19(tmp_path, ReadOptions())
    assert np.allclose(case.spacing, SPACING)
    assert np.allclose(case.read(with_hu=True).positions, [-140, -137, -134, -131], atol=1e-3)


def test_what_a_mac_adds_to_each_file_is_passed_over(kits, tmp_path):
    root, _ = kits
    for path in root.rglob("*.nii.gz"):
        (path.parent / f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert len(find_kits19(root, ReadOptions())[0]) == 10
    write_series(tmp_path / "d")
    (tmp_path / "d" / "._IM0001.dcm").write_bytes(b"\0\5\x16\7")
    assert len(find_dicom(tmp_path / "d", ReadOptions())[0]) == 1
    write_pictures(tmp_path / "p", "c", (1, 2))
    (tmp_path / "p" / "images" / "._c_slice_0001.png").write_bytes(b"\0\5\x16\7")
    (case,), _ = find_pictures(tmp_path / "p" / "images", tmp_path / "p" / "labels", None, (0, 255), ReadOptions())
    assert case.name == "c" and case.shape[0] == 2


def test_a_palette_is_what_a_picture_shows_and_what_labels_hide(tmp_path):
    (grey, label), *_ = write_pictures(tmp_path, "c", (1,)).values()
    path = tmp_path / "images" / "c_slice_0001.png"
    turned = Image.fromarray(255 - grey).convert("P")
    turned.putpalette([value for index in range(256) for value in (255 - index,) * 3])
    turned.save(path)
    coloured = Image.fromarray(label).convert("P")
    coloured.putpalette([9, 9, 9, 0, 200, 0, 200, 0, 0])
    coloured.save(tmp_path / "labels" / path.name)
    (case,), _ = find_pictures(path.parent, tmp_path / "labels", None, (0, 255), ReadOptions())
    found = case.read(with_hu=True)
    assert (found.hu[0] == grey).all() and (found.labels[0] == label).all()
    coloured.save(path)
    with pytest.raises(DataError, match=r"c_slice_0001\.png: is a picture of the mode P in colour, not 8-bit grey"):
        case.read(with_hu=True)


def test_one_file_of_labels_is_not_taken_for_two_series(tmp_path):
    """Two phases on one grid: the kidneys moved with the breath, and the labels are of one of them."""
    _, labels = write_series(tmp_path, seed=0, series="1.2.3")
    write_series(tmp_path / "later", seed=1, series="1.2.4", labels=False)
    for path in (tmp_path / "later").iterdir():
        path.rename(tmp_path / f"later_{path.name}")
    with pytest.raises(DataError, match=r"segmentation\.nii\.gz: lies beside the series 1\.2\.3 and 1\.2\.4: name it"):
        find_dicom(tmp_path, ReadOptions())
    (tmp_path / "segmentation.nii.gz").rename(tmp_path / "segmentation_1.2.3.nii.gz")
    (case,), _ = find_dicom(tmp_path, ReadOptions(skip_incomplete=True))
    assert case.files[0].series == "1.2.3" and (case.read(with_hu=False).labels == labels).all()


def test_a_patient_under_two_names_is_known_by_the_label_map(tmp_path, capsys):
    """The same segmentation, of the same scan reconstructed anew: no pixel is the same."""
    rng, shape = np.random.default_rng(0), (3, 24, 24)
    for number in range(6):
        labels = np.zeros(shape, np.uint8)
        labels[1:, 4:18, 4:18] = rng.integers(0, 3, (14, 14))
        write_case(tmp_path / "kits", f"case_{number:05d}", hu=volume(number, shape)[0], labels=labels)
    write_case(tmp_path / "kits", "case_00009", hu=volume(9, shape)[0], labels=labels)
    text = refused(capsys, "kits19", tmp_path / "kits", tmp_path / "s")
    assert "case_00009/0001: has the very label map of case_00005/0001" in text and "--patients" in text
    patients = tmp_path / "patients.csv"
    rows = [f"case_{number:05d},{min(number, 5)}" for number in (*range(6), 9)]
    patients.write_text("\n".join(["case,patient", *rows]) + "\n")
    assert convert("kits19", tmp_path / "kits", tmp_path / "s", "--patients", patients) == 0
    store = SliceStore(tmp_path / "s")
    assert sum(own["patients"] for own in store.counts.values()) == 6


def test_small_label_maps_may_be_alike(kits, tmp_path):
    assert convert("kits19", kits[0], tmp_path / "s") == 0  # six pixels of kidney, in the same place in each


def test_a_mirrored_image_beside_labels_that_are_not_is_refused(tmp_path):
    write_nifti(tmp_path / "c" / "imaging.nii.gz", HU[:, :, ::-1], AFFINE @ np.diag([1, 1, -1, 1]))
    write_nifti(tmp_path / "c" / "segmentation.nii.gz", LABELS, AFFINE, dtype=np.uint8)
    with pytest.raises(DataError, match="place the same voxels up to"):
        find_kits19(tmp_path, ReadOptions())
