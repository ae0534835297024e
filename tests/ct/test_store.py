"""The slice store: read by plain numpy, held to its digests, whole or not there."""

import csv
import hashlib
import json
import pickle

import numpy as np
import pytest
from small_slice_store import SUBSETS, H, W, build, pixels, sha, slices, split

from pathzoo.ct import subset_files
from pathzoo.ct.store import SliceStore
from pathzoo.ct.store_writer import slice_store_writer
from pathzoo.datasets.splits import Split, Subset
from pathzoo.errors import DataError


def test_a_store_gives_back_what_was_written(tmp_path):
    store = build(tmp_path / "new" / "store", known_range=(0, 255), phantom=True)
    assert store.size == (W, H) and store.subsets == ("train", "test") and len(store) == 5
    assert store.classes == ("background", "kidney", "tumour") and store.known_range == (0.0, 255.0) and store.phantom
    assert store.source == "kits19" and store.synthetic is None and store.split.digest == split().digest
    for subset, seed, item, patient in slices():
        number = int(item[-4:])
        image, label = pixels(seed)
        record = store.records(subset)[number]
        assert (store.image(subset, number) == image).all() and (store.label(subset, number) == label).all()
        assert (record.item, record.patient, record.slice, record.sha256) == (item, patient, number, sha(seed))
        assert record.position == -3.5 * number and record.spacing == (0.8, 0.75) and record.source is None
        assert (record.kidney, record.tumour) == ((label == 1).sum(), (label == 2).sum())
    assert store.counts["train"] == {"n": 3, "patients": 1, "kidney": 3, "tumour": 3}
    store.verify()
    assert not store.image("train", 0).flags.writeable and type(store.image("train", 0)) is np.ndarray
    assert store.image("train", 0).dtype == np.int16 and store.label("train", 0).dtype == np.uint8
    assert [path.name for path in store.folder.parent.iterdir()] == ["store"], "no temporary folder is left"


def test_its_files_are_read_by_numpy_and_csv_alone(tmp_path):
    folder = build(tmp_path / "s").folder
    for subset, count in SUBSETS.items():
        images = np.load(folder / subset / "images.npy", mmap_mode="r")
        labels = np.load(folder / subset / "labels.npy", mmap_mode="r")
        assert images.dtype == "<i2" and images.shape == labels.shape == (count, H, W) and labels.dtype == np.uint8
        seeds = [seed for name, seed, _, _ in slices() if name == subset]
        assert all((images[i] == pixels(seed)[0]).all() for i, seed in enumerate(seeds))
        with (folder / subset / "index.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["sha256"] for row in rows] == [sha(seed) for seed in seeds]
        head = (folder / subset / "index.csv").read_text().splitlines()[0]
        assert head == "item,patient,case,slice,position,spacing_row,spacing_column,kidney,tumour,source,sha256"
    content = json.loads((folder / "store.json").read_text())
    digest = content.pop("digest")
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == digest == SliceStore(folder).digest
    index = (folder / "train" / "index.csv").read_bytes()
    assert content["subsets"]["train"]["digest"] == hashlib.sha256(index).hexdigest()


@pytest.mark.parametrize("n", [0, 1, 63, 10**6, 10**15])
def test_the_head_of_an_array_is_what_numpy_reads(tmp_path, n):
    import io

    file = io.BytesIO(subset_files.npy_head("<i2", (n, 512, 512)))
    assert np.lib.format.read_magic(file) == (1, 0)
    assert np.lib.format.read_array_header_1_0(file) == ((n, 512, 512), False, np.dtype("<i2"))
    assert file.tell() == 128


def test_a_store_survives_pickling_and_holds_no_pixels_in_the_pickle(tmp_path):
    store = build(tmp_path / "s")
    store.image("train", 0)
    data = pickle.dumps(store)
    assert len(data) < 500
    again = pickle.loads(data)
    assert (again.image("test", 1) == store.image("test", 1)).all() and again.digest == store.digest


def test_the_digest_depends_on_what_is_known_and_not_on_where_it_lies(tmp_path):
    one, two = build(tmp_path / "a"), build(tmp_path / "b")
    assert one.digest == two.digest
    assert build(tmp_path / "c", known_range=(0, 255)).digest != one.digest


def test_synthetic_slices_need_no_split_but_a_patient_and_a_source(tmp_path):
    image, label = pixels(1)
    about = {"generator": "abc", "seed": 3}
    options = {"size": (W, H), "source": "synthetic", "synthetic": about}
    with slice_store_writer(tmp_path / "s", **options) as writer:
        keys = {"case": "c", "slice": 0}
        writer.add("train", image, label, item="synthetic/0", patient="P1", source="c/0000", **keys)
        with pytest.raises(DataError, match=r"synthetic/1: a synthetic slice needs the patient"):
            writer.add("train", image, label, item="synthetic/1", patient=None, source="c/0000", **keys)
    store = SliceStore(tmp_path / "s")
    assert store.synthetic == about and store.split is None and store.records("train")[0].source == "c/0000"
    assert store.records("train")[0].position is None and store.records("train")[0].spacing is None
    store.verify()


def test_damage_is_found_and_named(tmp_path):
    store = build(tmp_path / "s")
    path = store.folder / "test" / "labels.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"test test_case/0001: its pixels are not those that were stored"):
        SliceStore(store.folder).verify()
    again = SliceStore(store.folder)
    assert (again.checked("test", 0)[0] == again.image("test", 0)).all()
    for _ in range(2):  # once is not enough
        with pytest.raises(DataError, match=r"test test_case/0001: its pixels are not those that were stored"):
            again.checked("test", 1)
    path.write_bytes(data[:-1])
    with pytest.raises(DataError, match=r"labels\.npy: cannot be read"):
        SliceStore(store.folder)
    path.unlink()
    with pytest.raises(DataError, match=r"labels\.npy: missing"):
        SliceStore(store.folder)


def test_changed_tables_are_refused(tmp_path):
    folder = build(tmp_path / "s").folder
    index = folder / "train" / "index.csv"
    index.write_text(index.read_text().replace("P train", "P other"))
    with pytest.raises(DataError, match=r"train/index\.csv: changed since the store was built"):
        SliceStore(folder).records("train")
    store = build(tmp_path / "t")
    Split("none", {"all": Subset({"x": "y"})}, store.classes).save(store.folder / "splits.json")
    with pytest.raises(DataError, match=r"splits\.json: does not name the slices"):
        store.verify()
    path = store.folder / "store.json"
    path.write_text(path.read_text().replace('"phantom": false', '"phantom": true'))
    with pytest.raises(DataError, match=r"store\.json: changed since"):
        SliceStore(store.folder)
