"""What drawn regions are refused for, by what the error says: region, patient or file, and remedy; and their writer."""

import csv
import json
import shutil

import numpy as np
import pytest
from drawn_tiles import SIDE, edit_record, table_rows, write_drawn
from PIL import Image
from region_tables import KFOLD, edit_line, picture, write_lab, write_table

from pathzoo.datasets import BreastLesions, RegionSegmentation, TileClassification, UnlabelledTiles
from pathzoo.datasets.drawn_regions import is_drawn, read_record
from pathzoo.datasets.drawn_regions_writer import drawn_region_writer
from pathzoo.datasets.region_table import ClassList, default_palette
from pathzoo.errors import ConfigError, DataError, LeakageError, OutputError

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


@pytest.mark.parametrize("subset", ["val", "test", "unlabelled", "all"])
def test_they_are_for_training_alone(lab, made, subset):
    with pytest.raises(LeakageError, match=rf"synthetic='.*': drawn regions are for subset='train', not '{subset}'"):
        load(lab, subset=subset, synthetic=str(made))
    with pytest.raises(LeakageError, match="are for subset='train'"):  # and before anything of a config is built
        RegionSegmentation.check_config({"subset": subset, "synthetic": str(made)})


@pytest.mark.parametrize(
    ("subset", "error"),
    [("val", LeakageError), ("test", LeakageError), ("train", ConfigError), ("all", ConfigError)],
)
def test_a_folder_of_them_is_no_data(lab, made, subset, error):
    message = r"drawn: holds drawn regions.*: give the table of real regions as data_root and ann_file, and this folder"
    for arguments in ({"data_root": str(made)}, {"data_root": str(lab), "ann_file": str(made / "regions.csv")}):
        with pytest.raises(error, match=message):
            BreastLesions(**arguments, subset=subset, split=KFOLD)


def test_a_line_of_theirs_in_a_labs_table_is_found(made, tmp_path):
    lab = write_lab(tmp_path / "lab")
    edit_line(lab, 3, image=str(made / "images" / "drawn_000000.png"), mask=str(made / "masks" / "drawn_000000.png"))
    for subset, error in (("test", LeakageError), ("train", ConfigError)):
        with pytest.raises(error, match="holds drawn regions"):
            load(lab, subset=subset)


def test_data_sets_of_other_tasks_leave_them_out(made, tmp_path):
    message = r"drawn: holds drawn regions.*: leave it out; RegionSegmentation alone takes drawn pictures"
    write_table(
        tmp_path / "tiles.csv",
        [["path", "label", "patient"], *([str(made / f"images/drawn_{n:06d}.png"), "benign", f"P{n}"] for n in (0, 1))],
    )
    for subset, error in (("test", LeakageError), ("all", ConfigError)):
        split = {"scheme": "none"} if subset == "all" else KFOLD
        with pytest.raises(error, match=message):
            TileClassification(str(tmp_path / "tiles.csv"), subset=subset, split=split)
    with pytest.raises(ConfigError, match=message):
        UnlabelledTiles([str(made / "images")], 32)


def test_real_regions_are_not_taken_for_drawn_ones(lab, tmp_path):
    with pytest.raises(ConfigError, match=r"synthetic: .*lab has no synthetic.json.*or this one as data_root"):
        load(lab, synthetic=str(lab))
    with pytest.raises(ConfigError, match=r"nowhere has no synthetic.json.*tools/synthesize.py wrote$"):
        load(lab, synthetic=str(tmp_path / "nowhere"))


def kept_out(split, subset):
    return sorted(split.subsets[subset].items)[0]


@pytest.mark.parametrize("subset", ["val", "test"])
def test_who_is_judged_on_is_refused(lab, split, trained, subset, tmp_path):
    item = kept_out(split, subset)
    patient = patient_of(lab, item)
    made = write_drawn(tmp_path / "a", lab, [trained[0], item])
    refused(lab, made, rf"images/drawn_000001.png is of patient '{patient}', who stands in '{subset}'")
    # the patient is renamed, the label map still tells
    owner = {"patient": patient_of(lab, trained[0]), "slide": None}
    made = write_drawn(tmp_path / "b", lab, [item], **owner)
    refused(lab, made, rf"drawn_000000.png has a label map of {item}, which stands in '{subset}'")
    made = write_drawn(tmp_path / "c", lab, [trained[0]], patient=patient)
    refused(lab, made, rf"drawn_000000.png is of patient '{patient}', who stands in '{subset}'")


