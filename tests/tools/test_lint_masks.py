"""One report of everything wrong with a data set of regions, and the exit code that a script can go by."""

import json
import shutil

import numpy as np
import pytest
from analysis_tools import lint_masks as tool
from PIL import Image
from region_tables import edit_line, labels, picture, write_class_file, write_lab, write_mask


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PATHZOO_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def lab(tmp_path):
    """Twelve regions; even ones are 40 x 30 px, odd ones 33 x 50."""
    return write_lab(tmp_path / "lab")


def lint(capsys, *words):
    code = tool.main([str(word) for word in words])
    told = capsys.readouterr()
    return code, told.out.strip().splitlines(), told.err.strip()


def as_json(capsys, *words):
    code = tool.main([*map(str, words), "--json"])
    return code, json.loads(capsys.readouterr().out)


def spoil(lab):
    """A mistake of every kind, one region each from the first on."""
    mask = labels(40, 30, 0)
    mask[5, 7], mask[0, 0] = 9, 8
    write_mask(lab / "masks" / "00.png", mask)
    write_mask(lab / "masks" / "01.png", labels(33, 49, 1))
    Image.fromarray(picture(40, 30, 2)).save(lab / "masks" / "02.png")
    whole = (lab / "masks" / "03.png").read_bytes()
    (lab / "masks" / "03.png").write_bytes(whole[: len(whole) // 2])
    write_mask(lab / "masks" / "04.png", np.full((30, 40), 255, np.uint8))
    write_mask(lab / "masks" / "05.png", np.zeros((50, 33), np.uint8))
    edit_line(lab, 6, patient="unknown")
    (lab / "images" / "07.png").unlink()
    edit_line(lab, 8, mpp="0")
    shutil.copyfile(lab / "images" / "10.png", lab / "images" / "12.png")
    (lab / "masks" / "09.png").unlink()
    table = (lab / "regions.csv").read_text()
    more = ["images/11.png,,P5,S5,1.0", "images/12.png,,P0,S0,1.0", "images/13.png"]  # line 14 on
    (lab / "regions.csv").write_text(table + "\n".join(more) + "\n")


def test_everything_wrong_stands_in_one_report(lab, capsys):
    spoil(lab)
    code, lines, error = lint(capsys, lab)
    assert code == 2 and error == ""
    table = lab / "regions.csv"
    expected = [
        (
            2,
            "value",
            "masks/00.png: value 8 at x=0, y=0 (1 pixels, and the values 9) is no class (0 normal, 1 benign, 2",
        ),
        (
            3,
            "size",
            f"masks/01.png: 33 x 49 px, and its image {lab}/images/01.png 33 x 50: export the mask at the image",
        ),
        (4, "damaged", "masks/02.png: pixels of mode RGB are no class indices; save one 8-bit channel"),
        (5, "damaged", "masks/03.png: truncated or damaged"),
        (6, "empty", "masks/04.png: no labelled pixel, all are 255: label it, or leave the column mask empty"),
        (7, "empty", "masks/05.png: nothing but normal: check that no lesion was left out"),
        (8, "patient", "images/06.png: no patient: fill the column patient"),
        (9, "missing", "images/07.png: no image file: correct the path or remove the line"),
        (10, "line", "mpp '0' is not a positive number"),
        (11, "missing", "masks/09.png: no mask file: correct the path or remove the line"),
        (14, "line", "'images/11.png' stands already in"),  # labelled in line 13
        (15, "duplicate", f"images/12.png: the bytes of {lab}/images/10.png ({table}:12): remove one of the lines"),
        (16, "line", "has 1 fields, the header 5"),
    ]
    assert len(lines) == len(expected) + 1
    for line, (number, kind, text) in zip(lines, expected, strict=False):
        assert line.startswith(f"{table}:{number}: {kind}: ") and text in line
    assert lines[-1] == (
        f"{table}: 15 regions, 11 with a mask: 3 line, 2 missing, 2 damaged, 1 size, 1 value, 2 empty, 1 patient, "
        "1 duplicate"
    )


def test_the_same_as_json_and_kinds_that_are_allowed(lab, capsys):
    spoil(lab)
    code, report = as_json(capsys, lab / "regions.csv", "--allow", "empty", "patient", "line", "duplicate")
    assert code == 2 and report["classes"] == ["normal", "benign", "malignant"]
    assert (report["n_regions"], report["n_masks"]) == (15, 11)
    assert [problem["kind"] for problem in report["problems"]] == ["value", "size", "damaged", "damaged"] + [
        "missing"
    ] * 2
    assert set(report["problems"][0]) == {"kind", "where", "file", "value", "remedy"}
    code, report = as_json(capsys, lab, "--allow", *tool.KINDS)
    assert code == 0 and report["problems"] == []


def test_sound_data_has_no_problem_and_unlabelled_regions_are_none(tmp_path, capsys):
    lab = write_lab(tmp_path, unmasked=(3, 4))
    code, lines, _ = lint(capsys, lab)
    assert code == 0 and lines == [f"{lab / 'regions.csv'}: 12 regions, 10 with a mask: nothing wrong"]


def test_foreign_values_need_a_map(tmp_path, capsys):
    """Masks as many sets have them, 0 and 255: without a map 255 would be ignored, and no lesion be left."""
    lab = write_lab(tmp_path)
    for number in range(12):
        width, height = ((40, 30), (33, 50))[number % 2]
        write_mask(
            lab / "masks" / f"{number:02d}.png", np.where(labels(width, height, number) == 2, 255, 0).astype("u1")
        )
    code, lines, _ = lint(capsys, lab)
    assert code == 2 and lines[-1].endswith("12 empty")
    ignored = int((np.asarray(Image.open(lab / "masks" / "00.png")) == 255).sum())
    assert f"nothing but normal, and {ignored} pixels that are ignored: check" in lines[0]
    assert "if 255 stands for a class, translate it by a value map" in lines[0]
    words = (lab, "--classes", "rest", "tumour", "--value-map", "0=0", "255=tumour")
    assert lint(capsys, *words)[0] == 0


def test_classes_of_the_folder_count(tmp_path, capsys):
    lab = write_lab(tmp_path)
    write_class_file(lab)  # two classes
    code, report = as_json(capsys, lab)
    assert code == 2 and report["classes"] == ["rest", "tumour"]
    assert {problem["kind"] for problem in report["problems"]} == {"value"} and len(report["problems"]) == 12
    moved = tmp_path / "elsewhere.csv"
    (lab / "regions.csv").rename(moved)
    assert as_json(capsys, moved, "--data-root", lab)[1]["classes"] == ["rest", "tumour"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--value-map", "0:1"), "--value-map '0:1': expected VALUE=CLASS, such as 255=1 or 255=malignant"),
        (("--value-map", "0=3"), "value_map: 0 -> 3: give a class index of 0..2, or 255"),
        (("--value-map", "256=0"), "value_map: 256 is no mask value"),
        (("--classes", "a"), "1 classes: give 2 to 254"),
        (("--classes", "a", "a"), "the class 'a' stands twice"),
        (("--data-root", "none"), "12 regions"),
    ],
)
def test_bad_usage(lab, capsys, words, message):
    code, lines, error = lint(capsys, lab, *words)
    assert code == 2 and message in (error or lines[-1])
    assert "Traceback" not in error


def test_no_table(tmp_path, capsys):
    code, _, error = lint(capsys, tmp_path)
    assert code == 2 and error.startswith(f"error: {tmp_path / 'regions.csv'}: no such table of regions")
    (tmp_path / "regions.csv").write_text("image,mask,patient\n")
    assert "has a header but no region" in lint(capsys, tmp_path)[2]


@pytest.mark.real
def test_real_masks(real_data, tmp_path, capsys):
    source = real_data / "breast_segmentation"
    lines = ["image,mask,patient"]
    for image in sorted(source.glob("*/images/*")):
        mask = image.parents[1] / "masks" / f"{image.stem}.png"
        lines.append(f"{image.relative_to(source)},{mask.relative_to(source)},{image.parents[1].name}")
    (tmp_path / "regions.csv").write_text("\n".join(lines) + "\n")
    words = (tmp_path, "--data-root", source, "--classes", "rest", "tumour", "--value-map", "0=0", "255=tumour")
    _, report = as_json(capsys, *words)
    assert report["n_regions"] == report["n_masks"] == 36
    assert [(problem["kind"], problem["value"]) for problem in report["problems"]] == [("empty", "nothing but rest")]
    path = report["problems"][0]["file"]
    assert not np.asarray(Image.open(path)).any()
