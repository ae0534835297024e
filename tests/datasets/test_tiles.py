"""TileClassification: six lines of CSV to samples, and every mistake in them by what the error says."""

import hashlib
import json

import cv2
import numpy as np
import pytest
from mmengine.dataset import ClassBalancedDataset
from PIL import Image
from tile_tables import KFOLD, table, write_image

from pathzoo.datasets import TileClassification
from pathzoo.datasets.sampling import SampleIndex, mix_seed
from pathzoo.datasets.splits import SplitWarning
from pathzoo.datasets.transforms import LoadTile
from pathzoo.errors import ConfigError, DataError, LeakageError
from pathzoo.registry import DATASETS


def test_a_sample_has_what_the_contract_promises(lab):
    data = TileClassification(str(lab / "tiles.csv"))
    assert len(data) == 48 and data.metainfo["classes"] == ("normal", "tumour")
    sample = data[5]
    assert sample == {
        "img_path": str(lab / "tiles" / "05.png"),
        "item": "tiles/05.png",
        "gt_label": 1,
        "patient": "P1",
        "slide": "S1",
        "mpp": 0.5,
        "x": 500,
        "y": 7,
        "sha256": hashlib.sha256((lab / "tiles" / "05.png").read_bytes()).hexdigest(),
        "sample_idx": 5,
        "sample_seed": mix_seed(0, 0, 5),
    }


