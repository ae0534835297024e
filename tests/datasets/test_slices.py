"""SliceSegmentation: what it hands out, and what it refuses to train or judge on."""

import json
import pickle

import numpy as np
import pytest
from slice_stores import CLASSES, COHORT, draw_slice, write_slices, write_synthetic

from pathzoo.apis.run_record import data_record
from pathzoo.ct.store import SliceStore
from pathzoo.datasets import SliceSegmentation
from pathzoo.datasets.leakage import refuse_overlap
from pathzoo.datasets.sampling import SampleIndex
from pathzoo.datasets.slice_checks import split_item
from pathzoo.datasets.slices import SLICE_META_KEYS
from pathzoo.datasets.split_caveats import caveats
from pathzoo.datasets.transforms import HUWindow
from pathzoo.errors import ConfigError, DataError, LeakageError
from pathzoo.zoo.training_record import TrainRun

WINDOW = [{"type": HUWindow, "centre": 0.0, "width": 400.0}]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_slices(tmp_path_factory.mktemp("real") / "store")


@pytest.fixture(scope="module")
def made(store, tmp_path_factory):
    return write_synthetic(tmp_path_factory.mktemp("made") / "store", store)


def test_a_sample_is_the_slice_as_it_was_stored(store):
    data = SliceSegmentation(str(store), "val")
    assert len(data) == 3
    for number, sample in enumerate(data):
        image, label = draw_slice(f"case_P4/{number:04d}", (24, 16), number)
        np.testing.assert_array_equal(sample["img"], image)
        np.testing.assert_array_equal(sample["gt_seg_map"], label)
        assert (sample["img"].dtype, sample["gt_seg_map"].dtype) == (np.int16, np.uint8)
        wanted = {"item": f"case_P4/{number:04d}", "patient": "P4", "case": "case_P4", "slide": "case_P4"}
        wanted |= {"subset": "val", "store": str(store), "slice_index": number, "region_index": number}
        wanted |= {"img_path": f"{store}/val#{number}", "seg_map_path": None, "sample_idx": number, "mpp": None}
        wanted |= {"img_shape": (16, 24), "ori_shape": (16, 24), "patch_x": 0, "patch_y": 0, "spacing": (0.8, 0.8)}
        wanted |= {"hu_known_range": None, "synthetic": False, "unlabelled": False, "loss_weight": 1.0}
        assert {key: sample[key] for key in wanted} == wanted
        assert sample["label_pixels"] == tuple((label == value).sum() for value in range(3))


def test_a_transform_may_write_into_a_sample_and_the_store_keeps_its_values(store):
    data = SliceSegmentation(str(store), "val")
    data[1]["img"][:] = 7
    data[1]["gt_seg_map"][:] = 0
    SliceStore(store).verify()
    np.testing.assert_array_equal(data[1]["img"], draw_slice("case_P4/0001", (24, 16), 1)[0])


def test_pixels_that_were_changed_are_not_handed_out(tmp_path):
    folder = write_slices(tmp_path / "store")
    images = np.load(folder / "val" / "images.npy", mmap_mode="r+")
    images[1, 0, 0] += 1
    images.flush()
    data = SliceSegmentation(str(folder), "val")
    assert data[0]["item"] == "case_P4/0000"
    with pytest.raises(DataError, match=r"store: val case_P4/0001: its pixels are not those that were stored: copy"):
        data[1]


def test_subsets_are_the_stores_and_all_is_all_of_them(store):
    found = {name: {info["patient"] for info in _infos(store, name)} for name in ("train", "val", "test")}
    assert found == {name: set(patients) for name, patients in COHORT.items()}
    assert len(infos := _infos(store, "all")) == 21
    assert {(info["subset"], info["patient"]) for info in infos} == {(n, p) for n, ps in COHORT.items() for p in ps}


def test_what_a_sample_draws_depends_on_seed_epoch_and_index(store):
    data, other = (SliceSegmentation(str(store), "train", seed=seed) for seed in (1, 2))
    seeds = [data.get_data_info(SampleIndex(2, epoch))["sample_seed"] for epoch in (0, 1, 1)]
    assert seeds[0] != seeds[1] == seeds[2]
    assert data.get_data_info(2)["sample_seed"] == seeds[0] != data.get_data_info(3)["sample_seed"]
    assert other.get_data_info(2)["sample_seed"] != seeds[0]
    assert data[SampleIndex(2, 1)]["sample_seed"] == seeds[1]
    assert data.draws_by_epoch


