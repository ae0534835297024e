"""model.json: the schema, and what its validators refuse."""

import json
import re

import pytest

from pathzoo.errors import ZooError
from pathzoo.fileio import canonical_json, sha256_bytes
from pathzoo.paths import packaged_zoo
from pathzoo.zoo.index import INDEX_FILE, SCHEMA_FILE, index_of, main
from pathzoo.zoo.manifest import Manifest, schema
from pathzoo.zoo.manifest_file import check_manifest, read_manifest, seal, to_text


@pytest.fixture
def fields(zoo):
    content = json.loads((zoo / "tiny" / "1.0.0" / "model.json").read_text())
    del content["digest"], content["schema_version"]
    return content


def test_every_field_of_the_design_is_there_from_the_first_version(fields):
    at_top = "classes organ stain input model files weights training parents metrics plugins licence golden created"
    assert set(at_top.split()) <= set(Manifest.model_fields)
    assert {"mpp", "mpp_tolerance", "hu_window", "value_range", "mean", "std", "stain_fit"} <= set(fields["input"])
    assert fields["input"]["hu_window"] is None  # nullable, but written


def test_the_digest_is_that_of_everything_else(zoo):
    content = json.loads((zoo / "tiny" / "1.0.0" / "model.json").read_text())
    digest = content.pop("digest")
    assert digest == sha256_bytes(canonical_json(content))


def test_sealing_writing_and_reading_gives_the_same(fields):
    manifest = seal(fields)
    again, problems = check_manifest(to_text(manifest).encode())
    assert problems == []
    assert again == manifest


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("name", "Tiny Model", "name"),
        ("version", "1.0", "version"),
        ("task", "regression", "task"),
        ("classes", ["a", "a"], "unique"),
        ("classes", [], "class names"),
        ("input.tile_size", [0, 64], "tile_size"),
        ("input.mpp", 0, "mpp"),
        ("input.mpp", None, "short_side"),
        ("input.mean", [1.0], "mean and std need 3"),
        ("input.std", [1.0, 0.0, 1.0], "std"),
        ("input.value_range", [255, 0], "rise"),
        ("input.resize", {"kind": "stretch"}, "resize"),
        ("files", {"model.pth": {"sha256": "0" * 64, "size": 1}}, "files"),
        ("licence", "free for all", "licence"),
        ("licence", "CC-BY-NC-4.0", "commercial_use"),
        ("weights.n_parameters", 1.5, "n_parameters"),
        ("metrics", [{"dataset": "d", "subset": "s", "rows": [{"metric": "m", "level": "image", "n": 1}]}], "value"),
        ("golden.atol", float("inf"), "golden"),
        ("golden.seed", 2**32, "golden.seed"),
        ("golden.n", 65, "golden.n"),
        ("input.tile_size", [64, 8193], "tile_size"),
        ("organ", "breast\x1b[2J", "organ"),
        ("organ", "breast\nkidney", "organ"),
        ("stain", "H&E\x9b2J", "stain"),
        ("classes", ["benign", "malig\rnant"], "classes"),
        ("description", "A toy.\x00", "description"),
        ("limits", "Many.\x07", "limits"),
        ("training.versions", {"torch": "2.15.0\n"}, "versions"),
        ("plugins", [{"name": "lab", "version": "1.0' evil"}], "version"),
        ("plugins", [{"name": "lab", "version": "-r"}], "version"),
    ],
)
def test_a_wrong_field_is_refused_by_name(fields, path, value, reason):
    *parents, last = path.split(".")
    block = fields
    for key in parents:
        block = block[key]
    block[last] = value
    with pytest.raises(ZooError, match=re.escape(reason)) as caught:
        seal(fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"low": 0.2}, "both low and high"),
        ({"low": 0.9, "high": 0.1}, "above"),
        ({"value": float("nan")}, "value"),
        ({"level": "cell"}, "level"),
    ],
)
def test_metric_rows(fields, row, reason):
    fields["metrics"][0]["rows"][0] = {"metric": "auc", "level": "image", "n": 3, "value": 0.5} | row
    with pytest.raises(ZooError, match=reason):
        seal(fields)


def test_a_model_at_unknown_magnification_takes_images(fields):
    fields["input"] |= {"mpp": None, "resize": {"kind": "short_side", "size": 70}}
    assert seal(fields).input.mpp is None


def test_long_texts_may_have_lines(fields):
    fields |= {"description": "A toy.\nOf two lines.\n", "limits": "Many:\n- one"}
    assert seal(fields).limits == "Many:\n- one"


def test_the_bounds_themselves_are_taken(fields):
    fields["golden"] |= {"seed": 2**32 - 1, "n": 64}
    fields["input"]["tile_size"] = [8192, 8192]
    fields["plugins"] = [{"name": "lab", "version": "2024.1b+cu12-rc"}]
    assert seal(fields).golden.n == 64


def test_attributed_non_commercial_data_bars_commercial_use(fields):
    fields["attributions"][0]["licence"] = "CC-BY-NC-SA-4.0"
    with pytest.raises(ZooError, match="CC-BY-NC-SA-4"):
        seal(fields)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[]", b"{", b'{"a": NaN}', b'{"a": 1e999}', b"[" * 200_000])
def test_garbage_is_reported_not_raised(data):
    manifest, problems = check_manifest(data)
    assert manifest is None
    assert problems


def test_reading_a_folder_without_a_manifest(tmp_path):
    with pytest.raises(ZooError, match=r"model\.json: no such file"):
        read_manifest(tmp_path)


def test_the_committed_schema_and_index_are_current():
    root = packaged_zoo()
    remedy = "run python -m pathzoo.zoo.index"
    assert json.loads((root / SCHEMA_FILE).read_text()) == json.loads(json.dumps(schema())), remedy
    assert json.loads((root / INDEX_FILE).read_text()) == index_of(root), remedy


def test_the_index_lists_what_is_there(zoo, tmp_path, capsys):
    written = json.loads((zoo / INDEX_FILE).read_text())
    assert [(row["name"], row["version"], row["mpp"]) for row in written["models"]] == [("tiny", "1.0.0", 0.5)]
    assert main([str(tmp_path / "empty")]) == 0
    assert json.loads((tmp_path / "empty" / INDEX_FILE).read_text())["models"] == []