def test_it_is_built_by_its_name_and_paths_may_be_relative_to_a_root(lab):
    config = {"type": "pathzoo.TileClassification", "ann_file": "tiles.csv", "data_root": str(lab), "subset": "all"}
    assert len(DATASETS.build(config)) == 48
    (lab / "elsewhere").mkdir()
    (lab / "tiles.csv").rename(lab / "elsewhere" / "t.csv")
    data = TileClassification(str(lab / "elsewhere" / "t.csv"), data_root=str(lab))
    assert data[0]["item"] == "tiles/00.png"


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_tables_as_spreadsheets_save_them(lab, delimiter):
    text = (lab / "tiles.csv").read_text().replace(",", delimiter)
    (lab / "tiles.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert TileClassification(str(lab / "tiles.csv"))[47]["x"] == 4700


def test_optional_columns_may_be_absent_and_patients_unknown(lab):
    path = table(lab, "tiles/00.png,a,", "tiles/01.png,b,Unknown", '"tiles/02.png",a,"Meier, B"')
    data = TileClassification(path, mpp=0.25)
    assert [data[n]["patient"] for n in range(3)] == [None, None, "Meier, B"]
    assert data[0]["mpp"] == 0.25 and data[0]["slide"] is None and "x" not in data[0]
    assert data.describe()["n_unknown_patient_images"] == 2 and data.describe()["n_patients"] == 1


def test_subsets_follow_the_split_and_a_saved_one_repeats_it(lab):
    parts = {s: TileClassification(str(lab / "tiles.csv"), subset=s, split=KFOLD) for s in ("train", "val", "test")}
    patients = {name: {data[n]["patient"] for n in range(len(data))} for name, data in parts.items()}
    assert sum(map(len, parts.values())) == 48
    assert len(set().union(*patients.values())) == sum(map(len, patients.values())) == 12
    parts["train"].split.save(lab / "splits.json")
    for name, data in parts.items():
        again = TileClassification(str(lab / "tiles.csv"), subset=name, split=str(lab / "splits.json"))
        assert again.data_digest == data.data_digest
        assert again.split.digest == data.split.digest
    assert len({data.data_digest for data in parts.values()}) == 3


def test_what_belongs_beside_the_scores_is_in_the_description(lab):
    with pytest.warns(SplitWarning, match="scores are inflated"):
        data = TileClassification(str(lab / "tiles.csv"), split={"scheme": "by_image_leaky"}, subset="test")
    assert "12 patients stand on more than one side" in data.describe()["caveats"][0]
    assert TileClassification(str(lab / "tiles.csv"), split=KFOLD, subset="test").describe()["caveats"] == []


def test_describe_counts(lab):
    counts = TileClassification(str(lab / "tiles.csv"), subset="test", split=KFOLD).describe()
    assert counts["n_images"] == sum(c["n_images"] for c in counts["per_class"].values()) == 4 * counts["n_patients"]
    assert set(counts["per_class"]) == {"normal", "tumour"}
    assert counts["split"] == "patient_kfold" and counts["skipped"] == 0
    json.dumps(counts)


def test_the_digest_is_that_of_items_bytes_and_labels(lab):
    data = TileClassification(str(lab / "tiles.csv"))
    rows = [[d["item"], d["sha256"], d["gt_label"]] for d in (data[n] for n in range(48))]
    text = json.dumps(sorted(rows), separators=(",", ":"))
    assert data.data_digest == hashlib.sha256(text.encode()).hexdigest()


def test_sample_seed_depends_on_seed_epoch_and_index_only(lab):
    data = TileClassification(str(lab / "tiles.csv"), seed=7)
    assert data[SampleIndex(3, 2)]["sample_seed"] == mix_seed(7, 2, 3)
    assert type(data[SampleIndex(3, 2)]["sample_idx"]) is int
    seeds = {data[SampleIndex(n, e)]["sample_seed"] for n in range(48) for e in range(20)}
    assert len(seeds) == 48 * 20


def test_unlabelled_rest_and_class_balanced_wrapper(lab):
    split = {**KFOLD, "label_fraction": 0.25}
    train = TileClassification(str(lab / "tiles.csv"), subset="train", split=split)
    rest = TileClassification(str(lab / "tiles.csv"), subset="unlabelled", split=split)
    whole = TileClassification(str(lab / "tiles.csv"), subset="train", split=KFOLD)
    assert len(train) + len(rest) == len(whole)
    assert [train.get_cat_ids(n) for n in range(len(train))] == [[train[n]["gt_label"]] for n in range(len(train))]
    lines = [f"tiles/{n:02d}.png,{'a' if n else 'b'},P{n}" for n in range(10)]
    assert len(ClassBalancedDataset(TileClassification(table(lab, *lines)), oversample_thr=0.5)) > 10


def test_shuffled_labels_keep_the_counts_and_touch_training_only(lab):
    true, control = (
        TileClassification(str(lab / "tiles.csv"), subset="train", split=KFOLD, shuffle_labels=s) for s in (None, 1)
    )
    labels = [[data[n]["gt_label"] for n in range(len(data))] for data in (true, control)]
    assert sorted(labels[0]) == sorted(labels[1]) and labels[0] != labels[1]
    assert 0.2 < np.mean(np.array(labels[0]) == labels[1]) < 0.8
    other = TileClassification(str(lab / "tiles.csv"), subset="train", split=KFOLD, shuffle_labels=2)
    assert control.data_digest != other.data_digest
    with pytest.raises(ConfigError, match=r"shuffle_labels is a control for subset='train', not 'test'"):
        TileClassification(str(lab / "tiles.csv"), subset="test", split=KFOLD, shuffle_labels=True)


# --- mistakes in the table -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "lines", "message"),
    [
        ("path,lable,patient", [], r"own.csv:1: the column 'label' is missing; rename 'lable'"),
        ("path,label", [], r"own.csv:1: the column 'patient' is missing; the header is path, label \(it may be empty"),
        ("path,label,patient,label", [], r"own.csv:1: the column 'label' stands twice"),
        ("path,label,patient,MPP", [], r"own.csv:1: write the column 'MPP' as 'mpp'"),
        ("path,label,patient", [], "has a header but no image"),
        ("path,label,patient", ["tiles/00.png,,P1"], "own.csv:2: label is empty"),
        ("path,label,patient", ["tiles/00.png,a,P1", "tiles/01.png,a"], "own.csv:3 has 2 fields, the header 3"),
        (
            "path,label,patient",
            ["tiles/00.png,a,P", "tiles/../tiles/00.png,a,P"],
            r"own.csv:3: 'tiles/00.png' .*own.csv:2",
        ),
        (
            "path,label,patient",
            ["tiles/00.png,a,P", "", "tiles/zz.png,a,P"],
            "own.csv:4: no image file .*zz.png: correct",
        ),
        ("path,label,patient,mpp", ["tiles/00.png,a,P,0"], "own.csv:2: mpp '0' is not a positive number"),
        ("path,label,patient,mpp", ["tiles/00.png,a,P,20x"], "own.csv:2: mpp '20x' is not a positive number"),
        ("path,label,patient,mpp", ["tiles/00.png,a,P,inf"], "own.csv:2: mpp 'inf'"),
        ("path,label,patient,x", ["tiles/00.png,a,P,1.5"], "own.csv:2: x '1.5' is not a whole number"),
    ],
)
def test_a_mistake_is_one_line_with_file_line_value_and_remedy(lab, header, lines, message):
    with pytest.raises(DataError, match=message) as caught:
        TileClassification(table(lab, *lines, header=header))
    assert "\n" not in str(caught.value)


