"""RegionSegmentation: patches are the regions' own pixels, by (seed, epoch, index), and no hidden label gets out."""

import csv
import hashlib
import json

import numpy as np
import pytest
from albumentations import D4
from PIL import Image
from region_tables import HALF, KFOLD, edit_line, labels, picture, write_class_file, write_lab, write_mask
from torch.utils.data import DataLoader

from pathzoo.datasets import BreastLesions, RegionSegmentation
from pathzoo.datasets.regions import SEG_META_KEYS
from pathzoo.datasets.sampling import SampleIndex, SeededSampler, mix_seed
from pathzoo.datasets.transforms import Albumentations, StainJitter
from pathzoo.errors import ConfigError, DataError
from pathzoo.registry import DATASETS


@pytest.fixture
def lab(tmp_path):
    return write_lab(tmp_path)


def same(first, second):
    return all(np.array_equal(first[key], second[key]) for key in first)


def test_a_sample_has_what_the_contract_promises(lab):
    data = BreastLesions(str(lab), patch_size=16)
    assert data.metainfo["classes"] == ("normal", "benign", "malignant") and len(data.metainfo["palette"]) == 3
    sample = data[6]  # 3 x 2 patches in the first region
    pixels, mask = sample.pop("img"), sample.pop("gt_seg_map")
    assert sample == {
        "img_path": str(lab / "images" / "01.png"),
        "seg_map_path": str(lab / "masks" / "01.png"),
        "seg_fields": ["gt_seg_map"],
        "item": "images/01.png",
        "patient": "P0",
        "slide": "S0",
        "mpp": 1.0,
        "sha256": hashlib.sha256((lab / "images" / "01.png").read_bytes()).hexdigest(),
        "region_index": 1,
        "patch_x": 0,
        "patch_y": 0,
        "img_shape": (16, 16),
        "ori_shape": (16, 16),
        "reduce_zero_label": False,
        "sample_idx": 6,
        "sample_seed": mix_seed(0, 0, 6),
        "loss_weight": 1.0,
        "unlabelled": False,
    }
    assert set(SEG_META_KEYS) < set(sample)
    assert sample == data.get_data_info(6)
    assert np.array_equal(pixels, picture(33, 50, 1)[:16, :16])
    assert np.array_equal(mask, labels(33, 50, 1)[:16, :16])
    pixels[:] = 0  # a copy: the region stays as it is
    assert np.array_equal(data[6]["img"], picture(33, 50, 1)[:16, :16])


def test_every_pixel_is_in_one_grid_patch_and_padding_is_white_and_ignored(lab):
    data = BreastLesions(str(lab), patch_size=16)
    assert len(data) == 6 * (3 * 2 + 3 * 4)
    whole = [np.zeros((r.height, r.width, 3), np.uint8) for r in data.regions]
    truth = [np.full((r.height, r.width), 77, np.uint8) for r in data.regions]
    for sample in data:
        index, x, y = sample["region_index"], sample["patch_x"], sample["patch_y"]
        height, width = truth[index][y : y + 16, x : x + 16].shape
        assert (truth[index][y : y + 16, x : x + 16] == 77).all()
        whole[index][y : y + 16, x : x + 16] = sample["img"][:height, :width]
        truth[index][y : y + 16, x : x + 16] = sample["gt_seg_map"][:height, :width]
        sample["img"][:height, :width], sample["gt_seg_map"][:height, :width] = 255, 255
        assert (sample["img"] == 255).all() and (sample["gt_seg_map"] == 255).all()
    for number, region in enumerate(data.regions):
        assert np.array_equal(whole[number], picture(region.width, region.height, number))
        assert np.array_equal(truth[number], labels(region.width, region.height, number))
        assert np.array_equal(data.read_image(number), whole[number])
        assert np.array_equal(data.read_labels(number), truth[number])
        assert np.array_equal(data.read_truth(number), truth[number])


def test_drawn_places_depend_on_seed_epoch_and_index_alone(lab):
    make = lambda seed=5, count=300, **more: BreastLesions(  # noqa: E731
        str(lab), patch_size=12, patches_per_epoch=count, balance=0.5, seed=seed, **more
    )
    data, again, shorter = make(), make(), make(count=20)
    order = np.random.default_rng(0).permutation(300)
    there = {int(n): data[SampleIndex(n, 3)] for n in order}
    for n in range(20):
        assert same(there[n], again[SampleIndex(n, 3)]) and same(there[n], shorter[SampleIndex(n, 3)])
        assert data.get_data_info(SampleIndex(n, 3)).items() <= there[n].items()
    place = lambda sample: (sample["region_index"], sample["patch_x"], sample["patch_y"])  # noqa: E731
    for other in (make(seed=6)[SampleIndex(n, 3)] for n in range(5)), (data[SampleIndex(n, 4)] for n in range(5)):
        assert sum(place(there[n]) == place(sample) for n, sample in enumerate(other)) < 3
    for sample in there.values():
        region = data.regions[sample["region_index"]]
        x, y = sample["patch_x"], sample["patch_y"]
        assert np.array_equal(
            sample["img"], picture(region.width, region.height, sample["region_index"])[y : y + 12, x : x + 12]
        )
    assert len({place(sample) for sample in there.values()}) > 250
    assert data[SampleIndex(-1, 3)]["sample_idx"] == 299
    with pytest.raises(IndexError, match="sample 300 of 300"):
        data[300]


