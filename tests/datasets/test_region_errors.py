"""Every mistake in a data set of regions, by what the error says: file, value, remedy."""

import json

import numpy as np
import pytest
from PIL import Image
from region_tables import KFOLD, edit_line, labels, picture, write_class_file, write_lab, write_mask, write_table

from pathzoo.datasets import BreastLesions, RegionSegmentation
from pathzoo.datasets.transforms import ResizeToMpp
from pathzoo.errors import ConfigError, DataError, LeakageError


@pytest.fixture
def lab(tmp_path):
    return write_lab(tmp_path)


def load(lab, **arguments):
    return BreastLesions(str(lab), **{"patch_size": 16, **arguments})


# --- masks -----------------------------------------------------------------------------------------


def test_a_value_that_is_no_class(lab):
    mask = labels(33, 50, 3)
    mask[41, 17] = 4
    write_mask(lab / "masks" / "03.png", mask)
    message = (
        r"masks/03.png: value 4 at x=17, y=41 \(1 pixels\) is no class \(0 normal, 1 benign, 2 malignant; 255 is "
        r"ignored\): correct the mask, or say what its values mean by value_map"
    )
    with pytest.raises(DataError, match=message):
        load(lab)
    with pytest.raises(DataError, match=r"masks/00.png: value 1 at x=\d+, y=\d+ .* is no class"):
        load(lab, value_map={0: 0, 2: 1})  # with a map, what it does not name may not occur


def test_sizes_that_differ(lab):
    write_mask(lab / "masks" / "02.png", labels(41, 30, 2))
    with pytest.raises(DataError, match=r"masks/02.png: 41 x 30 px, and its image .*images/02.png 40 x 30: export"):
        load(lab)