def test_empty_missing_and_binary_table(lab):
    (lab / "empty.csv").write_text("\n\n")
    with pytest.raises(DataError, match=r"empty.csv is empty: it needs a header line with path, label, patient"):
        TileClassification(str(lab / "empty.csv"))
    with pytest.raises(ConfigError, match=r"none.csv: no such table of tiles"):
        TileClassification(str(lab / "none.csv"))
    with pytest.raises(DataError, match=r"is not UTF-8 text"):
        TileClassification(str(lab / "tiles" / "00.png"))
    with pytest.raises(DataError, match=r"own.csv:\d is not CSV \(field larger than"):
        TileClassification(table(lab, "tiles/00.png,a," + "P" * 200_000))


def test_unknown_label_names_the_nearest_class(lab):
    path = table(lab, "tiles/00.png,normal,P", "tiles/01.png,tumor,P")
    with pytest.raises(DataError, match=r"own.csv:3: unknown label 'tumor'; did you mean 'tumour'"):
        TileClassification(path, classes=("normal", "tumour"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subset": "tarin"}, "subset='tarin'; did you mean 'train'"),
        ({"subset": "train"}, r"subset='train': the split \(none\) has no such subset, but all"),
        ({"on_bad_image": "ignore"}, "on_bad_image='ignore'"),
        ({"mpp": 0}, "mpp=0: give microns per pixel above 0"),
        ({"split": {"scheme": "patient"}}, "unknown scheme 'patient'"),
    ],
)
def test_wrong_arguments(lab, arguments, message):
    with pytest.raises(ConfigError, match=message):
        TileClassification(str(lab / "tiles.csv"), **arguments)


# --- damaged images --------------------------------------------------------------------------------


@pytest.fixture
def damaged(lab):
    (lab / "tiles" / "07.png").write_bytes(b"")
    whole = (lab / "tiles" / "20.png").read_bytes()
    (lab / "tiles" / "20.png").write_bytes(whole[:-30])
    return lab


def test_damaged_images_are_an_error_that_names_the_first_and_counts(damaged):
    message = r"tiles.csv:9: image .*07.png: empty file \(0 bytes\) \(and 1 more\): .*on_bad_image=\"skip\""
    with pytest.raises(DataError, match=message):
        TileClassification(str(damaged / "tiles.csv"))


def test_or_are_left_out_counted_and_named(damaged):
    data = TileClassification(str(damaged / "tiles.csv"), on_bad_image="skip", split=KFOLD)
    assert len(data) == 46 and data.describe()["skipped"] == 2
    assert [record.path[-6:] for record in data.skipped] == ["07.png", "20.png"]
    assert "truncated" in data.skipped[1].error
    assert not {"tiles/07.png", "tiles/20.png"} & {i for part in data.split.subsets.values() for i in part.items}


