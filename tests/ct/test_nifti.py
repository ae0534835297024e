"""Case folders of NIfTI volumes: what is read, and what is refused with the file, the value and the remedy."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from ct_files import AFFINE, SHAPE, volume, write_case, write_nifti

from pathzoo.ct.cases import find_kits19, pseudonymised, with_patients
from pathzoo.ct.nifti import NiftiCase
from pathzoo.ct.volume import LabelMap, ReadOptions
from pathzoo.errors import ConfigError, DataError


def read(root, **options):
    (case,), _ = find_kits19(root, ReadOptions(**options))
    return case.read(with_hu=True)


def test_slope_and_intercept_are_applied_and_fractions_rounded(tmp_path):
    hu, labels = volume()
    write_case(tmp_path, "c", hu=hu, labels=labels)
    path = tmp_path / "c" / "imaging.nii.gz"
    image = nib.Nifti1Image(hu, AFFINE)
    image.header.set_slope_inter(0.5, -10)
    nib.save(image, path)
    header = nib.load(path).dataobj
    assert (header.slope, header.inter) == (0.5, -10)
    stored = np.asanyarray(header.get_unscaled())
    assert (read(tmp_path).hu == np.maximum(np.rint(stored * 0.5 - 10), -1024)).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int32, np.uint16])
def test_every_type_of_voxel_gives_the_same_hu(tmp_path, dtype):
    hu, labels = volume()
    write_case(tmp_path, "c", labels=labels)
    lowest = -1024 if dtype == np.uint16 else 0
    image = nib.Nifti1Image((hu.astype(int) - lowest).astype(dtype), AFFINE)
    image.header.set_slope_inter(1, lowest)
    nib.save(image, tmp_path / "c" / "imaging.nii.gz")
    found = read(tmp_path).hu
    assert found.dtype == np.int16 and (found == hu).all()


def test_padding_below_air_is_raised_and_told_of(tmp_path):
    hu, _ = volume()
    hu[0, 0, :3] = -2048
    write_case(tmp_path, "c", hu=hu)
    found = read(tmp_path)
    assert (found.hu[0, 0, :3] == -1024).all() and found.notes == (
        "3 voxels below -1024 HU (padding) were set to -1024",
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.nan, r"imaging\.nii\.gz: slice 2 holds 1 values that are no number \(nan\): export the volume anew"),
        (np.inf, r"slice 2 holds 1 values that are no number \(inf\)"),
        (1e300, r"slice 2 holds 1 values that are no number \(inf\)"),
        (40000, r"slice 2 holds 40000, no Hounsfield unit .*: apply the scanner's slope"),
        (-40000, r"slice 2 holds -40000, no Hounsfield unit"),
    ],
)
def test_values_that_are_no_hu_are_refused(tmp_path, value, text):
    hu = volume()[0].astype(float)
    hu[2, 1, 1] = value
    write_case(tmp_path, "c", hu=hu, dtype=np.float64)
    with pytest.raises(DataError, match=text):
        read(tmp_path)


def test_a_windowed_volume_is_refused(tmp_path):
    write_case(tmp_path, "c", hu=np.abs(volume()[0]) % 256)
    with pytest.raises(DataError, match=r"imaging\.nii\.gz: all its values lie in 0\.\.255, so it looks windowed"):
        read(tmp_path)


@pytest.mark.parametrize(("value", "dtype"), [(3, np.uint8), (-1, np.int16), (0.5, np.float32), (70000, np.int32)])
def test_other_label_values_are_refused_with_the_value_and_the_case(tmp_path, value, dtype):
    labels = volume()[1].astype(dtype)
    labels[1, 0, 0] = value
    write_case(tmp_path, "case_00007")
    write_nifti(tmp_path / "case_00007" / "segmentation.nii.gz", labels, AFFINE, dtype)
    place = rf"segmentation\.nii\.gz: label value {value} in slice 1 of case_00007"
    with pytest.raises(DataError, match=place) as caught:
        read(tmp_path)
    assert ("--label-map 3=CLASS" in str(caught.value)) == (value == 3), "what --label-map does not take is no remedy"


def test_a_label_map_says_what_values_mean(tmp_path):
    labels = volume()[1]
    foreign = np.array([0, 3, 9], np.uint8)[labels]
    foreign[0, 0, 0] = 1
    write_case(tmp_path, "c", labels=foreign)
    assert (read(tmp_path, label_map=LabelMap.parse(["3=1", "9=2", "other=0"])).labels == labels).all()
    kept = read(tmp_path, label_map=LabelMap.parse(["3=1", "9=2"])).labels
    assert kept[0, 0, 0] == 1 and (kept[1:] == labels[1:]).all(), "without other=, 0, 1 and 2 stay what they are"
    for words in (["3"], ["3=7"], ["x=1"], ["3=1", "3=2"], ["70000=1"], ["other=0", "other=1"]):
        with pytest.raises(ConfigError, match="--label-map"):
            LabelMap.parse(words)


@pytest.mark.parametrize("missing", ["imaging", "segmentation"])
def test_a_missing_file_is_named_or_the_case_left_out(tmp_path, missing):
    for name in ("case_00000", "case_00001"):
        write_case(tmp_path, name)
    (tmp_path / "case_00001" / f"{missing}.nii.gz").unlink()
    with pytest.raises(DataError, match=rf"case_00001 has no {missing}\.nii\.gz: add it, .*--skip-incomplete"):
        find_kits19(tmp_path, ReadOptions())
    cases, notes = find_kits19(tmp_path, ReadOptions(skip_incomplete=True))
    assert [case.name for case in cases] == ["case_00000"]
    assert notes == ["1 cases without image or labels were left out, first case_00001"]


def test_what_is_found_and_what_is_not(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        find_kits19(tmp_path / "no", ReadOptions())
    with pytest.raises(DataError, match="no case folder with"):
        find_kits19(tmp_path, ReadOptions())
    (tmp_path / "case_00009").mkdir()
    with pytest.raises(DataError, match="case_00009 has no imaging"):
        find_kits19(tmp_path, ReadOptions())
    (tmp_path / "case_00009").rmdir()
    write_case(tmp_path / "data", "case_00003")
    write_nifti(tmp_path / "flat" / "case_00004_imaging.nii", *(volume()[0], AFFINE))
    write_nifti(tmp_path / "flat" / "case_00004_segmentation.nii.gz", *(volume()[1], AFFINE))
    cases, _ = find_kits19(tmp_path, ReadOptions())
    assert [(case.name, case.patient) for case in cases] == [("case_00003",) * 2, ("case_00004",) * 2]
    write_case(tmp_path / "copy", "case_00003")
    with pytest.raises(DataError, match=r"the case case_00003 stands already in .*: rename one"):
        find_kits19(tmp_path, ReadOptions())


@pytest.mark.parametrize(
    ("shift", "text"),
    [
        (np.diag([1, 1, 1.02, 1]), "the same voxels up to .* mm apart; resample the labels"),
        (np.diag([-1, 1, 1, 1]), "the same voxels up to .* mm apart"),
    ],
)
def test_labels_on_another_grid_are_refused(tmp_path, shift, text):
    write_case(tmp_path, "c")
    write_nifti(tmp_path / "c" / "segmentation.nii.gz", volume()[1], shift @ AFFINE)
    with pytest.raises(DataError, match=text):
        read(tmp_path)


def test_labels_of_another_shape_are_refused(tmp_path):
    write_case(tmp_path, "c")
    write_nifti(tmp_path / "c" / "segmentation.nii.gz", volume()[1][:-1], AFFINE)
    with pytest.raises(DataError, match="the image has 4 x 5 x 6 slices x rows x columns, the labels 3 x 5 x 6"):
        read(tmp_path)


def test_a_hair_of_difference_in_the_affine_is_rounding(tmp_path):
    write_case(tmp_path, "c")
    moved = AFFINE.copy()
    moved[0, 3] += 0.01
    write_nifti(tmp_path / "c" / "segmentation.nii.gz", volume()[1], moved)
    assert (read(tmp_path).labels == volume()[1]).all()


def test_a_spacing_of_zero_is_refused_or_given(tmp_path):
    hu, _ = write_case(tmp_path, "c", zooms=(0, 0.8, 0.7))
    with pytest.raises(DataError, match=r"pixdim\[1\] is 0, so its spacing is not stated: give it by --spacing Z Y X"):
        read(tmp_path)
    found = read(tmp_path, spacing=(5, 2, 1))
    assert np.allclose(found.spacing, (5, 2, 1)) and (found.hu == hu).all()


def test_a_volume_without_an_affine_states_its_spacing_and_needs_its_axes(tmp_path):
    """NIfTI-1, method 1: pixdim holds whatever the codes are. A spacing given for others does not change it."""
    hu, _ = write_case(tmp_path, "c", codes=(0, 0))
    with pytest.raises(DataError, match=r"does not say which way its axes point: give --axes, such as LPS"):
        read(tmp_path)
    for given in (None, (5, 2, 1)):
        found = read(tmp_path, axes="SPL", spacing=given)
        assert (found.hu == hu).all() and np.allclose(found.spacing, (3, 0.8, 0.7))


def test_a_volume_without_an_affine_may_state_other_units(tmp_path):
    write_without_affine(tmp_path, (3000, 800, 700), "micron")
    assert np.allclose(read(tmp_path, axes="SPL").spacing, (3, 0.8, 0.7))


def write_without_affine(folder, zooms, units="mm"):
    hu, _ = write_case(folder, "c", codes=(0, 0))
    for name in ("imaging", "segmentation"):
        image = nib.load(folder / "c" / f"{name}.nii.gz")
        image = nib.Nifti1Image(np.asarray(image.dataobj), None, image.header)
        image.header.set_xyzt_units(units)
        image.header["pixdim"][1:4] = zooms
        nib.save(image, folder / "c" / f"{name}.nii.gz")
    return hu


def test_a_volume_that_states_neither_needs_spacing_and_axes(tmp_path):
    hu = write_without_affine(tmp_path, (1, 1, 1))
    with pytest.raises(DataError, match=r"pixdim is 1 x 1 x 1, .*give it by --spacing Z Y X .*with --axes"):
        read(tmp_path)
    with pytest.raises(DataError, match=r"does not say which way its axes point: give --axes, such as LPS"):
        read(tmp_path, spacing=(3, 0.8, 0.7))
    found = read(tmp_path, spacing=(3, 0.8, 0.7), axes="SPL")
    assert (found.hu == hu).all() and np.allclose(found.spacing, (3, 0.8, 0.7))
    assert (read(tmp_path, spacing=(3, 0.8, 0.7), axes="IAR").hu == hu[::-1, ::-1, ::-1]).all()


def test_a_stated_spacing_is_kept(tmp_path):
    write_case(tmp_path, "c")
    assert np.allclose(read(tmp_path, spacing=(9, 9, 9)).spacing, (3, 0.8, 0.7))


@pytest.mark.parametrize(("key", "value"), [("spacing", (0, 1, 1)), ("axes", "LRS"), ("axes", "XYZ"), ("axes", "LP")])
def test_bad_spacing_and_axes(key, value):
    with pytest.raises(ConfigError, match=f"--{key}"):
        ReadOptions(**{key: value})


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.999])
@pytest.mark.parametrize("name", ["imaging", "segmentation"])
def test_a_truncated_file_is_refused(tmp_path, name, keep):
    write_case(tmp_path, "c")
    path = tmp_path / "c" / f"{name}.nii.gz"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(DataError, match=rf"{name}\.nii\.gz: truncated or damaged NIfTI \(.*\): copy or download it"):
        read(tmp_path)


def test_a_flipped_bit_is_found_by_the_checksum(tmp_path):
    hu, labels = volume(shape=(8, 40, 40))
    write_case(tmp_path, "c", hu=hu, labels=labels)
    path = tmp_path / "c" / "imaging.nii.gz"
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[-3] ^= 1
    whole = bytearray(gzip.compress(bytes(data)))
    whole[-8:-4] = path.read_bytes()[-8:-4]
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"truncated or damaged NIfTI \(CRC"):
        read(tmp_path)


def test_what_is_no_volume_is_refused(tmp_path):
    write_case(tmp_path, "c")
    path = tmp_path / "c" / "imaging.nii.gz"
    path.write_bytes(gzip.compress(b"nothing"))
    with pytest.raises(DataError, match="truncated or damaged NIfTI"):
        read(tmp_path)
    write_nifti(path, np.zeros((2, 3, 4, 5)), AFFINE)
    with pytest.raises(DataError, match=r"has the shape \(2, 3, 4, 5\)"):
        read(tmp_path)
    write_nifti(path, volume()[0], AFFINE, np.complex64)
    with pytest.raises(DataError, match="holds complex64 values"):
        read(tmp_path)
    write_nifti(path, volume()[0][..., None], AFFINE)
    assert (read(tmp_path).hu == volume()[0]).all(), "a fourth axis of one is none"


def test_patients_come_from_a_table(tmp_path):
    for name in ("a", "b", "c"):
        write_case(tmp_path, name)
    cases, _ = find_kits19(tmp_path, ReadOptions())
    table = tmp_path / "p.csv"
    table.write_text("case,patient\na,P1\nb,P1\nc,unknown\nz,P9\n")
    stated, notes = with_patients(cases, table)
    assert [case.patient for case in stated] == ["P1", "P1", None] and "1 cases that are not there, first z" in notes[0]
    assert isinstance(stated[0], NiftiCase) and stated[0].shape == SHAPE
    table.write_text("case,patient\na,P1\n")
    with pytest.raises(DataError, match=r"has no line for the case b \(and 1 more\)"):
        with_patients(cases, table)


def test_pseudonyms_are_keyed_and_the_same_for_a_key(tmp_path):
    for name in ("case_00001", "case_00002"):
        write_case(tmp_path, name)
    cases, _ = find_kits19(tmp_path, ReadOptions())
    one = pseudonymised(cases, tmp_path / "lab.key")
    assert pseudonymised(cases, tmp_path / "lab.key") == one
    assert not any("0000" in case.name + case.patient for case in one) and len({case.patient for case in one}) == 2
    assert (tmp_path / "lab.key").stat().st_mode & 0o777 == 0o600
    other = pseudonymised(cases, tmp_path / "other.key")
    assert not {case.patient for case in one} & {case.patient for case in other}
    (tmp_path / "short").write_text("abc")
    with pytest.raises(DataError, match="a key of 3 bytes can be guessed"):
        pseudonymised(cases, tmp_path / "short")


def test_without_nibabel_the_extra_is_named(tmp_path, monkeypatch):
    write_case(tmp_path, "c")
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    with pytest.raises(ConfigError, match=r"nibabel is not installed; .*pip install pathzoo\[ct\]"):
        find_kits19(tmp_path, ReadOptions())


@pytest.mark.real
def test_real_kits19_labels_without_their_images(real_data):
    folder = real_data / "kidney_ct" / "kits19" / "volumes_labels_only"
    with pytest.raises(DataError, match=r"case_00015 has no imaging\.nii\.gz"):
        find_kits19(folder, ReadOptions())
