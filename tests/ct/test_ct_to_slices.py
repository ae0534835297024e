"""The converter: volumes, series and pictures into a store."""

import csv
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ct_files import SHAPE, SPACING, volume, write_case, write_pictures, write_series
from slice_command import convert, held, refused

from pathzoo.ct.store import SliceStore
from pathzoo.datasets.splits import Split


def test_kits19_becomes_a_store_split_by_patient(kits, tmp_path, capsys):
    root, made = kits
    assert convert("kits19", root, tmp_path / "s") == 0
    text = capsys.readouterr().out
    store = SliceStore(tmp_path / "s")
    store.verify()
    assert store.source == "kits19" and store.known_range is None and not store.phantom and store.size == (6, 5)
    slices = held(store)
    assert set(slices) == {f"{case}/{number:04d}" for case in made for number in range(SHAPE[0])}
    for case, (hu, labels) in made.items():
        assert len({slices[f"{case}/{number:04d}"][0] for number in range(SHAPE[0])}) == 1, "a patient on one side"
        for number in range(SHAPE[0]):
            _, image, label = slices[f"{case}/{number:04d}"]
            assert (image == hu[number]).all() and (label == labels[number]).all()
    assert [store.counts[name]["patients"] for name in ("train", "val", "test")] == [7, 2, 1]
    patients = [{record.patient for record in store.records(name)} for name in store.subsets]
    assert sum(map(len, patients)) == len(set().union(*patients)) == 10
    record = store.records("train")[1]
    assert np.allclose(record.spacing, SPACING[1:]) and abs(record.position - (-137)) < 1e-4
    assert text.splitlines()[0].split() == ["subset", "cases", "patients", "slices", "with", "kidney", "with", "tumour"]
    assert text.splitlines()[4].split() == ["all", "10", "10", "40", "20", "5"]


def test_the_split_is_one_of_pathzoos_and_names_the_stored_bytes(kits, tmp_path):
    convert("kits19", kits[0], tmp_path / "s", "--seed", 3)
    folder = tmp_path / "s"
    split = Split.load(folder / "splits.json")
    assert split.scheme == "patient_ratio" and split.seed == 3 and split.classes == ("background", "kidney", "tumour")
    for subset, part in split.subsets.items():
        images, labels = (np.load(folder / subset / f"{name}.npy") for name in ("images", "labels"))
        with (folder / subset / "index.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(images) == len(labels) == len(part.items)
        for row, image, label in zip(rows, images, labels, strict=True):
            sha256 = hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest()
            assert part.items[row["item"]] == row["sha256"] == sha256
            assert (int(row["kidney"]), int(row["tumour"])) == ((label == 1).sum(), (label == 2).sum())
        assert part.groups == tuple(sorted({row["patient"] for row in rows}))


def test_the_same_source_and_seed_give_the_same_store(kits, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 5)):
        assert convert("kits19", kits[0], tmp_path / name, "--seed", seed) == 0
    one, two, other = (SliceStore(tmp_path / name) for name in "abc")
    assert one.digest == two.digest != other.digest
    assert convert("kits19", kits[0], tmp_path / "a", "--seed", 5, "--overwrite") == 0
    assert SliceStore(tmp_path / "a").digest == other.digest


def test_a_patient_with_two_cases_stays_on_one_side(kits, tmp_path):
    root, made = kits
    table = tmp_path / "p.csv"
    table.write_text("case,patient\n" + "".join(f"{case},P{number // 2}\n" for number, case in enumerate(sorted(made))))
    assert convert("kits19", root, tmp_path / "s", "--patients", table, "--ratios", 0.6, 0.2, 0.2) == 0
    store = SliceStore(tmp_path / "s")
    patients = [{record.patient for record in store.records(name)} for name in store.subsets]
    assert sum(map(len, patients)) == len(set().union(*patients)) == 5


def test_a_table_says_whose_dicom_series_are_where_patient_ids_do_not(tmp_path, capsys):
    for number in range(6):
        write_series(tmp_path / "d" / f"f{number}", number, patient=f"visit {number}")
    table, ratios = tmp_path / "p.csv", ("--ratios", 0.4, 0.3, 0.3)
    table.write_text("case,patient\nseries_0,P\n")
    text = refused(capsys, "dicom", tmp_path / "d", tmp_path / "s", "--patients", table, *ratios)
    assert "has no line for the case series_" in text and f"of {tmp_path / 'd' / 'f'}" in text, "the folder tells which"
    assert convert("dicom", tmp_path / "d", tmp_path / "by_id", *ratios) == 0
    cases = sorted({item.split("/")[0] for item in held(SliceStore(tmp_path / "by_id"))})
    table.write_text("case,patient\n" + "".join(f"{case},P{number // 2}\n" for number, case in enumerate(cases)))
    assert convert("dicom", tmp_path / "d", tmp_path / "s", "--patients", table, *ratios) == 0
    store = SliceStore(tmp_path / "s")
    whose = {record.case: record.patient for name in store.subsets for record in store.records(name)}
    assert whose == {case: f"P{number // 2}" for number, case in enumerate(cases)}
    assert {own["patients"] for own in store.counts.values()} == {1}


