"""Tables as a lab keeps them: separators, marks and blanks of spreadsheets; what is wrong, at once or all together."""

import pytest

from pathzoo.datasets.csv_table import TableForm, absolute_root, item_of, parse_mpp, parse_patient, read_csv_table
from pathzoo.datasets.region_table import ClassList, read_classes, read_region_table, resolve_classes, write_classes
from pathzoo.errors import ConfigError, DataError

FORM = TableForm("pebble", "pebbles", ("name", "colour"), ("weight",), {"colour": "where it has none"})


def parse(fields, where):
    if fields["colour"] == "pink":
        raise DataError(f"{where}: no pebble is pink: look again")
    return {"item": fields["name"], "colour": fields["colour"], "where": where}


def read(tmp_path, content, problems=None):
    path = tmp_path / "pebbles.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_csv_table(path, FORM, parse, problems)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_spreadsheets_save_them_in_many_ways(tmp_path, separator, mark, end):
    lines = ["name,colour,note", "a, red ,", "", 'b,"light, very",x', ",,"]
    text = end.join(lines) + end
    quoted = text.replace("light, very", "LIGHT").replace(",", separator).replace("LIGHT", "light, very")
    rows = read(tmp_path, mark + quoted.encode())
    assert [(row["item"], row["colour"]) for row in rows] == [("a", "red"), ("b", "light, very")]
    assert [row["where"].rpartition(":")[2] for row in rows] == ["2", "4"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfename", "is not UTF-8 text .*: save it as UTF-8"),
        ("\n\n", "is empty: it needs a header line with name, colour and one line per pebble"),
        ("name,colour\n", "has a header but no pebble: add one line per pebble"),
        (
            "name,color\na,red\n",
            r":1: the column 'colour' is missing; rename 'color' \(it may be empty where it has none",
        ),
        ("x\na\n", ":1: the column 'name' is missing; the header is x"),
        ("name,colour,name\na,b,c\n", ":1: the column 'name' stands twice: remove one"),
        ("name,colour,Weight\na,b,c\n", ":1: write the column 'Weight' as 'weight'"),
        ("name,colour\na,b,c\n", ":2 has 3 fields, the header 2: quote fields with commas"),
        ("name,colour\na,b\nb,c\na,d\n", ":4: 'a' stands already in .*:2: keep one of the lines"),
        ("name,colour\na,pink\n", ":2: no pebble is pink: look again"),
    ],
)
def test_the_first_mistake_is_named(tmp_path, content, message):
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_or_all_of_them_together(tmp_path):
    problems = []
    rows = read(tmp_path, "name,colour\na,red\nb,pink\nc\na,blue\nd,blue\n", problems)
    assert [row["item"] for row in rows] == ["a", "d"]
    assert [str(problem).split(":")[1].split(" ")[0] for problem in problems] == ["3", "4", "5"]
    with pytest.raises(
        ConfigError, match=r"none.csv: no such table of pebbles; give a CSV with the columns name, colo"
    ):
        read_csv_table(tmp_path / "none.csv", FORM, parse)
    with pytest.raises(ConfigError, match="no such table"):
        read_csv_table(tmp_path, FORM, parse)


def test_items_patients_and_resolutions(tmp_path):
    assert item_of("a/../b/c.png", tmp_path) == (str(tmp_path / "b" / "c.png"), "b/c.png")
    assert item_of(str(tmp_path.parent / "x.png"), tmp_path)[1] == "../x.png"
    assert absolute_root(tmp_path / "t.csv", None) == tmp_path
    assert [parse_patient(text) for text in ("", "Unknown", "P1")] == [None, None, "P1"]
    assert parse_mpp("", "x") is None and parse_mpp("0.25", "x") == 0.25
    for text in ("0", "-1", "nan", "inf", "20x"):
        with pytest.raises(DataError, match=f"t:3: mpp '{text}' is not a positive number"):
            parse_mpp(text, "t:3")


def test_lines_of_regions(tmp_path):
    (tmp_path / "regions.csv").write_text("image,mask,patient,slide,mpp\na.png,m.png,P1,S1,0.5\nb.png,,,,\n")
    first, second = read_region_table(tmp_path / "regions.csv")
    assert first["mask_path"] == str(tmp_path / "m.png") and first["mpp"] == 0.5 and first["slide"] == "S1"
    assert [second[key] for key in ("mask_path", "patient", "slide", "mpp")] == [None] * 4
    assert read_region_table(tmp_path / "regions.csv", tmp_path / "x")[0]["img_path"] == str(tmp_path / "x" / "a.png")


def test_classes_come_from_the_user_the_folder_or_the_kind_of_data(tmp_path):
    file = tmp_path / "classes.json"
    own = {"classes": ("a", "b"), "palette": [[9, 9, 9], [8, 8, 8]]}
    with pytest.raises(ConfigError, match="no such file, so the classes are not known"):
        resolve_classes((None, None), {}, file, mapped=False)
    assert resolve_classes((None, None), own, file, mapped=False) == ClassList(("a", "b"), ((9, 9, 9), (8, 8, 8)))
    write_classes(file, ClassList(("a", "b"), ((1, 2, 3), (4, 5, 6))))
    assert read_classes(file) == ClassList(("a", "b"), ((1, 2, 3), (4, 5, 6)))
    assert resolve_classes((None, None), own, file, mapped=False).palette[0] == (1, 2, 3)  # the folder's before its own
    palette = [(0, 0, 0), (7, 7, 7)]
    assert resolve_classes((None, palette), {}, file, mapped=False) == ClassList(("a", "b"), ((0, 0, 0), (7, 7, 7)))
    with pytest.raises(ConfigError, match="mean a, b, but the data set's classes are b, a"):
        resolve_classes((("b", "a"), None), {}, file, mapped=False)
    assert resolve_classes((("b", "a", "c"), None), {}, file, mapped=True).classes == ("b", "a", "c")