def test_files_that_are_not_there_and_files_that_are_damaged(lab):
    edit_line(lab, 4, mask="masks/4.png")
    with pytest.raises(DataError, match=r"regions.csv:6: no mask file .*masks/4.png: correct the path"):
        load(lab)
    edit_line(lab, 4, image="images/4.png")
    with pytest.raises(DataError, match=r"regions.csv:6: no image file .*images/4.png: correct the path"):
        load(lab)
    edit_line(lab, 4, mask="masks/04.png", image="images/04.png")
    for name in ("images/04.png", "masks/07.png"):
        (lab / name).write_bytes((lab / name).read_bytes()[:-15])
    with pytest.raises(DataError, match=r"regions.csv:6: image .*04.png: truncated .*on_bad_image=\"skip\""):
        load(lab)
    data = load(lab, on_bad_image="skip", split=KFOLD, subset="all")
    assert len(data.regions) == 10
    assert [record.path[len(str(lab)) :] for record in data.skipped] == ["/images/04.png", "/masks/07.png"]
    assert not {"images/04.png", "images/07.png"} & {i for part in data.split.subsets.values() for i in part.items}
    (lab / "images" / "04.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"04.png: empty file"):
        load(lab)


def test_a_mask_of_colours(lab):
    Image.fromarray(picture(40, 30, 0)).save(lab / "masks" / "00.png")
    with pytest.raises(
        DataError, match=r"mask .*masks/00.png: pixels of mode RGB are no class indices; save one 8-bit"
    ):
        load(lab)


def test_files_that_change_after_loading(lab):
    data, again = load(lab), load(lab)
    Image.fromarray(picture(40, 30, 9)).save(lab / "images" / "00.png")
    with pytest.raises(DataError, match=r"images/00.png: its bytes changed since the data set was loaded"):
        data[0]
    write_mask(lab / "masks" / "01.png", 1 - np.minimum(labels(33, 50, 1), 1))
    with pytest.raises(DataError, match=r"masks/01.png: its bytes changed"):
        data.read_labels(1)
    (lab / "images" / "02.png").unlink()
    with pytest.raises(DataError, match=r"images/02.png: cannot be read any more \(No such file"):
        again.read_image(2)


# --- labels ----------------------------------------------------------------------------------------


def test_no_labelled_region(tmp_path):
    lab = write_lab(tmp_path, unmasked=range(12))
    with pytest.raises(DataError, match=r"regions.csv: none of its 12 regions has a mask: fill the column mask"):
        load(lab, subset="train", split=KFOLD)
    assert (load(lab)[0]["gt_seg_map"] == 255).all()  # all of them, to be looked at or predicted


def test_masks_without_a_label(lab):
    for number in range(12):
        write_mask(
            lab / "masks" / f"{number:02d}.png",
            np.full_like(labels((40, 33)[number % 2], (30, 50)[number % 2], 0), 255),
        )
    with pytest.raises(DataError, match=r"no pixel of the 4 masks to train on has a label: all are 255"):
        load(lab, subset="train", split=KFOLD)


def test_the_same_region_labelled_and_unlabelled(tmp_path):
    lab = write_lab(tmp_path, unmasked=(1,))
    split = {**KFOLD, "fold": next(f for f in range(3) if _subset_of(lab, f) == "train")}
    (lab / "images" / "01.png").write_bytes((lab / "images" / "00.png").read_bytes())
    message = r"images/00.png \(labelled\) and images/01.png \(unlabelled\) hold identical bytes"
    with pytest.raises(LeakageError, match=message):
        load(lab, subset="train", split=split)


def test_unlabelled_patients_in_the_test_set(tmp_path):
    lab = write_lab(tmp_path, unmasked=(1,))
    split = {**KFOLD, "fold": next(f for f in range(3) if _subset_of(lab, f) == "test")}
    message = (
        r"images/01.png has no label, and its patient 'P0' stands in 'test' \(1 such images\): who is tested on may "
        r"not be learnt from; label them, take them off the table, or set leave_out_tested=True"
    )
    for subset in ("train", "test", "unlabelled"):
        with pytest.raises(LeakageError, match=message):
            load(lab, subset=subset, split=split)
    with pytest.warns(UserWarning, match=r"in no subset: images/01\.png$"):
        data = load(lab, subset="test", split=split, leave_out_tested=True)
    assert "images/00.png" in {region.item for region in data.regions}
    assert "images/01.png" not in {region.item for region in data.regions}
    assert not any("images/01.png" in part.items for part in data.split.subsets.values())


def _subset_of(lab, fold):
    """The subset of patient P0 in a fold, of the labelled regions alone."""
    data = BreastLesions(str(lab), split={**KFOLD, "fold": fold}, leave_out_tested=True)
    return next(name for name, part in data.split.subsets.items() if "images/00.png" in part.items)


def test_a_patient_on_both_sides_of_a_saved_split(lab):
    load(lab, split=KFOLD).split.save(lab / "s.json")
    first = next(iter(load(lab, split=KFOLD).split.subsets["test"].items))
    edit_line(lab, int(first[-6:-4]), patient=load(lab, split=KFOLD, subset="train").regions[0].patient)
    with pytest.raises(LeakageError, match=r"patient 'P\d' stands in .*: a patient belongs to one subset"):
        load(lab, subset="train", split=str(lab / "s.json"))


# --- the table and the classes ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [["image", "msk", "patient"]],
            r"regions.csv:1: the column 'mask' is missing; rename 'msk' \(it may be empty wh",
        ),
        ([["image", "mask"]], r"the column 'patient' is missing; .*\(it may be empty where not known\)"),
        ([["image", "mask", "patient", "MPP"]], "write the column 'MPP' as 'mpp'"),
        ([["image", "mask", "patient"]], "has a header but no region: add one line per region"),
        ([["image", "mask", "patient"], ["", "", "P"]], "regions.csv:2: image is empty"),
        (
            [["image", "mask", "patient"], ["a.png", "a.png", "P"]],
            r"regions.csv:2: image and mask are one file \('a.png'\)",
        ),
        (
            [["image", "mask", "patient"], ["a.png", "m.png", "P"], ["b.png", "./m.png", "P"]],
            r"regions.csv:3: the mask './m.png' stands already in .*regions.csv:2: give each image its own",
        ),
        (
            [["image", "mask", "patient"], ["a.png", "", "P"], ["x/../a.png", "", "P"]],
            r"regions.csv:3: 'a.png' stands al",
        ),
        (
            [["image", "mask", "patient", "mpp"], ["a.png", "", "P", "40x"]],
            "regions.csv:2: mpp '40x' is not a positive",
        ),
        ([["image", "mask", "patient"], ["a.png", "", "P", "2"]], "regions.csv:2 has 4 fields, the header 3"),
    ],
)
def test_a_mistake_in_the_table(tmp_path, rows, message):
    write_table(tmp_path / "regions.csv", rows)
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_table_and_an_empty_one(tmp_path):
    with pytest.raises(
        ConfigError, match=r"regions.csv: no such table of regions; give a CSV with .* image, mask, pat"
    ):
        load(tmp_path)
    (tmp_path / "regions.csv").write_text("\n")
    with pytest.raises(DataError, match="it needs a header line with image, mask, patient and one line per region"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, 'expected classes of "format": 1, found 2'),
        ({"classes": "a"}, "classes is 'a': give a list of names"),
        ({"classes": []}, r"classes is \[\]"),
        ({"classes": ["a", "a"]}, "the class 'a' stands twice"),
        ({"classes": ["a"], "colors": [[1, 2, 3]]}, "1 classes: give 2 to 254, the background among them"),
        ({"ignore_index": 0}, r"ignore_index is 0, pathzoo ignores 255: .*value_map with {0: 255}"),
        ({"colors": [[1, 2, 3]]}, r"colors is \[\[1, 2, 3\]\]: give \[r, g, b\] in 0..255 for each of 2 classes"),
        ({"colors": [[1, 2, 3], [4, 5, 256]]}, "colors is"),
    ],
)
def test_a_mistake_in_classes_json(lab, changes, message):
    write_class_file(lab, **changes)
    with pytest.raises(DataError, match=rf"classes.json: {message}"):
        RegionSegmentation(str(lab))


