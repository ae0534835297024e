"""What training reads: labels back as written, and every folder that is not this run's refused in one line."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from self_training_fakes import SILENT, FakePseudoLabelled, TinySegmentor, plan_of

from pathzoo.engine.self_training import PseudoLabelFolder, make_round
from pathzoo.engine.self_training.pictures import file_name, read_values, write_grey, write_labels
from pathzoo.errors import DataError


@pytest.fixture
def made(tmp_path):
    """A data set and the folder of its first round."""
    dataset = FakePseudoLabelled(tmp_path / "data")
    return dataset, make_round(plan_of(tmp_path / "run", dataset), TinySegmentor().eval(), SILENT)


def _refused(match, work):
    with pytest.raises(DataError, match=match) as refused:
        work()
    assert "\n" not in str(refused.value)


def test_every_value_comes_back(tmp_path):
    values = np.arange(256, dtype=np.uint8).reshape(8, 32)
    for write in (lambda path: write_labels(path, values, [(1, 2, 3)] * 3), lambda path: write_grey(path, values)):
        digest = write(tmp_path / "a.png")
        np.testing.assert_array_equal(read_values(tmp_path / "a.png", digest, (32, 8), "-"), values)
        np.testing.assert_array_equal(np.array(Image.open(tmp_path / "a.png")), values)


def test_its_own_run_takes_it(made):
    dataset, folder = made
    PseudoLabelFolder(folder.path).check(dataset, "a" * 32)
    folder.check(dataset)
    part = dataset.unlabelled  # alone, too
    folder.check(part)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data + b"x"])
def test_truncated_or_changed_labels_are_named_with_a_remedy(made, damage):
    dataset, folder = made
    item = dataset.unlabelled.regions[1].item
    path = folder.path / "labels" / f"{file_name(item)}.png"
    path.write_bytes(damage(path.read_bytes()))
    _refused(rf"{path.name}: truncated or changed.*restore it, or remove .*round_01", lambda: folder.read(item))


def test_missing_labels_are_named_with_a_remedy(made):
    dataset, folder = made
    item = dataset.unlabelled.regions[1].item
    path = folder.path / "labels" / f"{file_name(item)}.png"
    path.unlink()
    _refused(rf"{path.name}: cannot be read \(No such file.*epoch_4\.pth", lambda: folder.read(item))


def test_unknown_item_is_named(made):
    _refused("no pseudo-label for 'images/else.png', but for 5 other", lambda: made[1].read("images/else.png"))


def test_another_run_split_classes_or_image_is_refused(made):
    dataset, folder = made
    _refused(r"another run \(id a{12}, this one is b{12}\)", lambda: folder.check(dataset, "b" * 32))

    dataset.split = SimpleNamespace(digest="6" * 64)
    _refused(r"another split \(digest 5{12}, now 6{12}\)", lambda: folder.check(dataset))
    dataset.split = SimpleNamespace(digest="5" * 64)

    dataset.metainfo = {"classes": ("rest", "tumour")}
    _refused(r"for the classes normal, benign, malignant; the data has rest, tumour", lambda: folder.check(dataset))
    dataset.metainfo = dataset.labelled.metainfo

    regions = dataset.unlabelled.regions
    changed = SimpleNamespace(**{**vars(regions[0]), "sha256": "0" * 64})
    dataset.unlabelled.regions = (changed, *regions[1:])
    _refused(rf"{regions[0].image.name}: changed since .*round_01 was labelled", lambda: folder.check(dataset))

    dataset.unlabelled.regions = (*regions, SimpleNamespace(**{**vars(regions[0]), "item": "images/new.png"}))
    _refused(r"no pseudo-label for 'images/new\.png'", lambda: folder.check(dataset))


def test_folders_that_are_no_whole_round_are_refused(made, tmp_path):
    _, folder = made
    path = folder.path / "provenance.json"
    text = path.read_text()
    _refused("no such folder", lambda: PseudoLabelFolder(tmp_path / "none"))
    path.write_text(text[:100])
    _refused(r"provenance\.json: no provenance", lambda: PseudoLabelFolder(folder.path))
    path.write_text("[]")
    _refused("found 'list'", lambda: PseudoLabelFolder(folder.path))
    path.write_text(json.dumps(json.loads(text) | {"format": 2}))
    _refused("format 1, found 2", lambda: PseudoLabelFolder(folder.path))
    content = json.loads(text)
    del content["split"]
    path.write_text(json.dumps(content))
    _refused("'split' is missing", lambda: PseudoLabelFolder(folder.path))
    path.unlink()
    _refused(r"unfinished round \(no provenance", lambda: PseudoLabelFolder(folder.path))