def test_slices_may_be_chosen(kits, tmp_path):
    root, _ = kits
    assert convert("kits19", root, tmp_path / "every", "--every", 2) == 0
    assert {item[-4:] for item in held(SliceStore(tmp_path / "every"))} == {"0000", "0002"}
    assert convert("kits19", root, tmp_path / "labelled", "--only-labelled") == 0
    assert {item[-4:] for item in held(SliceStore(tmp_path / "labelled"))} == {"0001", "0002"}
    for name in ("some", "again"):
        assert convert("kits19", root, tmp_path / name, "--only-labelled", "--background-rate", 0.5) == 0
    some = held(SliceStore(tmp_path / "some"))
    assert 20 + 3 < len(some) < 40 - 3 and some.keys() == held(SliceStore(tmp_path / "again")).keys()
    assert convert("kits19", root, tmp_path / "all", "--only-labelled", "--background-rate", 1) == 0
    assert len(held(SliceStore(tmp_path / "all"))) == 40


def test_other_sizes_are_cropped_or_padded_and_counted(kits, tmp_path, capsys):
    root, _ = kits
    hu, labels = volume(77, (4, 9, 4))
    write_case(root, "case_00050", hu=hu, labels=labels)
    assert convert("kits19", root, tmp_path / "s") == 0
    text = capsys.readouterr().out
    assert "1 of 11 cases centre-cropped or padded with air to 6 x 5 px, first case_00050" in text
    assert "the crop to 6 x 5 px cuts kidney or tumour off 2 slices" in text
    _, image, label = held(SliceStore(tmp_path / "s"))["case_00050/0001"]
    assert (image[:, 1:5] == hu[1, 2:7]).all() and (image[:, [0, 5]] == -1024).all()
    assert (label[:, 1:5] == labels[1, 2:7]).all() and (label[:, [0, 5]] == 0).all()


def test_slices_are_resampled(kits, tmp_path):
    root, made = kits
    assert convert("kits19", root, tmp_path / "mm", "--pixel-spacing", 0.4) == 0
    store = SliceStore(tmp_path / "mm")
    assert store.size == (round(6 * 0.7 / 0.4), 10)
    row, column = store.records("train")[0].spacing
    assert abs(row - 0.4) < 1e-6 and abs(column - 0.42) < 1e-6 and abs(column * store.size[0] - 6 * 0.7) < 1e-5
    assert convert("kits19", root, tmp_path / "half", "--resize", "--size", 3, 5) == 0
    _, image, _ = held(SliceStore(tmp_path / "half"))["case_00003/0002"]
    means = made["case_00003"][0][2].reshape(5, 3, 2).mean(2)
    assert np.abs(image - means).max() <= 0.51
    assert np.allclose(SliceStore(tmp_path / "half").records("train")[0].spacing, (0.8, 1.4))


def test_dicom_becomes_a_store_by_patient_id(tmp_path, capsys):
    made = [write_series(tmp_path / "d" / f"f{n}", n, patient=f"Doe^{n // 2}") for n in range(6)]
    assert convert("dicom", tmp_path / "d", tmp_path / "s", "--ratios", 0.4, 0.3, 0.3) == 0
    store = SliceStore(tmp_path / "s")
    store.verify()
    assert store.source == "dicom" and {own["patients"] for own in store.counts.values()} == {1}
    stored = {item: image.tobytes() for item, (_, image, _) in held(store).items()}
    assert set(stored.values()) == {plane.tobytes() for hu, _ in made for plane in hu}
    assert "Doe" in (tmp_path / "s" / "train" / "index.csv").read_text()
    assert "Doe" not in (tmp_path / "s" / "store.json").read_text()


def test_pseudonyms_leave_no_patient_or_case_in_the_store(tmp_path):
    for number in range(4):
        write_series(tmp_path / "d" / f"f{number}", number, patient=f"Doe^{number}")
    for name in ("a", "b"):
        words = ("--ratios", 0.5, 0.25, 0.25, "--pseudonyms", tmp_path / "lab.key")
        assert convert("dicom", tmp_path / "d", tmp_path / name, *words) == 0
    texts = [path.read_text() for path in (tmp_path / "a").rglob("*") if path.suffix in (".json", ".csv")]
    assert len(texts) == 5 and not any("Doe" in text or "series_" in text for text in texts)
    assert SliceStore(tmp_path / "a").digest == SliceStore(tmp_path / "b").digest
    assert SliceStore(tmp_path / "a").split.subsets["train"].groups[0].startswith("patient-")


