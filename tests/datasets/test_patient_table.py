"""Whose slides and pictures are, from a table: nobody is guessed, and what does not fit is said."""

import pytest

from pathzoo.datasets.patient_table import state_patients
from pathzoo.errors import DataError


def info(path, patient=None, slide=None):
    return {"img_path": f"/lab/{path}", "item": path, "patient": patient, "slide": slide}


def table(folder, *lines):
    (folder / "p.csv").write_text("\n".join(["slide,patient", *lines]) + "\n")
    return folder / "p.csv"


def patients(infos):
    return [one["patient"] for one in infos]


def test_files_are_known_by_name_with_or_without_ending_and_by_slide(tmp_path):
    tiles = [info("deep/t1.png", slide="S9"), info("t2.png", slide="S9")]
    infos = [info("a.svs"), info("S1.2.tif"), *tiles, info("b.png")]
    lines = ("a,P1", "S1.2,P2", "S9,P3", "sub/b.png,P1")  # without folders, as other converters read it
    assert state_patients(infos, table(tmp_path, *lines)) == []
    assert patients(infos) == ["P1", "P2", "P3", "P3", "P1"]


def test_what_a_source_says_itself_stays(tmp_path):
    infos = [info("a.svs", "P1"), info("b.svs", "P2"), info("c.svs")]
    assert state_patients(infos, table(tmp_path, "a,P1", "c,P3")) == []
    assert patients(infos) == ["P1", "P2", "P3"]
    with pytest.raises(DataError, match=r"p\.csv: a\.svs is of patient 'P7', and of 'P1' by its source"):
        state_patients([info("a.svs", "P1")], table(tmp_path, "a,P7"))


def test_files_and_lines_without_each_other_are_told_of(tmp_path):
    infos = [info(f"{name}.svs") for name in "abcdefgh"]
    path = table(tmp_path, "a,P1", "b,", "c,unknown", "x,P8", "y.svs,P9")
    missing, unused = state_patients(infos, path)
    assert patients(infos) == ["P1"] + [None] * 7
    assert missing == f"warning: patient unknown for 7 files (b.svs, c.svs, d.svs, e.svs, f.svs, ...): {path} has none"
    assert unused == f"warning: {path}: 2 names are none of the sources' files or slides (x, y.svs)"


@pytest.mark.parametrize(
    ("infos", "lines", "message"),
    [
        ([info("a/0.png"), info("b/0.png")], ["0,P1"], r"0 names several files, first /lab/a/0\.png and /lab/b/0\.png"),
        ([info("a/0.png"), info("b/0.png")], ["a/0.png,P1"], r"0\.png names several files"),
        ([info("a.tif")], ["a,P1", "a.tif,P2"], r"a\.tif has patient 'P2', and a 'P1'"),
        ([info("t.png", slide="S1")], ["t,P1", "S1,P2"], r"t\.png is of patients 'P1' and 'P2'"),
        ([info("a.svs"), info("b.svs")], ["x,P1", "y,P1"], r"none of its 2 names \(x, y\) is .* called like a\.svs"),
        ([info("a.svs")], [], r"none of its 0 names"),
        ([info("a.svs")], ["a,P1", "a,P2"], "line 3: slide a has patient 'P2' and 'P1'"),
    ],
)
def test_what_cannot_be_is_one_clear_line(tmp_path, infos, lines, message):
    with pytest.raises(DataError, match=rf"p\.csv: .*{message}") as error:
        state_patients(infos, table(tmp_path, *lines))
    assert "\n" not in str(error.value) and patients(infos) == [None] * len(infos)


def test_scans_of_one_name_in_one_folder_are_one_slide(tmp_path):
    infos = [info("a.svs"), info("a.png")]
    assert state_patients(infos, table(tmp_path, "a,P1")) == [] and patients(infos) == ["P1", "P1"]


def test_another_table(tmp_path):
    (tmp_path / "p.csv").write_text("slide,name\na,P1\n")
    with pytest.raises(DataError, match="has no column 'patient'; it has slide, name"):
        state_patients([info("a.svs")], tmp_path / "p.csv")
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        state_patients([info("a.svs")], tmp_path / "none.csv")