PIPELINE = [
    {
        "type": Albumentations,
        "transforms": [{"type": D4, "p": 1.0}, {"type": StainJitter, "p": 0.8}, {"type": "ColorJitter", "p": 0.5}],
    }
]


@pytest.mark.parametrize(("start", "workers"), [("fork", 1), ("fork", 2), ("spawn", 1)])
def test_what_is_drawn_does_not_depend_on_workers(lab, start, workers):
    data = BreastLesions(str(lab), patch_size=16, patches_per_epoch=24, balance=0.5, pipeline=PIPELINE)
    sampler = SeededSampler(data, shuffle=True, seed=1)
    sampler.set_epoch(2)
    alone = [data[index] for index in sampler]
    loader = DataLoader(data, batch_size=None, sampler=sampler, num_workers=workers, multiprocessing_context=start)
    for one, other in zip(alone, loader, strict=True):
        assert one["item"] == other["item"] and one["patch_x"] == int(other["patch_x"])
        assert np.array_equal(one["img"], np.asarray(other["img"]))
        assert np.array_equal(one["gt_seg_map"], np.asarray(other["gt_seg_map"]))


def test_files_on_disk_and_memory_give_the_same(lab):
    arguments = {"patch_size": 16, "patches_per_epoch": 50, "balance": 0.5, "subset": "train", "split": KFOLD}
    noisy = {**arguments, "label_noise": {"flip": 0.5, "boundary": 2}}
    for choice in (arguments, noisy):
        memory, files = (BreastLesions(str(lab), cache=cache, **choice) for cache in ("memory", "memmap"))
        assert all(same(memory[n], files[n]) for n in range(50))
    assert not np.array_equal(files.read_labels(0), BreastLesions(str(lab), **arguments).read_labels(0))


def test_labels_turn_with_the_image_and_what_is_ignored_stays_ignored(lab):
    write_mask(
        lab / "masks" / "00.png", np.where(picture(40, 30, 0)[..., 0] % 7 == 0, 255, picture(40, 30, 0)[..., 1] % 3)
    )
    data = BreastLesions(str(lab), patch_size=24, pipeline=[PIPELINE[0] | {"transforms": [{"type": D4, "p": 1.0}]}])
    turned = 0
    for epoch in range(40):
        sample = data[SampleIndex(0, epoch)]
        column, row = sample["img"][..., 0], sample["img"][..., 1]  # which pixel of the region each is
        assert np.array_equal(sample["gt_seg_map"], np.where(column % 7 == 0, 255, row % 3))
        turned += column[0, 0] != 0 or row[0, 0] != 0 or column[0, 1] != 1
    assert turned > 25
    jittered = BreastLesions(str(lab), patch_size=24, pipeline=PIPELINE)
    for epoch in range(10):
        values = np.unique(jittered[SampleIndex(0, epoch)]["gt_seg_map"])
        assert set(values) == {0, 1, 2, 255}


def test_jitter_moves_the_grid_by_epoch(lab):
    data = BreastLesions(str(lab), patch_size=16, jitter=True)
    assert len(data) == len(BreastLesions(str(lab), patch_size=16))
    places = {(data[SampleIndex(0, e)]["patch_x"], data[SampleIndex(0, e)]["patch_y"]) for e in range(30)}
    assert len(places) > 10 and max(max(place) for place in places) <= 8


# --- what is handed out, and what is not -----------------------------------------------------------