def test_pictures_become_a_store_that_knows_its_range(tmp_path):
    made = {f"case_{n:05d}": write_pictures(tmp_path, f"case_{n:05d}", (5, 60), n) for n in range(5)}
    words = ("--labels", tmp_path / "labels", "--known-range", -160, 240)
    assert convert("pictures", tmp_path / "images", tmp_path / "s", *words) == 0
    store = SliceStore(tmp_path / "s")
    store.verify()
    assert store.known_range == (-160.0, 240.0) and store.source == "pictures"
    slices = held(store)
    for case, pictures in made.items():
        for number, (picture, label) in pictures.items():
            _, image, kept = slices[f"{case}/{number:04d}"]
            assert np.abs(image - (-160 + picture / 255 * 400)).max() <= 0.5 + 1e-9 and (kept == label).all()
    record = store.records("train")[0]
    assert record.position is None and record.spacing is None
    assert convert("pictures", tmp_path / "images", tmp_path / "p", *words, "--size", 8, 8) == 0
    assert held(SliceStore(tmp_path / "p"))["case_00000/0005"][1].min() == -160, "padded with the lowest known HU"


def test_a_phantom_is_known_as_one(kits, tmp_path):
    root, _ = kits
    (root / "phantom.json").write_text("{}")
    assert convert("kits19", root, tmp_path / "s") == 0
    assert SliceStore(tmp_path / "s").phantom


def test_blank_slices_are_left_out_and_said(kits, tmp_path, capsys):
    root, made = kits
    for case in ("case_00000", "case_00001"):
        hu, labels = made[case]
        hu[3] = -1024
        write_case(root, case, hu=hu, labels=labels)
    assert convert("kits19", root, tmp_path / "s") == 0
    assert "2 slices of one value throughout, without a label, left out, first case_00000/0003" in (
        capsys.readouterr().out
    )
    store = SliceStore(tmp_path / "s")
    store.verify()
    assert len(store) == 38


def test_the_phantom_becomes_a_store_like_kits19(tmp_path):
    from pathzoo.datasets.phantom.ct import write_ct

    write_ct(tmp_path / "p", seed=0, patients=4, size=(64, 64), slices=12)
    assert convert("kits19", tmp_path / "p", tmp_path / "s", "--ratios", 0.5, 0.25, 0.25) == 0
    store = SliceStore(tmp_path / "s")
    store.verify()
    assert store.phantom and sum(own["patients"] for own in store.counts.values()) == 4
    assert all(own["kidney"] for own in store.counts.values())


def test_help_reads_no_image_library():
    tool = Path(__file__).parents[2] / "tools" / "dataset_converters" / "ct_to_slices.py"
    code = (
        f"import runpy, sys\nsys.argv = ['x', '--help']\ntry: runpy.run_path({str(tool)!r}, run_name='__main__')\n"
        "except SystemExit: pass\nassert not {'numpy', 'nibabel', 'pydicom', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.real
def test_the_real_volumes_and_pictures_become_stores(real_data, tmp_path, capsys):
    folder = real_data / "kidney_ct"
    for case, stem in (("case_0", "ct_3mm"), ("case_1", "ct_sm_3mm")):
        (tmp_path / "ts" / case).mkdir(parents=True)
        source = folder / "totalsegmentator"
        (tmp_path / "ts" / case / "imaging.nii.gz").symlink_to(source / f"{stem}.nii.gz")
        (tmp_path / "ts" / case / "segmentation.nii.gz").symlink_to(source / f"{stem}_totalsegmentator_labels.nii.gz")
    words = ("--label-map", "2=1", "3=1", "other=0")
    text = refused(capsys, "kits19", tmp_path / "ts", tmp_path / "s", *words, "--ratios", 0.5, 0, 0.5)
    assert "case_1 is a copy of case_0" in text, "the small volume was cut from the large one"
    assert convert("kits19", tmp_path / "ts" / "case_0", tmp_path / "s", *words, "--ratios", 1, 0, 0) == 0
    store = SliceStore(tmp_path / "s")
    store.verify()
    kidney = np.concatenate([image[label == 1] for _, image, label in held(store).values()])
    assert store.counts["train"]["kidney"] == 39 and 0 < np.median(kidney) < 300
    # The liver, 40 to 200 HU, lies on the picture's left in the upper slices.
    upper = store.image("train", 105)
    soft = (upper > 40) & (upper < 200)
    assert soft[:, :61].sum() > 1.3 * soft[:, 61:].sum()
    words = ("--labels", folder / "kits19" / "labels", "--known-range", 0, 255, "--manifest", folder / "manifest.csv")
    assert convert("pictures", folder / "kits19" / "images", tmp_path / "p", *words) == 0
    store = SliceStore(tmp_path / "p")
    store.verify()
    assert len(store) == 63 and sum(own["patients"] for own in store.counts.values()) == 27