def test_a_worker_reads_the_same_and_a_part_keeps_its_places(store):
    data = SliceSegmentation(str(store), "train", pipeline=WINDOW)
    again = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(again[5]["img"], data[5]["img"])
    part = data.get_subset([5, 1])
    assert [sample["slice_index"] for sample in part] == [5, 1]
    assert [sample["region_index"] for sample in part] == [0, 1]
    assert part.describe()["n_images"] == 2
    assert len(SliceSegmentation(str(store), "train", indices=4)) == 4


def test_only_labelled_leaves_empty_slices_out(store):
    data = SliceSegmentation(str(store), "train", only_labelled=True)
    assert [sample["slice_index"] for sample in data] == [1, 2, 4, 5, 7, 8, 10, 11]
    assert all(sample["gt_seg_map"].any() for sample in data)


def test_synthetic_slices_join_training_and_say_so(store, made):
    data = SliceSegmentation(str(store), "train", synthetic=str(made))
    assert [sample["synthetic"] for sample in data] == [False] * 12 + [True] * 3
    sample = data[13]
    image, label = draw_slice("made 1", (24, 16), 2)
    np.testing.assert_array_equal(sample["img"], image)
    np.testing.assert_array_equal(sample["gt_seg_map"], label)
    wanted = {"item": "synthetic/0001", "patient": "P1", "store": str(made), "subset": "train", "slice_index": 1}
    assert {key: sample[key] for key in wanted} == wanted
    assert sample["region_index"] == 13


def test_some_synthetic_slices_are_chosen_by_the_seed_alone(store, tmp_path):
    made = write_synthetic(tmp_path / "made", store, tuple(("P0", f"{n % 2 + 1:04d}") for n in range(20)))

    def chosen(count, seed):
        data = SliceSegmentation(str(store), "train", synthetic=str(made), synthetic_count=count, seed=seed)
        return [info["item"] for info in map(data.get_data_info, range(12, len(data)))]

    assert chosen(5, 0) == chosen(9, 0)[:5]
    assert set(chosen(5, 0)) != set(chosen(5, 1))
    assert len(set(chosen(20, 0))) == 20
    with pytest.raises(ConfigError, match=r"synthetic_count=21: .* holds 20 slices: give at most as many"):
        chosen(21, 0)
    for wrong in (0, -1, True, 2.0):
        with pytest.raises(ConfigError, match=r"synthetic_count=.*: give a whole number above 0"):
            chosen(wrong, 0)
    with pytest.raises(ConfigError, match="give synthetic=FOLDER too"):
        SliceSegmentation(str(store), "train", synthetic_count=5)


def test_counts_say_how_many_slices_show_a_class_and_how_many_are_synthetic(store, made):
    counts = SliceSegmentation(str(store), "train", synthetic=str(made)).describe()
    wanted = {"subset": "train", "n_images": 15, "n_synthetic": 3, "n_patients": 4, "n_cases": 4, "phantom": True}
    assert {key: counts[key] for key in wanted} == wanted
    shown = {
        name: (own["n_images"], own["n_synthetic"], own["n_patients"]) for name, own in counts["per_class"].items()
    }
    assert shown == {"background": (15, 3, 4), "kidney": (11, 3, 4), "tumour": (6, 2, 4)}
    label = draw_slice("", (24, 16), 2)[1]
    assert counts["per_class"]["tumour"]["n_pixels"] == 6 * (label == 2).sum()
    assert sum(own["n_pixels"] for own in counts["per_class"].values()) == 15 * 24 * 16
    text = " ".join(counts["caveats"])
    assert "3 of 15 slices are synthetic" in text
    assert "phantom" in text
    assert counts["split_digest"] == SliceStore(store).split.digest


def test_no_class_is_missing_where_every_slice_shows_a_tumour(store):
    real = SliceStore(store)
    items = [split_item(record) for name in real.subsets for record in real.records(name) if record.tumour]
    assert items and caveats(real.split, items) == [], "there is background beside every tumour"


def test_real_slices_are_not_called_a_phantoms_and_an_unnamed_parent_is_told(store, tmp_path):
    real = write_slices(tmp_path / "real", phantom=False)
    data = SliceSegmentation(str(real), "train")
    assert not data.synthetic
    assert not any("phantom" in text or "synthetic" in text for text in data.describe()["caveats"])
    nameless = write_synthetic(tmp_path / "nameless", real, record={"generator": "x"})
    data = SliceSegmentation(str(real), "train", synthetic=str(nameless))
    assert any("does not say from which store" in text for text in data.describe()["caveats"])