def test_who_is_not_trained_on_is_refused(lab, trained, tmp_path):
    first, other = trained[0], next(item for item in trained if patient_of(lab, item) != patient_of(lab, trained[0]))
    made = write_drawn(tmp_path / "a", lab, [first], patient="P77")
    refused(lab, made, rf"is of patient 'P77', slide '.*', but its label map {first} of '{patient_of(lab, first)}'")
    made = write_drawn(tmp_path / "b", lab, [first], patient=patient_of(lab, other))
    refused(lab, made, r"a drawn region has those of its label map")
    made = write_drawn(tmp_path / "c", lab, [first], item="images/99.png")
    refused(lab, made, r"has a label map of images/99.png, which stands in no subset")


def test_the_bytes_of_a_region_that_is_judged_on_are_refused(lab, split, trained, tmp_path):
    item = kept_out(split, "test")
    made = write_drawn(tmp_path / "made", lab, [trained[0]], copy_of=item)
    refused(lab, made, rf"drawn_000000.png has the bytes of {item} in 'test'")


def test_another_fold_turns_training_patients_into_test_patients(lab, made):
    for fold in (1, 2):
        refused(lab, made, r"is of patient 'P\d', who stands in '(val|test)'", split={**KFOLD, "fold": fold})


def test_patients_that_a_split_by_image_scatters_are_refused(lab, tmp_path):
    split = {"scheme": "by_image_leaky", "ratios": {"train": 0.5, "val": 0.25, "test": 0.25}, "seed": 0}
    with pytest.warns(UserWarning, match="by_image_leaky"):
        data = load(lab, split=split)
    judged = {patient_of(lab, item) for name in ("val", "test") for item in data.split.subsets[name].items}
    item = next(region.item for region in data.regions if region.patient in judged)
    made = write_drawn(tmp_path / "made", lab, [item])
    refused(lab, made, r"who stands in '(val|test)'", split=split)


def refused(lab, made, text, **arguments):
    with pytest.raises(LeakageError, match=f"synthetic: .*{text}") as caught:
        load(lab, synthetic=str(made), **arguments)
    assert "draw them anew" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_classes_are_refused(lab, trained, tmp_path):
    other = ClassList(("normal", "malignant", "benign"), default_palette(3))
    made = write_drawn(tmp_path / "made", lab, [trained[0]], classes=other)
    text = "has the classes normal, malignant, benign, the real regions normal, benign, malignant"
    with pytest.raises(DataError, match=text):
        load(lab, synthetic=str(made))
    (made / "classes.json").unlink()
    with pytest.raises(DataError, match=r"has the classes none \(no classes.json\)"):
        load(lab, synthetic=str(made))


def test_another_table_is_refused(lab, trained, made, tmp_path):
    stranger = write_drawn(tmp_path / "made", lab, [trained[0]], record={"parent_table": "f" * 64})
    with pytest.raises(DataError, match=r"was made from another table \(digest ffffffffffff\) than this one"):
        load(lab, synthetic=str(stranger))
    other = write_lab(tmp_path / "other")
    assert len(load(other, synthetic=str(made)).regions) == 7  # the same regions in another place
    edit_line(other, 0, patient="P9")
    with pytest.raises(DataError, match="made from another table"):
        load(other, synthetic=str(made))