def test_identical_bytes_on_both_sides_are_found_from_the_files(lab):
    for n in range(0, 48, 4):
        (lab / "tiles" / f"{n:02d}.png").write_bytes((lab / "tiles" / "00.png").read_bytes())
    with pytest.raises(LeakageError, match=r"tiles/\d\d.png \(\w+\) and tiles/\d\d.png \(\w+\) hold identical bytes"):
        TileClassification(str(lab / "tiles.csv"), subset="train", split=KFOLD)


def test_changed_bytes_under_a_saved_split_are_found(lab):
    TileClassification(str(lab / "tiles.csv"), split=KFOLD).split.save(lab / "s.json")
    write_image(lab / "tiles" / "11.png", 999)
    with pytest.raises(DataError, match=r"bytes of 1 images changed since the split was saved .tiles/11.png"):
        TileClassification(str(lab / "tiles.csv"), split=str(lab / "s.json"), subset="test")


@pytest.mark.parametrize("test_mode", [False, True])
def test_no_other_image_stands_in_for_a_none(lab, test_mode):
    data = TileClassification(str(lab / "tiles.csv"), pipeline=[lambda r: None], test_mode=test_mode)
    with pytest.raises(DataError, match=r"04.png: a transform returned None"):
        data[4]


def test_damage_after_loading_names_the_file_whatever_the_pipeline_says(lab):
    def load(results):
        return cv2.imread(results["img_path"]).shape  # OpenCV gives None for a damaged file

    data = TileClassification(str(lab / "tiles.csv"), pipeline=[load])
    assert data[4] == (12, 16, 3)
    (lab / "tiles" / "04.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"04.png: empty file .* was sound when the data set was loaded"):
        data[4]


def test_a_defect_in_a_transform_is_no_data_error_but_names_the_file(lab):
    def broken(results):
        raise KeyError("no_such_key")

    with pytest.raises(RuntimeError, match=r"04.png: the pipeline failed: KeyError: 'no_such_key'") as caught:
        TileClassification(str(lab / "tiles.csv"), pipeline=[broken])[4]
    assert isinstance(caught.value.__cause__, KeyError)


def test_lazy_init_and_indices_as_in_mmengine(lab):
    data = TileClassification(str(lab / "tiles.csv"), lazy_init=True, indices=5)
    assert data.metainfo == {}
    assert len(data) == 5 and data.metainfo["classes"] == ("normal", "tumour")
    assert data.get_subset([0, 2])[1]["item"] == "tiles/02.png"
    assert list(range(len(data))) == [sample["sample_idx"] for sample in data]


def test_pictures_that_the_loader_refuses_are_found_before_training(lab):
    Image.new("I;16", (16, 12)).save(lab / "tiles" / "03.png")
    Image.new("CMYK", (16, 12)).save(lab / "tiles" / "04.jpg")
    (lab / "tiles.csv").write_text((lab / "tiles.csv").read_text().replace("tiles/04.png", "tiles/04.jpg"))
    with pytest.raises(DataError, match=r"03.png: pixels of mode I;16 .*8-bit RGB.* \(and 1 more\): .*on_bad_image"):
        TileClassification(str(lab / "tiles.csv"))
    data = TileClassification(str(lab / "tiles.csv"), on_bad_image="skip", pipeline=[LoadTile()])
    assert len(data) == 46 and [record.path[-6:] for record in data.skipped] == ["03.png", "04.jpg"]
    assert all(data[n]["img"].shape == (12, 16, 3) for n in range(46))


def test_a_split_without_validation_says_how_to_get_one(lab):
    ratios = {"scheme": "patient_ratio", "ratios": {"train": 0.5, "test": 0.5}}
    with pytest.raises(ConfigError, match=r"but train, test: give the split a share of val .*--no-validate"):
        TileClassification(str(lab / "tiles.csv"), subset="val", split=ratios)
