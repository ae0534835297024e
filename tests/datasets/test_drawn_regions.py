"""Drawn regions in a data set of regions: they join training, are told apart, and are refused everywhere else."""

import json
import pickle
import shutil

import numpy as np
import pytest
from drawn_tiles import SIDE, table_rows, write_drawn
from region_tables import KFOLD, labels, picture, write_class_file, write_lab, write_mask

from pathzoo.apis.run_record import data_record
from pathzoo.datasets import BreastLesions, PseudoLabelled, RegionSegmentation
from pathzoo.datasets.drawn_regions_writer import drawn_region_writer
from pathzoo.datasets.region_table import ClassList, default_palette
from pathzoo.errors import DataError, LeakageError
from pathzoo.zoo.training_record import TrainRun

CLASSES = ClassList(("normal", "benign", "malignant"), default_palette(3))


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return write_lab(tmp_path_factory.mktemp("lab") / "lab")


@pytest.fixture(scope="module")
def split(lab):
    return BreastLesions(str(lab), split=KFOLD).split


@pytest.fixture(scope="module")
def trained(split):
    """Items of the training subset."""
    return sorted(split.subsets["train"].items)


@pytest.fixture(scope="module")
def made(lab, trained, tmp_path_factory):
    return write_drawn(tmp_path_factory.mktemp("made") / "drawn", lab, [trained[1], trained[0], trained[1]])


def load(lab, **arguments):
    return BreastLesions(str(lab), **{"subset": "train", "split": KFOLD, "patch_size": SIDE, **arguments})


def patient_of(lab, item):
    return next(row["patient"] for row in table_rows(lab) if row["image"] == item)


def test_they_join_training_with_their_own_pictures_and_labels(lab, made, trained):
    data = load(lab, synthetic=str(made))
    assert [region.source for region in data.regions] == [None] * 4 + [trained[1], trained[0], trained[1]]
    assert [region.item for region in data.regions[4:]] == [f"images/drawn_{n:06d}.png" for n in range(3)]
    sample = data[len(data) - 2]
    np.testing.assert_array_equal(sample["img"], picture(SIDE, SIDE, 101))
    number = int(trained[0][-6:-4])
    np.testing.assert_array_equal(sample["gt_seg_map"], labels(*((40, 30), (33, 50))[number % 2], number)[:SIDE, :SIDE])
    about = {"item": "images/drawn_000001.png", "patient": patient_of(lab, trained[0]), "mpp": 1.0, "region_index": 5}
    assert {key: sample[key] for key in about} == about
    assert sample["slide"] == data.regions[0].slide
    again = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(again[len(again) - 2]["img"], sample["img"])
    assert len(load(lab, synthetic=str(made), indices=5).regions) == 5


def test_drawn_places_lie_on_them_too(lab, made):
    data = load(lab, synthetic=str(made), patches_per_epoch=200, balance=0.5)
    drawn = [data.get_data_info(index)["region_index"] >= 4 for index in range(200)]
    assert 5 < sum(drawn) < 150
    assert len(data) == len(load(lab, patches_per_epoch=200, balance=0.5)) == 200  # equally many steps in every arm


def test_the_split_keeps_real_regions_only_and_does_not_change(lab, made, tmp_path):
    data = load(lab, synthetic=str(made))
    assert data.split.digest == load(lab).split.digest
    data.split.save(tmp_path / "splits.json")
    assert "drawn" not in (tmp_path / "splits.json").read_text()
    assert len(load(lab, split=str(tmp_path / "splits.json"), synthetic=str(made)).regions) == 7


def test_they_are_counted_and_said(lab, made):
    plain, data = load(lab), load(lab, synthetic=str(made))
    counts = data.describe()
    assert (plain.describe()["n_synthetic"], counts["n_synthetic"], counts["n_images"]) == (0, 3, 7)
    assert counts["n_patients"] == plain.describe()["n_patients"]
    tiles = [data.read_labels(index) for index in (4, 5, 6)]
    for label, name in enumerate(CLASSES.classes):
        own = counts["per_class"][name]
        assert own["n_synthetic"] == sum(bool((tile == label).any()) for tile in tiles)
        before = plain.describe()["per_class"][name]
        assert own["n_pixels"] == before["n_pixels"] + sum(int((tile == label).sum()) for tile in tiles)
        assert "n_synthetic" not in before
    assert "3 of 7 regions are synthetic: a network drew them from label maps" in counts["caveats"]
    assert not any("synthetic" in text for text in plain.describe()["caveats"])


def test_what_their_record_says_of_the_generator_goes_along(lab, trained, tmp_path):
    said = {
        "parent_table": load(lab).table_digest,
        "generator_caveats": ["g@1.0.0 may have seen anybody"],
    }
    made = write_drawn(tmp_path / "drawn", lab, trained[:1], record=said)
    counts, text = load(lab, synthetic=str(made)).describe(), said["generator_caveats"][0]
    assert text in counts["caveats"] and counts["generator_caveats"] == [text]
    assert text not in load(lab).describe()["caveats"] and "generator_caveats" not in load(lab).describe()


