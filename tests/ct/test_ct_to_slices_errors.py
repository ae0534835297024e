"""The converter on bad input: one clear line, and nothing written."""

import errno

import numpy as np
import pytest
from ct_files import AFFINE, SHAPE, write_case, write_pictures, write_series
from slice_command import convert, refused

from pathzoo.ct import store_writer
from pathzoo.ct.store import SliceStore


def test_a_volume_under_two_names_is_refused(kits, tmp_path, capsys):
    root, made = kits
    write_case(root, "case_00099", hu=made["case_00002"][0], labels=made["case_00002"][1])
    text = refused(capsys, "kits19", root, tmp_path / "s")
    assert "has the same pixels as case_00002/0000, so case_00099 is a copy of case_00002: remove one" in text


def test_a_volume_without_a_kidney_is_refused_unless_allowed(kits, tmp_path, capsys):
    root, made = kits
    write_case(root, "case_00004", hu=made["case_00004"][0], labels=np.zeros(SHAPE, np.uint8))
    text = refused(capsys, "kits19", root, tmp_path / "s")
    assert "no voxel of case_00004 is labelled kidney" in text and "--allow-no-kidney" in text
    assert convert("kits19", root, tmp_path / "s", "--allow-no-kidney") == 0


def test_a_store_that_is_there_is_told_of_before_volumes_are_read(kits, tmp_path, capsys, monkeypatch):
    (tmp_path / "s").mkdir()
    monkeypatch.setattr("pathzoo.ct.nifti.NiftiCase.read", lambda self, with_hu: pytest.fail("a volume was read"))
    assert "exists already" in refused(capsys, "kits19", kits[0], tmp_path / "s")
    assert "is not a store of slices" in refused(capsys, "kits19", kits[0], tmp_path / "s", "--overwrite")


def test_damage_that_shows_late_leaves_nothing(kits, tmp_path, capsys):
    root, _ = kits
    path = root / "case_00009" / "imaging.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])
    assert "case_00009/imaging.nii.gz: truncated or damaged NIfTI" in refused(capsys, "kits19", root, tmp_path / "s")


def test_a_full_disk_leaves_nothing_and_keeps_the_old_store(kits, tmp_path, capsys, monkeypatch):
    root, _ = kits
    assert convert("kits19", root, tmp_path / "s") == 0
    capsys.readouterr()
    digest = SliceStore(tmp_path / "s").digest
    write = store_writer.SubsetFiles.write
    written = []

    def full(self, image, label, line):
        written.append(line)
        if len(written) > 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, image, label, line)

    monkeypatch.setattr(store_writer.SubsetFiles, "write", full)
    text = refused(capsys, "kits19", root, tmp_path / "s", "--overwrite")
    assert "cannot be written (No space left on device)" in text
    assert SliceStore(tmp_path / "s").digest == digest


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--ratios", 0.5, 0.5, 0.5), "ratios"),
        (("--ratios", 1, 0, 0, "--size", 0, 5), "--size (0, 5)"),
        (("--every", 0), "--every 0"),
        (("--pixel-spacing", -1), "--pixel-spacing -1.0"),
        (("--pixel-spacing", "inf"), "--pixel-spacing inf: give mm, 0.01 to 100"),
        (("--pixel-spacing", 1e-9), "--pixel-spacing 1e-09"),
        (("--pixel-spacing", 1, "--resize"), "not with --resize"),
        (("--background-rate", 0.5), "--only-labelled"),
        (("--background-rate", 2, "--only-labelled"), "0..1"),
        (("--label-map", "2"), "--label-map '2'"),
        (("--labels", "x"), "--labels does not go with --kits19, but with --pictures"),
        (("--known-range", 0, 255), "--known-range does not go with --kits19"),
        (("--patients", "no.csv"), "no.csv: no such table of cases"),
    ],
)
def test_bad_arguments(kits, tmp_path, capsys, words, text):
    assert text in refused(capsys, "kits19", kits[0], tmp_path / "s", *words)


def test_pseudonyms_do_not_hide_a_patient_under_two_names(tmp_path, capsys):
    for number, patient in enumerate(("P-7", "p_007", "Q", "R")):
        write_series(tmp_path / "d" / f"f{number}", number, patient=patient)
    words = ("--pseudonyms", tmp_path / "lab.key", "--ratios", 0.5, 0.25, 0.25)
    text = refused(capsys, "dicom", tmp_path / "d", tmp_path / "s", *words)
    assert "'P-7' and 'p_007' differ in case, separators or leading zeros alone" in text and "--patients" in text
    assert not (tmp_path / "lab.key").exists()


def test_what_does_not_fit_a_source(tmp_path, capsys):
    assert "--pictures needs --labels too" in refused(capsys, "pictures", tmp_path, tmp_path / "s")
    assert "--pictures needs --known-range too" in refused(
        capsys, "pictures", tmp_path, tmp_path / "s", "--labels", tmp_path
    )
    write_pictures(tmp_path, "c", (1, 2))
    words = ("--labels", tmp_path / "labels", "--known-range", 0, 255)
    text = refused(capsys, "pictures", tmp_path / "images", tmp_path / "s", *words)
    assert "3 patient-disjoint subsets need as many patients" in text
    text = refused(capsys, "pictures", tmp_path / "images", tmp_path / "s", *words, "--pixel-spacing", 1)
    assert "--pixel-spacing: a source states no spacing: give it by --spacing Z Y X" in text
    write_case(tmp_path / "k", "c", affine=AFFINE)
    text = refused(
        capsys, "kits19", tmp_path / "k", tmp_path / "s", "--ratios", 1, 0, 0, "--every", 9, "--only-labelled"
    )
    assert "no slice to store" in text