def test_the_record_of_a_run_holds_what_publishing_asks_for(store, made):
    data = SliceSegmentation(str(store), "train", synthetic=str(made))
    record = json.loads(json.dumps(data_record(data)))
    assert record["synthetic"] is True
    assert record["digest"] == data.data_digest
    assert record["split"]["digest"] == SliceStore(store).split.digest
    run = TrainRun.model_validate({"model": {}, "model_input": {}, "classes": list(CLASSES), "data": record})
    per_class = {"background": 15, "kidney": 11, "tumour": 6}
    wanted = {"images": 15, "patients": 4, "unknown_patient_images": 0, "per_class": per_class}
    assert run.counts() == {"train": wanted}


def test_the_digest_changes_with_the_slices_and_with_nothing_else(store, made, tmp_path):
    plain = SliceSegmentation(str(store), "train").data_digest
    assert SliceSegmentation(str(store), "train", pipeline=WINDOW, seed=5).data_digest == plain
    assert SliceSegmentation(str(write_slices(tmp_path / "copy")), "train").data_digest == plain
    others = ({"synthetic": made}, {"only_labelled": True})
    assert len({plain, *(SliceSegmentation(str(store), "train", **more).data_digest for more in others)}) == 3


def test_the_split_keeps_a_model_from_being_judged_on_what_it_learnt_from(store):
    split = SliceSegmentation(str(store), "train").split
    refuse_overlap(split, _infos(store, "val"), "val", "splits.json")
    with pytest.raises(LeakageError, match="patient 'P0'"):
        refuse_overlap(split, _infos(store, "train"), "test", "splits.json")


@pytest.mark.parametrize("subset", ["val", "test", "all"])
def test_synthetic_slices_are_for_training_alone(store, made, subset):
    with pytest.raises(LeakageError, match=rf"synthetic='.*': synthetic slices are for subset='train', not '{subset}'"):
        SliceSegmentation(str(store), subset, synthetic=str(made))
    with pytest.raises(LeakageError, match="are for subset='train'"):  # and before anything of a config is built
        SliceSegmentation.check_config({"subset": subset, "synthetic": str(made)})


@pytest.mark.parametrize(("subset", "error"), [("val", LeakageError), ("test", LeakageError), ("train", ConfigError)])
def test_a_store_of_synthetic_slices_is_no_data_root(made, subset, error):
    with pytest.raises(
        error, match=r"holds synthetic slices.*give the store of real slices as data_root, and this one"
    ):
        SliceSegmentation(str(made), subset)


def test_real_slices_are_not_taken_for_synthetic_ones(store):
    with pytest.raises(ConfigError, match=r"synthetic: .* holds real slices"):
        SliceSegmentation(str(store), "train", synthetic=str(store))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"made_from": (("P0", "0001"), ("P4", "0001"))}, "synthetic/0001 is of patient 'P4', which stands in 'val'"),
        ({"made_from": (("P5", "0001"),)}, "synthetic/0000 is of patient 'P5', which stands in 'test'"),
        ({"patient": "P77"}, "synthetic/0000 is of patient 'P77', which stands in no subset"),
        (
            {"made_from": (("P4", "0001"),), "patient": "P0"},
            "synthetic/0000 has the label map of case_P4/0001, which stands in 'val'",
        ),
        ({"made_from": (("P0", "0009"),)}, "has the label map of case_P0/0009, which stands in no subset"),
        ({"made_from": (("P0", "0001"),), "patient": "P1"}, "its label map case_P0/0001 of 'P0'"),
        ({"copy_of": "case_P5/0002"}, "synthetic/0000 has the bytes of case_P5/0002 in 'test'"),
        ({"subset": "val"}, "has the subset 'val': synthetic slices are for training alone"),
    ],
)
def test_synthetic_slices_of_who_is_judged_on_are_refused(store, tmp_path, settings, text):
    made = write_synthetic(tmp_path / "made", store, **settings)
    with pytest.raises(LeakageError, match=text) as caught:
        SliceSegmentation(str(store), "train", synthetic=str(made))
    assert "ynthesize" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"size": (24, 24)}, "has slices of 24 x 24 px, .* slices of 24 x 16 px: synthesize them anew"),
        ({"classes": ("background", "kidney", "cyst")}, "has the classes background, kidney, cyst, .* tumour: synth"),
        ({"known_range": (-200, 200)}, "HU are known from -200 to 200 alone in .*, whole in .*one HUWindow that fits"),
        ({"record": {"parent_store": "f" * 64}}, r"was made from another store \(digest ffffffffffff\)"),
    ],
)
def test_synthetic_slices_of_another_kind_are_refused(store, tmp_path, settings, text):
    made = write_synthetic(tmp_path / "made", store, **settings)
    with pytest.raises(DataError, match=f"synthetic: .*{text}"):
        SliceSegmentation(str(store), "train", synthetic=str(made))


