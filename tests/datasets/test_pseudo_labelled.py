"""PseudoLabelled: a fixed proportion of two parts, labels from the round's folder and from nowhere else."""

from pathlib import Path

import numpy as np
import pytest
from albumentations import D4
from mmengine.config import ConfigDict
from region_tables import HALF, KFOLD, edit_line, picture, write_lab
from torch.utils.data import DataLoader

from pathzoo.datasets import BreastLesions, PseudoLabelled
from pathzoo.datasets.sampling import SampleIndex, SeededSampler
from pathzoo.datasets.transforms import Albumentations
from pathzoo.errors import ConfigError, DataError, LeakageError
from pathzoo.registry import DATASETS


class Folder:
    """A round of pseudo-labels: class 2 where the picture's red is even, 255 elsewhere."""

    def __init__(self, path, wrong=None, plus=0):
        self.path, self.wrong, self.plus, self.checked = Path(path), wrong, plus, []
        self.path.mkdir(exist_ok=True)
        (self.path / "provenance.json").write_text(f'{{"round": {plus}}}')

    def check(self, dataset):
        if self.wrong:
            raise DataError(f"{self.path}: {self.wrong}")
        self.checked.append(dataset)

    def read(self, item):
        number = int(item[-6:-4])
        width, height = ((40, 30), (33, 50))[number % 2]
        return made(picture(width, height, number), self.plus)


def made(pixels, plus=0):
    return np.where(pixels[..., 0] % 2 == 0, (2 + plus) % 3, 255).astype(np.uint8)


@pytest.fixture
def lab(tmp_path):
    return write_lab(tmp_path, patients=9)


def both(lab, pseudo=True, count=20, split=HALF, cache="memory", **more):
    shared = {"type": "pathzoo.BreastLesions", "data_root": str(lab), "patch_size": 12, "split": split, "cache": cache}
    arguments = {
        "labelled": {**shared, "subset": "train", "balance": 0.5, "pipeline": more.pop("pipeline", [])},
        "unlabelled": {**shared, "subset": "unlabelled", "seed": 1, "pipeline": []},
    }
    return PseudoLabelled(patches_per_epoch=count, share=0.4, weight=0.5, pseudo=pseudo, **{**arguments, **more})


def pixels_of(sample):
    number, x, y = int(sample["item"][-6:-4]), sample["patch_x"], sample["patch_y"]
    return picture(*((40, 30), (33, 50))[number % 2], number)[y : y + 12, x : x + 12]


def test_before_the_first_round_every_sample_is_labelled(lab):
    data = both(lab)
    items = {region.item for region in data.labelled.regions}
    for sample in data:
        assert sample["item"] in items and sample["unlabelled"] is False and sample["loss_weight"] == 1.0
        assert (sample["gt_seg_map"] != 255).any()
    assert len(data) == len(list(data)) == 20
    assert data.metainfo == data.labelled.metainfo and data.subset == "train"
    assert data.split.digest == data.unlabelled.split.digest and data.data_digest == data.labelled.data_digest
    assert data.describe()["unlabelled"]["n_images"] == len(data.unlabelled.regions)
    assert data.describe()["n_images"] == len(data.labelled.regions) and data.describe()["n_patches"] == 20


@pytest.mark.parametrize("cache", ["memory", "memmap"])
def test_afterwards_a_fixed_part_carries_the_round_s_labels(lab, tmp_path, cache):
    data, folder = both(lab, cache=cache), Folder(tmp_path / "round_01")
    before = [data[SampleIndex(n, 1)] for n in range(20)]
    data.use_pseudo_labels(folder)
    assert folder.checked == [data] and len(data) == 20
    items = {region.item for region in data.unlabelled.regions}
    for epoch in (1, 2):
        for index in range(20):
            sample = data[SampleIndex(index, epoch)]
            assert np.array_equal(sample["img"], pixels_of(sample)) and sample["sample_idx"] == index
            assert (sample["item"] in items) == (index < 8)
            assert sample["unlabelled"] is False
            assert sample["loss_weight"] == (0.5 if index < 8 else 1.0)
            if index < 8:
                assert np.array_equal(sample["gt_seg_map"], made(sample["img"]))
                assert sample["seg_map_path"] is None
            elif epoch == 1:  # the labelled samples are what they were
                assert np.array_equal(sample["img"], before[index]["img"])
                assert np.array_equal(sample["gt_seg_map"], before[index]["gt_seg_map"])
            assert data.get_data_info(SampleIndex(index, epoch)).items() <= sample.items()
    # The next round's labels take their place.
    data.use_pseudo_labels(Folder(tmp_path / "round_02", plus=1))
    assert np.array_equal(data[0]["gt_seg_map"], made(data[0]["img"], 1))


def test_without_pseudo_labels_they_carry_none(lab, tmp_path):
    data = both(lab, pseudo=False)
    for index, sample in enumerate(data):
        assert sample["unlabelled"] is (index < 8) and sample["loss_weight"] == 1.0
        assert (sample["gt_seg_map"] == 255).all() == (index < 8)
    with pytest.raises(ConfigError, match="pseudo=False: this data set hands out unlabelled patches without labels"):
        data.use_pseudo_labels(Folder(tmp_path / "r"))