def test_masks_of_the_unlabelled_part_are_never_handed_out(lab):
    rest = BreastLesions(str(lab), subset="unlabelled", split=HALF, patch_size=16)
    train = BreastLesions(str(lab), subset="train", split=HALF, patch_size=16)
    whole = BreastLesions(str(lab), subset="train", split=KFOLD, patch_size=16)
    items = [{region.item for region in data.regions} for data in (rest, train, whole)]
    assert items[0] | items[1] == items[2] and not items[0] & items[1] and items[0]
    drawn = BreastLesions(str(lab), subset="unlabelled", split=HALF, patch_size=16, patches_per_epoch=30)
    for sample in [*rest, *drawn]:
        assert (sample["gt_seg_map"] == 255).all()
        assert sample["unlabelled"] is True and sample["seg_map_path"] is None and sample["loss_weight"] == 1.0
        assert not any(str(lab / "masks") in str(value) for value in sample.values())
    assert (rest.read_labels(0) == 255).all() and rest.read_labels(0).shape == rest.read_image(0).shape[:2]
    assert np.array_equal(rest.read_truth(0), np.array(Image.open(rest.regions[0].mask)))  # for the audit
    assert all(count["n_pixels"] == 0 for count in rest.describe()["per_class"].values())
    assert rest.split.digest == train.split.digest and rest.data_digest != train.data_digest


def test_regions_without_a_mask_join_the_unlabelled_part(tmp_path):
    lab = write_lab(tmp_path, patients=9, unmasked=(16, 17))  # both regions of the last patient
    rest = BreastLesions(str(lab), subset="unlabelled", split=KFOLD, patch_size=16)
    assert {region.item for region in rest.regions} == {"images/16.png", "images/17.png"}
    assert rest.read_truth(0) is None and (rest.read_labels(0) == 255).all()
    assert rest.describe()["n_without_mask"] == 2
    both = BreastLesions(str(lab), subset="unlabelled", split=HALF, patch_size=16)
    assert {"images/16.png", "images/17.png"} < {region.item for region in both.regions}
    for subset in ("train", "val", "test"):
        data = BreastLesions(str(lab), subset=subset, split=KFOLD, patch_size=16)
        assert all(region.mask is not None and region.patient != "P8" for region in data.regions)
    whole = BreastLesions(str(lab), patch_size=16)
    assert len(whole.regions) == 18 and (whole.read_labels(17) == 255).all()
    # A saved split says the same, and that one cannot be trained on.
    data.split.save(lab / "s.json")
    again = BreastLesions(str(lab), subset="unlabelled", split=str(lab / "s.json"), patch_size=16)
    assert again.data_digest == rest.data_digest
    train = next(iter(data.split.subsets["train"].items))
    edit_line(lab, int(train[-6:-4]), mask="")
    with pytest.raises(DataError, match=rf"s.json: {train} stands in 'train' but has no label: label it or split anew"):
        BreastLesions(str(lab), subset="train", split=str(lab / "s.json"))


def test_foreign_values_are_translated(lab):
    for number in range(12):
        mask = np.array(Image.open(lab / "masks" / f"{number:02d}.png"))
        write_mask(lab / "masks" / f"{number:02d}.png", np.where(mask == 1, 255, 0).astype(np.uint8))
    data = RegionSegmentation(str(lab), classes=("rest", "tumour"), value_map={0: 0, 255: 1}, patch_size=64)
    assert data.metainfo["classes"] == ("rest", "tumour")
    inside = labels(40, 30, 0)
    inside[:, -2:] = 0
    assert np.array_equal(data[0]["gt_seg_map"][:30, :40], np.where(inside == 1, 1, 0))
    assert (data[0]["gt_seg_map"][30:] == 255).all()  # padding is ignored, not tumour
    assert (
        data.data_digest
        != RegionSegmentation(str(lab), classes=("rest", "tumour"), value_map={0: 1, 255: 0}, patch_size=64).data_digest
    )


# --- splits, counts, digests -----------------------------------------------------------------------