def test_those_of_another_split_are_refused_whoever_they_show(lab, trained, tmp_path):
    """Their label maps may all be trained on here: the generator was trained on others too, or on more labels."""
    said, other = (
        {"parent_table": load(lab).table_digest, "split": load(lab).split.digest},
        {**KFOLD, "label_fraction": 0.5},
    )
    both = sorted(set(trained) & set(load(lab, split=other).split.subsets["train"].items))
    made = write_drawn(tmp_path / "drawn", lab, both[:1], record=said)
    assert load(lab, synthetic=str(made)).describe()["n_synthetic"] == 1
    with pytest.raises(LeakageError, match=r"drawn under another split .* may have seen who is tested on here"):
        load(lab, split=other, synthetic=str(made))


def test_the_digest_tells_them(lab, made, trained, tmp_path):
    plain, data = load(lab), load(lab, synthetic=str(made))
    fewer = write_drawn(tmp_path / "drawn", lab, [trained[1], trained[0]])
    digests = {plain.data_digest, data.data_digest, load(lab, synthetic=str(fewer)).data_digest}
    assert len(digests) == 3
    shutil.copytree(made, tmp_path / "copy")
    assert load(lab, synthetic=str(tmp_path / "copy")).data_digest == data.data_digest
    assert plain.table_digest == data.table_digest == load(lab, subset="val").table_digest


def test_the_record_of_a_run_holds_what_publishing_asks_for(lab, made):
    record = json.loads(json.dumps(data_record(load(lab, synthetic=str(made)))))
    assert record["synthetic"] is False  # no phantom; what a network drew of patients' maps stands in the counts
    assert record["counts"]["n_synthetic"] == 3
    run = TrainRun.model_validate({"model": {}, "model_input": {}, "classes": list(CLASSES.classes), "data": record})
    assert run.counts()["train"]["images"] == 7


def test_masks_hold_classes_whatever_a_value_map_says_of_the_real_ones(tmp_path):
    lab = write_lab(tmp_path / "lab")
    for number in range(12):
        width, height = ((40, 30), (33, 50))[number % 2]
        mask = labels(width, height, number)
        write_mask(
            lab / "masks" / f"{number:02d}.png",
            np.where(mask == 255, 255, np.array([7, 9, 5])[mask % 3]).astype(np.uint8),
        )
    mapped = {7: 0, 9: 1, 5: 2}
    data = load(lab, value_map=mapped)
    source = data.regions[0]
    with drawn_region_writer(tmp_path / "made", CLASSES, {"parent_table": data.table_digest}) as writer:
        writer.add(picture(SIDE, SIDE, 1), data.read_labels(0)[:SIDE, :SIDE].copy(), source, 0, 0)
    both = load(lab, value_map=mapped, synthetic=str(tmp_path / "made"))
    np.testing.assert_array_equal(both.read_labels(4), both.read_labels(0)[:SIDE, :SIDE])
    np.testing.assert_array_equal(both.read_truth(4), both.read_labels(4))
    with pytest.raises(DataError, match="made from another table"):  # whose values mean something else
        load(lab, value_map={7: 1, 9: 0, 5: 2}, synthetic=str(tmp_path / "made"))


def test_label_noise_is_not_for_them(lab, made):
    noise = {"flip": 1.0, "swap": ("benign", "malignant")}
    data = load(lab, synthetic=str(made), label_noise=noise)
    clean = load(lab, synthetic=str(made))
    assert data.describe()["label_noise"]["n_swapped"] == 4
    for index in (4, 5, 6):
        np.testing.assert_array_equal(data.read_labels(index), clean.read_labels(index))
    assert not np.array_equal(data.read_labels(0), clean.read_labels(0))


def test_they_join_the_labelled_part_beside_unlabelled_regions(lab, tmp_path):
    half = {**KFOLD, "label_fraction": 0.5}
    first = load(lab, split=half).regions[0].item
    made = write_drawn(tmp_path / "made", lab, [first])
    data = PseudoLabelled(
        {"type": BreastLesions, "data_root": str(lab), "subset": "train", "split": half, "patch_size": SIDE}
        | {"synthetic": str(made)},
        {"type": BreastLesions, "data_root": str(lab), "subset": "unlabelled", "split": half, "patch_size": SIDE},
        patches_per_epoch=8,
    )
    assert data.describe()["n_synthetic"] == 1
    hidden = load(lab, split=half, subset="unlabelled").regions[0].item
    stolen = write_drawn(tmp_path / "stolen", lab, [hidden])
    with pytest.raises(LeakageError, match=rf"has a label map of {hidden}, which stands in 'unlabelled'"):
        load(lab, split=half, synthetic=str(stolen))  # a label that this arm does not have


def test_classes_of_a_lab_of_its_own(tmp_path):
    lab = write_lab(tmp_path / "lab")
    for number in range(12):
        width, height = ((40, 30), (33, 50))[number % 2]
        write_mask(lab / "masks" / f"{number:02d}.png", np.minimum(labels(width, height, number), 1))
    write_class_file(lab)
    data = RegionSegmentation(str(lab), subset="train", split=KFOLD, patch_size=SIDE)
    own = ClassList(("rest", "tumour"), default_palette(2))
    with drawn_region_writer(tmp_path / "made", own, {"parent_table": data.table_digest}) as writer:
        writer.add(picture(SIDE, SIDE, 1), np.ones((SIDE, SIDE), np.uint8), data.regions[0], 0, 0)
    both = RegionSegmentation(str(lab), subset="train", split=KFOLD, patch_size=SIDE, synthetic=str(tmp_path / "made"))
    assert both.describe()["per_class"]["tumour"]["n_synthetic"] == 1
