"""Random places over a slide's tissue."""

import os
import pickle

import numpy as np
import pytest
import tifffile
from torch.utils.data import DataLoader, Dataset

from pathzoo.datasets.sampling import SampleIndex
from pathzoo.datasets.slide_places import TissuePlaces, slide_fingerprint, survey_slides
from pathzoo.errors import DataError, SlideError

_MPP = 2.0
#: Tissue lies here, in level-0 pixels: x0, y0, x1, y1.
_LEFT, _RIGHT = (200, 300, 700, 1100), (1300, 300, 1500, 1100)


def write_slide(path, tissue=(_LEFT, _RIGHT), size=(1800, 1400), mpp=_MPP):
    """A slide whose pixels say where they are: red and green grow with x and y, so that it is no grey."""
    picture = np.full((size[1], size[0], 3), 245, np.uint8)
    for x0, y0, x1, y1 in tissue:
        picture[y0:y1, x0:x1, 0] = 90 + (np.arange(x0, x1) // 16)[None]
        picture[y0:y1, x0:x1, 1] = (np.arange(y0, y1) // 16)[:, None]
        picture[y0:y1, x0:x1, 2] = 160
    dots = {} if mpp is None else {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, picture, tile=(256, 256), photometric="rgb", compression="zlib", metadata=None, **dots)
    return path


def on_tissue(x, y, slack=0.0):
    return any(x0 - slack <= x <= x1 + slack and y0 - slack <= y <= y1 + slack for x0, y0, x1, y1 in (_LEFT, _RIGHT))


def test_places_lie_on_tissue_evenly(tmp_path):
    places = TissuePlaces(write_slide(tmp_path / "s.tif"), 64, _MPP, seed=1)
    assert places.side == pytest.approx(64) and places.mpp == pytest.approx(_MPP)
    drawn = np.array([places.place(0, number) for number in range(2000)]) + places.side / 2
    slack = 2 * max(places.mask_scale)  # the mask's pixels are coarser than the slide's
    assert all(on_tissue(x, y, slack) for x, y in drawn)
    # By area: the left piece is 2.5 times the right one, and in each every quarter is as likely.
    left = drawn[drawn[:, 0] < 1000]
    share = 500 * 800 / (700 * 800)
    assert abs(len(left) / 2000 - share) < 4 * np.sqrt(share * (1 - share) / 2000)
    upper = (left[:, 1] < 700).mean()
    assert abs(upper - 0.5) < 4 * np.sqrt(0.25 / len(left))
    assert places.tiles == pytest.approx(700 * 800 / 64**2, rel=0.15)


def test_tiles_stay_inside_and_are_read_at_the_resolution_asked_for(tmp_path):
    path = write_slide(tmp_path / "s.tif", tissue=((0, 0, 300, 300), (1500, 1100, 1800, 1400)))
    places = TissuePlaces(path, 100, 2 * _MPP)
    assert places.side == pytest.approx(200)
    for number in range(200):
        x, y = places.place(3, number)
        assert 0 <= x <= 1800 - 200 and 0 <= y <= 1400 - 200
    tile = places.read(*places.place(3, 0))
    assert tile.shape == (100, 100, 3) and tile.dtype == np.uint8
    x, y = 20, 60
    level0 = TissuePlaces(path, 200, None).read(x, y)
    assert (level0[..., 0] == 90 + (np.arange(x, x + 200) // 16)[None]).all(), "the pixels of that very place"
    coarse = places.read(x, y).astype(float)
    assert np.abs(coarse - level0.reshape(100, 2, 100, 2, 3).mean((1, 3))).max() <= 1


def test_a_place_depends_on_seed_epoch_and_index_alone(tmp_path):
    path = write_slide(tmp_path / "s.tif")
    one, other, seeded = (TissuePlaces(path, 64, _MPP, seed) for seed in (0, 0, 1))
    drawn = [one.place(epoch, index) for epoch in range(2) for index in range(20)]
    assert drawn == [other.place(epoch, index) for epoch in range(2) for index in range(20)]
    assert len(set(drawn)) > 35 and drawn != [seeded.place(e, i) for e in range(2) for i in range(20)]


class _Tiles(Dataset):
    def __init__(self, places):
        self.places = places

    def __len__(self):
        return 12

    def __getitem__(self, index):
        place = self.places.place(getattr(index, "epoch", 0), int(index))
        return os.getpid(), place, self.places.read(*place)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_read_the_same_tiles_through_handles_of_their_own(tmp_path, context):
    places = TissuePlaces(write_slide(tmp_path / "s.tif"), 64, _MPP)
    data = _Tiles(places)
    alone = [data[SampleIndex(index, 2)] for index in range(12)]  # opens the slide before the fork
    order = [SampleIndex(index, 2) for index in range(12)]
    loader = DataLoader(
        data, batch_size=None, sampler=order, num_workers=2, multiprocessing_context=context, collate_fn=lambda x: x
    ) if context == "fork" else [pickle.loads(pickle.dumps(data))[index] for index in order]  # fmt: skip
    found = list(loader)
    assert len({process for process, _, _ in found}) == (2 if context == "fork" else 1)
    for (_, place, tile), (_, expected, pixels) in zip(found, alone, strict=True):
        assert tuple(place) == expected and (np.asarray(tile) == pixels).all()


@pytest.mark.parametrize(
    ("options", "size", "mpp", "kind", "message"),
    [
        ({"tissue": ()}, 64, _MPP, DataError, "no tissue was found"),
        ({"mpp": None}, 64, 1.0, SlideError, "states no resolution"),
        ({}, 64, 0.5, SlideError, "coarser than the 0.5 asked for"),
        ({}, 900, 2 * _MPP, DataError, r"1800 x 1400 px, smaller than a tile of 900 px \(1800 of its own\)"),
    ],
)
def test_slides_that_give_no_tiles(tmp_path, options, size, mpp, kind, message):
    path = write_slide(tmp_path / "s.tif", **options)
    with pytest.raises(kind, match=rf"s\.tif: .*{message}"):
        TissuePlaces(path, size, mpp)


def test_tiles_shrink_to_a_slide_that_is_smaller_down_to_what_is_needed(tmp_path):
    path = write_slide(tmp_path / "s.tif", tissue=((0, 0, 300, 250),), size=(300, 250))
    places = TissuePlaces(path, 240, 2 * _MPP, smallest=100)
    assert places.size == 125 and places.side == pytest.approx(250), "the slide's shorter side at 4 um"
    for number in range(30):
        x, y = places.place(0, number)
        assert 0 <= x <= 50 and y == 0
        assert places.read(x, y).shape == (125, 125, 3)
    assert places.tiles == pytest.approx(300 / 250, rel=0.1)
    whole = TissuePlaces(path, 250, None, smallest=250)
    assert whole.size == 250 and whole.read(*whole.place(0, 0)).shape == (250, 250, 3)
    assert TissuePlaces(path, 90, None, smallest=60).size == 90, "there is room"
    assert TissuePlaces(path, 200, 2 * _MPP, smallest=125).size == 125
    with pytest.raises(DataError, match=r"s\.tif: 300 x 250 px, smaller than a tile of 126 px \(252 of its own\)"):
        TissuePlaces(path, 240, 2 * _MPP, smallest=126)
    with pytest.raises(DataError, match=r"smaller than a tile of 251 px \(251 of its own\)"):
        TissuePlaces(path, 251, None)


@pytest.mark.parametrize("mpp", [0.2527, 0.4991, 0.333])
def test_a_slide_of_exactly_the_size_gives_it_whatever_the_resolution_rounds_to(tmp_path, mpp):
    path = write_slide(tmp_path / "s.tif", tissue=((0, 0, 400, 400),), size=(400, 400), mpp=mpp)
    places = TissuePlaces(path, 150, 4 * mpp, smallest=100)
    assert places.size == 100 and places.place(0, 0) == (0, 0) and places.read(0, 0).shape == (100, 100, 3)
    assert (places.read(0, 0) < 200).all(axis=2).all(), "no glass from beyond the slide"


@pytest.mark.parametrize("grey", [False, True])
def test_slides_of_16_bits_are_refused(tmp_path, grey):
    pixels, kind = np.full((300, 400, 3), 3000, np.uint16), "minisblack" if grey else "rgb"
    pixels = pixels[..., 0] if grey else pixels
    tifffile.imwrite(tmp_path / "s.tif", pixels, tile=(64, 64), photometric=kind, metadata=None)
    with pytest.raises(SlideError, match=r"s\.tif: pixels of mode .*16 bits per channel.* 8-bit RGB.* 257") as error:
        TissuePlaces(tmp_path / "s.tif", 64, None)
    assert "\n" not in str(error.value)
    assert survey_slides([{"img_path": str(tmp_path / "s.tif"), "mpp": None}], 64, None, 0)[0].places is None


def test_a_resolution_that_is_given_counts(tmp_path):
    path = write_slide(tmp_path / "s.tif", mpp=None)
    places = TissuePlaces(path, 64, 2.0, slide_mpp=1.0)
    assert places.side == pytest.approx(128) and places.read(300, 400).shape == (64, 64, 3)
    assert TissuePlaces(path, 64, None).mpp is None


def test_a_survey_says_what_is_wrong_and_goes_on(tmp_path):
    good = write_slide(tmp_path / "good.tif")
    (tmp_path / "bad.svs").write_bytes(b"no slide")
    infos = [{"img_path": str(path), "mpp": None} for path in (good, tmp_path / "bad.svs", tmp_path / "gone.svs")]
    first, second, third = survey_slides(infos, 64, _MPP, 0)
    assert first.error is None and first.sha256 == slide_fingerprint(good) and first.places.tiles > 1
    assert second.places is None and "bad.svs" in second.error and "gone.svs" in third.error


def test_fingerprints_see_both_ends_and_the_length(tmp_path):
    data = bytearray(np.random.default_rng(0).bytes(3 << 20))
    path, seen = tmp_path / "s", set()
    for place in (None, 0, len(data) - 1):
        changed = bytearray(data)
        if place is not None:
            changed[place] ^= 1
        path.write_bytes(changed)
        seen.add(slide_fingerprint(path))
    path.write_bytes(data + data[:1])
    assert len(seen | {slide_fingerprint(path)}) == 4