def test_places_change_with_the_epoch_and_not_with_the_workers(lab, tmp_path):
    data = both(lab, count=30)
    data.use_pseudo_labels(Folder(tmp_path / "r"))
    sampler = SeededSampler(data, shuffle=True, seed=3)
    sampler.set_epoch(4)
    alone = [data[index] for index in sampler]
    loader = DataLoader(data, batch_size=None, sampler=sampler, num_workers=2, multiprocessing_context="fork")
    for one, other in zip(alone, loader, strict=True):
        assert one["item"] == other["item"] and np.array_equal(one["gt_seg_map"], np.asarray(other["gt_seg_map"]))
    places = [
        {(s["item"], s["patch_x"], s["patch_y"]) for s in (data[SampleIndex(n, e)] for n in range(30))} for e in (0, 1)
    ]
    assert len(places[0] & places[1]) < 5


def test_pseudo_labels_turn_with_the_image(lab, tmp_path):
    turn = [{"type": Albumentations, "transforms": [{"type": D4, "p": 1.0}]}]
    data = both(lab)
    data.unlabelled = BreastLesions(
        str(lab), patch_size=12, split=HALF, subset="unlabelled", patches_per_epoch=20, pipeline=turn
    )
    data.use_pseudo_labels(Folder(tmp_path / "r"))
    turned = 0
    for epoch in range(8):
        for index in range(8):
            sample = data[SampleIndex(index, epoch)]
            assert np.array_equal(sample["gt_seg_map"], made(sample["img"]))
            turned += not np.array_equal(sample["img"], pixels_of(sample))
    assert turned > 40


def test_it_is_built_from_a_config(lab):
    shared = {"type": BreastLesions, "data_root": str(lab), "split": HALF}
    config = ConfigDict(
        type=PseudoLabelled,
        patches_per_epoch=6,
        labelled=dict(**shared, subset="train", balance=0.5),
        unlabelled=dict(**shared, subset="unlabelled"),
    )
    data = DATASETS.build(config)
    assert len(data) == 6 and data.labelled.patches_per_epoch == 6
    assert "patches_per_epoch" not in config.labelled


def test_a_folder_of_another_run_is_refused_and_nothing_changes(lab, tmp_path):
    data = both(lab)
    with pytest.raises(DataError, match="pseudo-labels of another run"):
        data.use_pseudo_labels(Folder(tmp_path / "r", wrong="pseudo-labels of another run"))
    assert data[0]["item"] in {region.item for region in data.labelled.regions}


def test_labels_that_do_not_fit_are_named(lab, tmp_path):
    data, folder = both(lab), Folder(tmp_path / "r")
    data.use_pseudo_labels(folder)
    folder.read = lambda item: np.zeros((4, 5), np.uint8)
    with pytest.raises(DataError, match=r"r: the pseudo-label of images/\d\d.png is 5 x 4 px, the region \d+ x \d+"):
        data[0]
    folder.read = lambda item: Folder.read(folder, item) // 2 * 3
    data.use_pseudo_labels(folder)
    with pytest.raises(DataError, match=r"images/\d\d.png holds the value 3, there are 3 classes"):
        data[0]


def test_parts_that_do_not_belong_together(lab, tmp_path_factory):
    other = {"type": "BreastLesions", "data_root": str(lab), "patch_size": 12, "split": HALF, "subset": "unlabelled"}
    with pytest.raises(DataError, match=r"the parts' splits differ \(digests"):
        both(lab, unlabelled={**other, "split": {**HALF, "seed": 9}})
    with pytest.raises(ConfigError, match=r"patch_size of the labelled part is 12, of the unlabelled part 16"):
        both(lab, unlabelled={**other, "patch_size": 16})
    with pytest.raises(ConfigError, match=r"unlabelled: its subset is 'train'; give subset='unlabelled'"):
        both(lab, unlabelled={**other, "subset": "train"})
    with pytest.raises(ConfigError, match=r"labelled: its subset is 'unlabelled'; give subset='train'"):
        both(lab, labelled=other)
    with pytest.raises(
        ConfigError, match=r"'unlabelled': .*: nothing is left without a label: .* label_fraction below 1"
    ):
        both(lab, split=KFOLD)


def test_no_labelled_item(lab):
    for number in range(18):
        edit_line(lab, number, mask="")
    with pytest.raises(DataError, match=r"none of its 18 regions has a mask"):
        both(lab)


def test_one_region_in_both_parts(lab):
    data = both(lab)
    with pytest.raises(LeakageError, match=r"images/\d\d.png is labelled and unlabelled at once"):
        _swapped_regions(data, data.labelled.regions[0])
    twin = data.labelled.regions[0]
    object.__setattr__(data.unlabelled.regions[0], "sha256", twin.sha256)
    with pytest.raises(
        LeakageError, match=rf"{twin.item} \(labelled\) and images/\d\d.png \(unlabelled\) hold identical"
    ):
        data.full_init()


def _swapped_regions(data, region):
    reader = data.unlabelled._reader
    kept, reader.regions = reader.regions, (region, *reader.regions[1:])
    try:
        data.full_init()
    finally:
        reader.regions = kept


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "patches_per_epoch=0: give a whole number above 0"),
        ({"share": 1.0}, "share=1.0: give the unlabelled part of an epoch, above 0 and below 1"),
        ({"weight": 0}, "weight=0: give a factor on the loss above 0"),
    ],
)
def test_wrong_arguments(lab, arguments, message):
    count = arguments.pop("count", 10)
    with pytest.raises(ConfigError, match=message):
        PseudoLabelled({}, {}, count, **arguments)