def test_splits_keep_patients_together_and_deal_by_the_rarest_class(lab):
    for number in range(12):
        mask = np.zeros((30, 40) if number % 2 == 0 else (50, 33), np.uint8)
        mask.flat[: mask.size // 90] = (0, 1, 2)[number % 3]  # over 1 %
        mask.flat[-3:] = 2  # too few to count
        write_mask(lab / "masks" / f"{number:02d}.png", mask)
    parts = [BreastLesions(str(lab), subset=s, split=KFOLD, patch_size=16) for s in ("train", "val", "test")]
    patients = [{region.patient for region in part.regions} for part in parts]
    assert sorted(p for part in patients for p in part) == [f"P{n}" for n in range(6)]
    assert all(not part.describe()["caveats"] for part in parts)  # every class is seen, though few regions go by it
    data = BreastLesions(str(lab), subset="train", split={**HALF, "label_grouping": "image"}, patch_size=16)
    numbers = [int(region.item[-6:-4]) % 3 for region in data.regions]
    assert set(numbers) == {0, 1, 2}  # one of each kind at least


def test_counts_and_digest(lab):
    data = BreastLesions(str(lab), subset="test", split=KFOLD, patch_size=16)
    counts = data.describe()
    json.dumps(counts)
    maps = [np.array(Image.open(region.mask)) for region in data.regions]
    assert counts["n_images"] == 4 and counts["n_patients"] == 2 and counts["n_patches"] == len(data)
    assert counts["megapixels"] == round(sum(array.size for array in maps) / 1e6, 3)
    for label, name in enumerate(("normal", "benign", "malignant")):
        assert counts["per_class"][name] == {
            "n_images": 4,
            "n_patients": 2,
            "n_pixels": sum(int((array == label).sum()) for array in maps),
        }
    rows = sorted(
        [
            region.item,
            hashlib.sha256(region.image.read_bytes()).hexdigest(),
            hashlib.sha256(region.mask.read_bytes()).hexdigest(),
        ]
        for region in data.regions
    )
    assert data.data_digest == hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()
    write_mask(data.regions[0].mask, np.zeros_like(maps[0]))
    assert BreastLesions(str(lab), subset="test", split=KFOLD, patch_size=16).data_digest != data.data_digest


def test_label_noise_is_for_training_and_is_recorded(lab):
    noise = {"flip": 0.5, "swap": ["benign", "malignant"], "seed": 3}
    data = BreastLesions(str(lab), subset="train", split=KFOLD, patch_size=16, label_noise=noise)
    swapped = {item for item, what in data.noise.items() if what.swapped is not None}
    assert set(data.noise) == {region.item for region in data.regions} and len(swapped) == 2
    assert data.describe()["label_noise"] == {"n_swapped": 2, "n_shifted": 0}
    for index, region in enumerate(data.regions):
        truth = data.read_truth(index)
        wrong = np.array([0, 2, 1])[np.minimum(truth, 2)]
        expected = np.where(truth == 255, 255, wrong) if region.item in swapped else truth
        assert np.array_equal(data.read_labels(index), expected)
    assert data.data_digest != BreastLesions(str(lab), subset="train", split=KFOLD, patch_size=16).data_digest
    with pytest.raises(ConfigError, match=r"label_noise is an experiment on subset='train', not 'test'"):
        BreastLesions(str(lab), subset="test", split=KFOLD, label_noise=noise)


# --- how it is made --------------------------------------------------------------------------------


def test_it_is_built_by_its_name_and_classes_come_from_the_folder(lab):
    with pytest.raises(ConfigError, match=r"classes.json: no such file, so the classes are not known"):
        DATASETS.build({"type": "pathzoo.RegionSegmentation", "data_root": str(lab)})
    write_class_file(lab, classes=["rest", "in situ", "tumour"], colors=[[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    data = DATASETS.build({"type": "pathzoo.RegionSegmentation", "data_root": str(lab), "patch_size": 16})
    assert data.metainfo == {"classes": ("rest", "in situ", "tumour"), "palette": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}
    own = RegionSegmentation(str(lab), palette=[(9, 9, 9), (8, 8, 8), (7, 7, 7)])
    assert own.metainfo["palette"] == [[9, 9, 9], [8, 8, 8], [7, 7, 7]]


def test_the_table_may_lie_elsewhere(lab, tmp_path_factory):
    other = tmp_path_factory.mktemp("tables")
    (lab / "regions.csv").rename(other / "mine.csv")
    data = BreastLesions(str(lab), ann_file=str(other / "mine.csv"), patch_size=16)
    assert data[0]["item"] == "images/00.png" and len(data.regions) == 12
    with (other / "mine.csv").open(newline="") as file:
        rows = [[str(lab / cell) if "/" in cell else cell for cell in row] for row in csv.reader(file)]
    with (other / "absolute.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    assert len(BreastLesions(ann_file=str(other / "absolute.csv")).regions) == 12


def test_lazy_init_indices_and_subsets_choose_regions(lab):
    data = BreastLesions(str(lab), lazy_init=True, indices=2, patch_size=16)
    assert "classes" in data.metainfo and not data._fully_initialized
    assert len(data) == 18 and len(data.regions) == 2
    part = BreastLesions(str(lab), patch_size=16).get_subset([3, 0])
    assert [region.item for region in part.regions] == ["images/03.png", "images/00.png"]
    assert np.array_equal(part[0]["img"], picture(33, 50, 3)[:16, :16])
    data.get_subset_([1])
    assert data[0]["item"] == "images/01.png" and data[0]["region_index"] == 0


def test_mpp_of_the_line_or_of_all(lab):
    edit_line(lab, 2, mpp="")
    assert {region.mpp for region in BreastLesions(str(lab), mpp=0.5).regions} == {1.0, 0.5}