def test_files_that_are_not_as_they_were_drawn(lab, made, tmp_path):
    def spoilt(name, spoil):
        folder = tmp_path / name
        shutil.copytree(made, folder)
        spoil(folder)
        with pytest.raises(DataError) as caught:
            load(lab, synthetic=str(folder), on_bad_image="skip")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def redraw(folder):
        Image.fromarray(picture(SIDE, SIDE, 3)).save(folder / "images" / "drawn_000001.png")

    def rename(folder):
        content = json.loads((folder / "synthetic.json").read_text())
        content["items"]["images/drawn_000000.png"]["source"] = "images/11.png"
        (folder / "synthetic.json").write_text(json.dumps(content))

    def shorten(folder):
        rows = list(csv.reader((folder / "regions.csv").open(newline="")))
        write_table(folder / "regions.csv", rows[:-1])

    def unmask(folder):
        edit_line(folder, 0, mask="")

    image, mask = "images/drawn_000001.png", "masks/drawn_000002.png"
    assert f"{image}: not the bytes that were drawn" in spoilt("redrawn", redraw)
    assert f"{image}: no such file" in spoilt("gone", lambda folder: (folder / image).unlink())
    assert f"{mask}: truncated" in spoilt("cut", lambda f: (f / mask).write_bytes((f / mask).read_bytes()[:-9]))
    assert "was changed after it was written" in spoilt("renamed", rename)
    assert "stands in one of" in spoilt("shortened", shorten)
    assert "has no mask" in spoilt("unmasked", unmask)
    assert "is not JSON" in spoilt("text", lambda folder: (folder / "synthetic.json").write_text("{"))
    assert "no drawn regions of format 1" in spoilt("newer", lambda folder: edit_record(folder, format=2))


def test_a_resolution_that_is_not_the_real_ones_is_refused(lab, trained, tmp_path):
    from pathzoo.datasets.transforms import ResizeToMpp

    made = write_drawn(tmp_path / "made", lab, [trained[0]], mpp=None)
    with pytest.raises(DataError, match=r"drawn_000000\.png and 1 of 5 images in all have no microns per pixel"):
        load(lab, synthetic=str(made), pipeline=[ResizeToMpp(mpp=1.0)])


# --- the writer ------------------------------------------------------------------------------------


def test_what_is_written_is_a_labs_table_with_its_record(lab, made, trained):
    assert is_drawn(made) and not is_drawn(lab)
    names = sorted(path.name for path in made.iterdir())
    assert names == ["classes.json", "images", "masks", "regions.csv", "synthetic.json"]
    rows = table_rows(made)
    assert [row["image"] for row in rows] == sorted(row["image"] for row in rows)
    assert [row["patient"] for row in rows] == [patient_of(lab, trained[index]) for index in (1, 0, 1)]
    assert list(rows[0]) == ["image", "mask", "patient", "slide", "mpp"]
    record = read_record(made)
    assert record["items"]["images/drawn_000002.png"]["source"] == trained[1]
    mask = Image.open(made / "masks" / "drawn_000000.png")
    assert mask.mode == "P"
    assert mask.getpalette()[3:6] == list(CLASSES.palette[1])


def test_it_appears_whole_or_not_at_all(lab, trained, made, tmp_path, monkeypatch):
    region = load(lab).regions[0]
    tile, mask = picture(SIDE, SIDE, 0), np.zeros((SIDE, SIDE), np.uint8)
    with pytest.raises(KeyError), drawn_region_writer(tmp_path / "made", CLASSES, {}) as writer:
        writer.add(tile, mask, region, 0, 0)
        raise KeyError
    for wrong, text in (
        ((tile[..., 0], mask), "give RGB uint8"),
        ((tile.astype(float), mask), "give RGB uint8"),
        ((tile, mask[1:]), "a label map of uint8"),
        ((tile, mask + 3), "label 3; the classes are 0 to 2"),
    ):
        with pytest.raises(DataError, match=text), drawn_region_writer(tmp_path / "made", CLASSES, {}) as writer:
            writer.add(*wrong, region, 0, 0)
    with pytest.raises(DataError, match="no region was drawn"), drawn_region_writer(tmp_path / "made", CLASSES, {}):
        pass

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pathzoo.datasets.drawn_regions_writer.write_picture", full)
        with (
            pytest.raises(OutputError, match=r"made: cannot be written \(No space left on device\); nothing was left"),
            drawn_region_writer(tmp_path / "made", CLASSES, {}) as writer,
        ):
            writer.add(tile, mask, region, 0, 0)
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputError, match="exists already"), drawn_region_writer(made, CLASSES, {}):
        pass
    with (
        pytest.raises(ConfigError, match="holds no drawn regions, so it is not replaced"),
        drawn_region_writer(lab, CLASSES, {}, overwrite=True),
    ):
        pass
    shutil.copytree(made, tmp_path / "made")
    with drawn_region_writer(tmp_path / "made", CLASSES, {}, overwrite=True) as writer:
        writer.add(tile, mask, region, 0, 0)
    assert len(table_rows(tmp_path / "made")) == 1
