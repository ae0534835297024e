"""What tables of a lab say of slides: the words for an unknown patient, and names that mean the same slide."""

import pytest

from pathzoo.errors import DataError
from pathzoo.wsi.annotation_sources import list_sources, read_slide_table


def table(folder, *lines, column="patient"):
    path = folder / "table.csv"
    path.write_text("\n".join([f"slide,{column}", *lines]) + "\n")
    return path


def test_a_patient_that_is_empty_or_called_unknown_is_not_known(tmp_path):
    path = table(tmp_path, "a.svs,P1", "b.svs,unknown", "c.svs, Unknown ", "d.svs,", "folder/e,P2")
    assert read_slide_table(path, "patient") == {"a.svs": "P1", "e": "P2"}
    for name in ("a.svs", "b.svs"):
        (tmp_path / "slides" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "slides" / name).touch()
    assert [source.patient for source in list_sources(tmp_path / "slides", None, path)] == ["P1", None]


def test_other_columns_may_say_unknown(tmp_path):
    assert read_slide_table(table(tmp_path, "a,unknown", column="stain"), "stain") == {"a": "unknown"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["S2.svs,A", "S2.svs,B"], "line 3: slide S2.svs has patient 'B' and 'A'"),
        (["S2.svs,A", "S1,C", "S2,B"], "lines 2 and 4: slide S2.svs has patient 'A', and S2 'B'"),
        (["S2,B", "x/S2.SVS,A"], "lines 3 and 2: slide S2.SVS has patient 'A', and S2 'B'"),
        (["T.png,A", "T.tif,B", "T,A"], "lines 3 and 4: slide T.tif has patient 'B', and T 'A'"),
    ],
)
def test_a_slide_of_two_patients_is_refused_however_it_is_named(tmp_path, lines, message):
    with pytest.raises(DataError) as caught:
        read_slide_table(table(tmp_path, *lines), "patient")
    assert message in str(caught.value) and "\n" not in str(caught.value) and "correct one" in str(caught.value)


def test_names_that_agree_or_differ_by_more_than_an_ending_are_taken(tmp_path):
    path = table(tmp_path, "S2.svs,A", "S2,A", "T.png,A", "T.tif,B", "2024.17,C", "2024,D")
    assert len(read_slide_table(path, "patient")) == 6