def test_classes_that_contradict_the_folder(lab):
    write_class_file(lab, classes=["normal", "malignant", "benign"], colors=[[1, 1, 1]] * 3)
    with pytest.raises(
        ConfigError, match=r"classes.json says that .* normal, malignant, benign, but .* normal, benign, m"
    ):
        load(lab)
    assert load(lab, value_map={0: 0, 1: 2, 2: 1})[0] is not None
    (lab / "classes.json").write_text("{")
    with pytest.raises(DataError, match=r"classes.json is not JSON \(.*\): correct or remove it"):
        load(lab)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch_size": 0}, "patch_size=0: give a whole number above 0"),
        ({"patch_size": (256, 256)}, r"patch_size=\(256, 256\)"),
        ({"patches_per_epoch": 2.5}, "patches_per_epoch=2.5"),
        ({"balance": 0.5}, r"balance=0.5 chooses drawn places .*: give patches_per_epoch"),
        ({"balance": 1.5, "patches_per_epoch": 9}, "balance=1.5: give a probability, 0 to 1"),
        ({"jitter": True, "patches_per_epoch": 9}, "jitter moves patches of the grid"),
        ({"cache": "disk"}, "cache='disk'"),
        ({"subset": "tarin"}, "subset='tarin'; did you mean 'train'"),
        ({"subset": "train"}, r"the split \(none\) has no such subset, but all"),
        ({"on_bad_image": "ignore"}, "on_bad_image='ignore'"),
        ({"mpp": 0}, "mpp=0: give microns per pixel above 0"),
        ({"classes": "benign"}, "classes='benign': give a list of names"),
        ({"classes": ("a", "a", "b")}, "the class 'a' stands twice"),
        ({"palette": [(1, 2, 3)]}, r"palette=\[\(1, 2, 3\)\]: give \(r, g, b\) of 0..255 for each of 3 classes"),
        ({"value_map": {0: 7}}, "value_map: 0 -> 7: give a class index of 0..2, or 255"),
        ({"split": {"scheme": "patient"}}, "unknown scheme 'patient'"),
        (
            {"split": KFOLD, "subset": "train", "label_noise": {"flp": 0.2}},
            "label_noise has no key 'flp'; did you mean 'fl",
        ),
        ({"split": KFOLD, "subset": "train", "label_noise": {"flip": 2}}, "label_noise: flip=2: give a share"),
        (
            {"split": KFOLD, "subset": "train", "label_noise": {"flip": 0.1, "swap": ("benign", "malignat")}},
            "no class 'malignat'; did you mean 'malignant'",
        ),
    ],
)
def test_wrong_arguments(lab, arguments, message):
    with pytest.raises(ConfigError, match=message):
        load(lab, **arguments)


def test_configs_are_checked_before_anything_is_built():
    with pytest.raises(ConfigError, match="no key 'flipp'"):
        BreastLesions.check_config({"label_noise": {"flipp": 0.2}})
    with pytest.raises(ConfigError, match="has no key 'fould'"):
        BreastLesions.check_config({"split": {"scheme": "patient_kfold", "fould": 1}})
    # What mmengine writes into a work dir for a tuple that a config has imported:
    pipeline = [{"type": "PackSegInputs", "meta_keys": "pathzoo.datasets.regions.SEG_META_KEYS"}]
    with pytest.raises(ConfigError, match=r"meta_keys='pathzoo.datasets.regions.SEG_META_KEYS': give a list of names"):
        BreastLesions.check_config({"pipeline": pipeline})


def test_a_resolution_that_the_pipeline_would_refuse(lab):
    edit_line(lab, 5, mpp="")
    with pytest.raises(DataError, match=r"images/05.png and 1 of 12 images in all have no microns per pixel"):
        load(lab, pipeline=[ResizeToMpp(mpp=2.0)])


def test_transforms_that_fail_or_give_none(lab):
    with pytest.raises(DataError, match=r"images/00.png \(patch at x=16, y=0\): a transform returned None"):
        load(lab, pipeline=[lambda results: None])[1]

    def broken(results):
        raise KeyError("no_such_key")

    with pytest.raises(RuntimeError, match=r"00.png \(patch at x=0, y=0\): the pipeline failed: KeyError") as caught:
        load(lab, pipeline=[broken])[0]
    assert isinstance(caught.value.__cause__, KeyError)
    json.dumps(str(caught.value))