def test_a_generator_that_knows_its_window_alone_serves_slices_seen_through_it(store, tmp_path):
    made = write_synthetic(tmp_path / "made", store, known_range=(-200, 200))
    data = SliceSegmentation(str(store), "train", synthetic=str(made), pipeline=WINDOW)
    assert [sample["hu_known_range"] for sample in data] == [None] * 12 + [(-200, 200)] * 3
    wider = [{"type": HUWindow, "centre": 50.0, "width": 400.0}]
    with pytest.raises(
        ConfigError, match=r"made: its HU are known from -200 to 200 alone, .* shows -150 to 250; the wid"
    ):
        SliceSegmentation(str(store), "train", synthetic=str(made), pipeline=wider)
    known = write_slices(tmp_path / "known", known_range=(0, 255))
    whole = write_synthetic(tmp_path / "whole", known, known_range=None)
    inside = [{"type": HUWindow, "centre": 100.0, "width": 200.0}]
    with pytest.raises(DataError, match=r"HU are known whole in .*whole, from 0 to 255 alone in"):
        SliceSegmentation(str(known), "train", synthetic=str(whole), pipeline=inside)


def test_a_known_range_that_the_window_misses_by_rounding_alone_fits(tmp_path):
    """Centre and width give 400.30000000000007 for 400.3."""
    known = write_slices(tmp_path / "known", known_range=(-299.9, 400.3))
    step = HUWindow((400.3 - 299.9) / 2, 400.3 + 299.9)
    assert step.bounds[1] != 400.3
    made = write_synthetic(tmp_path / "made", known, known_range=step.bounds)
    given = [{"type": HUWindow, "centre": step.centre, "width": step.width}]
    assert len(SliceSegmentation(str(known), "train", synthetic=str(made), pipeline=given)) == 12 + 3


def test_a_window_beyond_what_a_store_holds_is_refused_when_it_is_opened(tmp_path):
    known = write_slices(tmp_path / "known", known_range=(0, 255))
    with pytest.raises(ConfigError, match=r"known: its HU are known from 0 to 255 alone.*centre 127.5 and width 255"):
        SliceSegmentation(str(known), "test", pipeline=WINDOW)
    fitting = [{"type": HUWindow, "centre": 127.5, "width": 255.0}]
    assert SliceSegmentation(str(known), "test", pipeline=fitting)[0]["hu_window"] == (0.0, 255.0)


@pytest.mark.parametrize("group_key", ["patient", "image"])
def test_a_patient_on_two_sides_of_a_store_is_refused(tmp_path, group_key):
    cohort = {"train": ("P0", "P1"), "val": ("P2",)}
    folder = write_slices(tmp_path / "store", cohort=cohort, group_key=group_key, renamed={"P2": "P1"})
    with pytest.raises(
        LeakageError, match=r"patient 'P1' stands in train .*and in val.*: a patient belongs to one subset"
    ):
        SliceSegmentation(str(folder), "train")


def test_identical_slices_on_two_sides_are_refused(tmp_path):
    folder = write_slices(tmp_path / "store", same=("case_P0/0001", "case_P5/0001"))
    with pytest.raises(LeakageError, match=r"case_P0/0001 \(train\) and case_P5/0001 \(test\) hold identical bytes"):
        SliceSegmentation(str(folder), "train")


def test_unknown_subsets_and_no_slices_are_refused(store, tmp_path):
    with pytest.raises(ConfigError, match="subset='tran'; did you mean 'train'"):
        SliceSegmentation(str(store), "tran")
    with pytest.raises(ConfigError, match="has no such subset, but train, val, test"):
        SliceSegmentation(str(store), "unlabelled")
    with pytest.raises(ConfigError, match="no such store of slices"):
        SliceSegmentation(str(tmp_path / "nowhere"), "train")
    empty = write_slices(tmp_path / "empty", each=1)
    with pytest.raises(DataError, match="the subset 'val' holds no slice that shows kidney or tumour"):
        SliceSegmentation(str(empty), "val", only_labelled=True)
    with pytest.raises(ConfigError, match=r"metainfo: classes a, b; .* has background, kidney, tumour"):
        SliceSegmentation(str(store), "val", metainfo={"classes": ("a", "b")})


def test_the_keys_to_pack_are_all_there_and_no_text_is_taken_for_them(store):
    sample = SliceSegmentation(str(store), "val", pipeline=WINDOW)[0]
    assert [key for key in SLICE_META_KEYS if key not in sample] == []
    with pytest.raises(ConfigError, match="give a list of names, those of SLICE_META_KEYS"):
        SliceSegmentation.check_config({"pipeline": [{"type": "PackSegInputs", "meta_keys": "item"}]})


def _infos(store, subset):
    data = SliceSegmentation(str(store), subset)
    return [data.get_data_info(index) for index in range(len(data))]
