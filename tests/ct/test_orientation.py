"""Where voxels lie: any order and direction of a file's axes gives the same slices."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from ct_files import AFFINE, SHAPE, SPACING, volume, write_case, write_nifti

from pathzoo.ct.cases import find_kits19
from pathzoo.ct.geometry import display_grid
from pathzoo.ct.nifti import NiftiCase
from pathzoo.ct.volume import ReadOptions
from pathzoo.errors import DataError

_TURNS = list(itertools.product(itertools.permutations(range(3)), itertools.product((False, True), repeat=3)))


def stored_as(array, order, flips):
    """`array` as a file may hold it: its axis number `order[i]` stored as axis i, reversed where `flips[i]`."""
    turned = np.transpose(array, order)
    return turned[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]


def affine_of(order, flips):
    """The affine of an array that `stored_as` made of one with `AFFINE`."""
    affine = np.eye(4)
    affine[:3, 3] = AFFINE[:3, 3]
    for axis, (display, flip) in enumerate(zip(order, flips, strict=True)):
        column = AFFINE[:3, display]
        affine[:3, axis] = -column if flip else column
        affine[:3, 3] += column * (SHAPE[display] - 1) if flip else 0
    return affine


@pytest.mark.parametrize(("order", "flips"), _TURNS)
def test_all_48_orders_and_directions_of_axes_give_the_same_slices(tmp_path, order, flips):
    hu, labels = volume()
    affine = affine_of(order, flips)
    write_nifti(tmp_path / "c" / "imaging.nii.gz", stored_as(hu, order, flips), affine)
    write_nifti(tmp_path / "c" / "segmentation.nii.gz", stored_as(labels, order, flips), affine, np.uint8)
    (case,), _ = find_kits19(tmp_path, ReadOptions())
    found = case.read(with_hu=True)
    assert (found.hu == hu).all() and (found.labels == labels).all() and case.shape == SHAPE
    assert np.allclose(case.spacing, SPACING) and np.allclose(found.positions, [-140, -137, -134, -131])
    assert not found.notes


def test_labels_may_be_stored_in_another_order_of_axes_than_the_image(tmp_path):
    hu, labels = volume()
    write_nifti(tmp_path / "i.nii.gz", hu, AFFINE)
    order, flips = (2, 0, 1), (True, False, True)
    write_nifti(tmp_path / "l.nii.gz", stored_as(labels, order, flips), affine_of(order, flips), np.uint8)
    found = NiftiCase("c", "c", tmp_path / "i.nii.gz", tmp_path / "l.nii.gz", ReadOptions()).read(with_hu=True)
    assert (found.hu == hu).all() and (found.labels == labels).all()


@pytest.mark.parametrize("turn", _TURNS[5:48:9])
def test_a_voxel_stands_where_its_place_in_the_body_says(tmp_path, turn):
    """By nibabel's own values and affine: slices count from the feet, rows from the front, columns from the right."""
    path = tmp_path / "c" / "imaging.nii.gz"
    hu, labels = volume(seed=3)
    write_nifti(path, stored_as(hu, *turn), affine_of(*turn))
    write_nifti(tmp_path / "c" / "segmentation.nii.gz", stored_as(labels, *turn), affine_of(*turn), np.uint8)
    (case,), _ = find_kits19(tmp_path, ReadOptions())
    found = case.read(with_hu=True)
    image = nib.load(path)
    values = image.get_fdata()
    places = {index: image.affine @ [*index, 1] for index in np.ndindex(values.shape)}
    x, y, z = (sorted({round(place[axis], 3) for place in places.values()}) for axis in range(3))
    for index, place in places.items():
        right, front, up = (round(value, 3) for value in place[:3])
        number, row, column = z.index(up), len(y) - 1 - y.index(front), len(x) - 1 - x.index(right)
        assert found.hu[number, row, column] == values[index]
        assert abs(found.positions[number] - up) < 1e-3


@pytest.mark.parametrize(("degrees", "told"), [(3, False), (9.5, False), (12, True), (30, True)])
def test_oblique_volumes_go_to_the_nearest_axes_and_are_told_of(degrees, told):
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    grid = display_grid(SHAPE, turn @ AFFINE, "f")
    assert grid.shape == SHAPE and abs(grid.tilt - degrees) < 1e-6 and np.allclose(grid.spacing, SPACING)
    assert bool(grid.notes()) == told
    if told:
        assert f"lies {degrees} degrees off the body's axes" in grid.notes()[0]
    middle = (turn @ AFFINE @ [1, 2, 2.5, 1])[2]
    assert abs(grid.positions[1] - middle) < 1e-9, "the height of a slice is that of its centre"


def test_an_affine_that_maps_no_volume_is_refused():
    flat = AFFINE.copy()
    flat[:3, 1] = 0
    for bad in (flat, AFFINE * np.nan):
        with pytest.raises(DataError, match="maps no volume"):
            display_grid(SHAPE, bad, "f")


@pytest.mark.real
def test_real_volumes_stand_where_nibabel_says(real_data):
    folder = real_data / "kidney_ct" / "totalsegmentator"
    for stem in ("ct_3mm", "ct_sm_3mm"):
        path = folder / f"{stem}.nii.gz"
        image = nib.load(path)
        labels = folder / f"{stem}_totalsegmentator_labels.nii.gz"
        from pathzoo.ct.volume import LabelMap

        options = ReadOptions(LabelMap.parse(["2=1", "3=1", "other=0"]))
        found = NiftiCase("c", "c", path, labels, options).read(with_hu=True)
        values, organs = image.get_fdata(), nib.load(labels).get_fdata()
        rng = np.random.default_rng(0)
        for index in zip(*(rng.integers(0, size, 200) for size in values.shape), strict=True):
            right, front, up = (image.affine @ [*index, 1])[:3]
            # The volume's corners give its extent; both files are RAS+ with 3 mm voxels.
            low, high = (image.affine @ [*corner, 1] for corner in ((0, 0, 0), np.subtract(values.shape, 1)))
            number, row, column = (round(value / 3) for value in (up - low[2], high[1] - front, high[0] - right))
            assert found.hu[number, row, column] == max(values[index], -1024)
            assert found.labels[number, row, column] == (organs[index] in (2, 3))


def test_kits19_heads_put_slice_0_at_the_feet(tmp_path):
    """KiTS19 stores slices first, from the head down, without an origin."""
    hu, labels = volume()
    affine = np.array([[0, 0, -0.7, 0], [0, -0.8, 0, 0], [-3.0, 0, 0, 0], [0, 0, 0, 1]])
    write_case(tmp_path, "case_00000", affine=affine, hu=hu, labels=labels)
    (case,), _ = find_kits19(tmp_path, ReadOptions())
    found = case.read(with_hu=True)
    assert (found.hu == hu[::-1]).all() and found.positions == (-9.0, -6.0, -3.0, 0.0)
