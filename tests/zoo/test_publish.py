"""From a run to a folder: the same probabilities, all that is known, nothing that identifies, all or nothing."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from publishing import edit, publish, refused
from tiny_model import CARD, MODEL, tiles

from pathzoo.errors import CheckpointError, ZooError
from pathzoo.zoo.load import get_model
from pathzoo.zoo.verify import verify_model


def expected_probs(network, pictures):
    """Second derivation: normalisation and softmax in NumPy around the bare network."""
    import torch

    mean, std = (np.array(MODEL["data_preprocessor"][key], dtype=np.float32) for key in ("mean", "std"))
    inputs = ((pictures.astype(np.float32) - mean) / std).transpose(0, 3, 1, 2)
    with torch.no_grad():
        features = network.backbone(torch.from_numpy(inputs))[-1].mean(dim=(2, 3))
        logits = network.head.fc(features).numpy().astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_probabilities_survive_publishing(zoo, network):
    pictures = tiles(5)
    expected = expected_probs(network, pictures)
    assert 0.01 < expected.min() < 0.5, "a saturated network would hide differences"
    np.testing.assert_allclose(get_model(zoo / "tiny")(pictures).probs, expected, atol=1e-6)


def test_probabilities_survive_half_precision(run, network, tmp_path):
    folder = publish(run, tmp_path / "out", half=True)
    manifest = json.loads((folder / "model.json").read_text())
    assert manifest["weights"]["dtype"] == "float16"
    full = (run / "epoch_5.pth").stat().st_size
    assert (folder / "model.safetensors").stat().st_size < 0.6 * full
    pictures = tiles(5)
    np.testing.assert_allclose(get_model(folder)(pictures).probs, expected_probs(network, pictures), atol=1e-2)


def test_the_manifest_says_what_the_run_was(zoo):
    manifest = json.loads((zoo / "tiny" / "1.0.0" / "model.json").read_text())
    training = manifest["training"]
    assert training["counts"]["train"]["patients"] == 3
    assert (training["seed"], training["epochs"], training["iterations"]) == (3, 5, 40)
    assert training["initial_weights"]["source"] == "random"
    assert training["config"] == "tiny.py"
    assert manifest["metrics"][0] | {"rows": None} == {
        "dataset": "BreakHis",
        "subset": "test",
        "split": "patient_ratio",
        "synthetic": False,
        "rows": None,
        "curve": [],
        "caveats": [],
    }
    assert [row["metric"] for row in manifest["metrics"][0]["rows"]] == [
        "accuracy"
    ]  # the one without a value is left out
    assert manifest["classes"] == ["benign", "malignant"]
    assert manifest["model"] == MODEL
    assert manifest["weights"]["n_parameters"] < manifest["files"]["model.safetensors"]["size"] / 4
    assert sorted(path.name for path in (zoo / "tiny" / "1.0.0").iterdir()) == [
        "README.md",
        "model.json",
        "model.safetensors",
    ]


def test_counts_as_the_data_set_describes_itself(run, tmp_path):
    described = {"subset": "train", "n_images": 9, "n_patients": 4, "n_unknown_patient_images": 1, "skipped": 0}
    described["per_class"] = {"benign": {"n_images": 5, "n_patients": 2}, "malignant": {"n_images": 4, "n_patients": 2}}
    edit(run / "train_run.json", lambda content: content["data"].update(counts=described))
    counts = json.loads((publish(run, tmp_path / "out") / "model.json").read_text())["training"]["counts"]
    assert counts == {
        "train": {"images": 9, "patients": 4, "unknown_patient_images": 1, "per_class": {"benign": 5, "malignant": 4}}
    }


def test_averaged_weights_are_those_in_state_dict(run, network, tmp_path):
    """mmengine's EMAHook exchanges the two before it saves: the average lies in `state_dict`."""
    import torch

    checkpoint = torch.load(run / "epoch_5.pth", weights_only=True)
    raw = {f"module.{key}": torch.zeros_like(value) for key, value in checkpoint["state_dict"].items()}
    torch.save(checkpoint | {"ema_state_dict": raw}, run / "epoch_5.pth")
    pictures = tiles(2)
    folder = publish(run, tmp_path / "out")
    np.testing.assert_allclose(get_model(folder)(pictures).probs, expected_probs(network, pictures), atol=1e-6)


def test_a_version_is_never_overwritten(run, tmp_path):
    out = tmp_path / "out"
    folder = publish(run, out)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ZooError, match="exists"):
        publish(run, out, half=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    publish(run, out, version="1.0.1")
    assert [row["version"] for row in json.loads((out / "index.json").read_text())["models"]] == ["1.0.0", "1.0.1"]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"name": "../evil"}, "name"),
        ({"version": "1"}, "MAJOR"),
        ({"card": {key: value for key, value in CARD.items() if key != "licence"}}, "licence"),
        ({"card": CARD | {"colour": "blue"}}, "colour"),
        ({"card": CARD | {"licence": "CC-BY-NC-4.0"}}, "commercial_use"),
        ({"card": Path("no_such_card.json")}, "no_such_card.json: no such file"),
    ],
)
def test_wrong_arguments(run, tmp_path, options, match):
    refused(run, tmp_path / "out", match, **options)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c.pop("model"), "model"),
        (lambda c: c.update(model={"not_publishable": "model.type: 'Mine' is not a component"}), "'Mine'"),
        (lambda c: c["model"]["head"]["loss"].update(type="Mine"), r"model\.head\.loss\.type"),
        (lambda c: c["model"]["head"].update(num_classes=3), r"head\.fc"),
        (lambda c: c["model_input"].pop("mean"), r"input\.mean"),
        (lambda c: c["model_input"].update(mean=[0, 0, 0]), r"input\.mean"),
        (lambda c: c.update(classes=["benign"]), "num_classes"),
        (lambda c: c.pop("data"), "data"),
    ],
)
def test_runs_that_cannot_be_published(run, tmp_path, change, match):
    edit(run / "train_run.json", change)
    refused(run, tmp_path / "out", match)


def test_a_diverged_or_too_large_tensor(run, tmp_path):
    import torch

    checkpoint = torch.load(run / "epoch_5.pth", weights_only=True)
    checkpoint["state_dict"]["head.fc.bias"][0] = 1e6
    torch.save(checkpoint, run / "epoch_5.pth")
    refused(run, tmp_path / "a", "float16", half=True)
    checkpoint["state_dict"]["head.fc.bias"][0] = float("nan")
    torch.save(checkpoint, run / "epoch_5.pth")
    refused(run, tmp_path / "b", r"head\.fc\.bias holds NaN")


def test_a_missing_tensor(run, tmp_path):
    import torch

    checkpoint = torch.load(run / "epoch_5.pth", weights_only=True)
    del checkpoint["state_dict"]["head.fc.bias"]
    torch.save(checkpoint, run / "epoch_5.pth")
    refused(run, tmp_path / "out", r"lacks head\.fc\.bias")


def test_a_checkpoint_that_needs_unpickling(run, tmp_path):
    import torch

    torch.save({"state_dict": {}, "meta": Path("x")}, run / "epoch_5.pth")
    with pytest.raises(CheckpointError, match="unpickling"):
        publish(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_parents_are_recorded(run, zoo, tmp_path):
    folder = publish(run, tmp_path / "out", name="child", parents=[zoo / "tiny" / "1.0.0"])
    parent = json.loads((folder / "model.json").read_text())["parents"][0]
    weights = (zoo / "tiny" / "1.0.0" / "model.safetensors").read_bytes()
    assert parent == {"name": "tiny", "version": "1.0.0", "sha256": hashlib.sha256(weights).hexdigest()}


def test_the_tool(run, tmp_path):
    card = tmp_path / "card.yaml"
    card.write_text("description: Toy.\nlicence: CC0-1.0\ncommercial_use: true\n")
    tool = Path(__file__).parents[2] / "tools" / "publish_model.py"
    command = [sys.executable, str(tool), str(run / "epoch_5.pth"), "--name", "toy", "--card", str(card)]
    command += ["--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip().splitlines()[-1])
    assert folder == tmp_path / "out" / "toy" / "1.0.0"
    assert verify_model(folder, golden=True).ok
    again = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert again.returncode == 2
    assert again.stderr.strip().splitlines()[-1].startswith("publish_model.py: ")
    assert "Traceback" not in again.stderr


@pytest.mark.parametrize("status", ["running", "failed", None])
def test_a_run_that_is_not_finished(run, tmp_path, status):
    edit(run / "train_run.json", lambda content: content.update(status=status))
    refused(run, tmp_path / "out", "the run is not finished")


def test_a_finished_run(run, tmp_path):
    edit(run / "train_run.json", lambda content: content.update(status="finished"))
    assert publish(run, tmp_path / "out")


def test_a_damaged_neighbour_does_not_stop_publishing(run, tmp_path):
    out = tmp_path / "out"
    (out / "old" / "1.0.0").mkdir(parents=True)
    (out / "old" / "1.0.0" / "model.json").write_text("{")
    with pytest.warns(UserWarning, match=r"left out of the index: .*old/1\.0\.0"):
        folder = publish(run, out)
    assert verify_model(folder).ok
    assert [row["name"] for row in json.loads((out / "index.json").read_text())["models"]] == ["tiny"]


@pytest.mark.parametrize("place", ["out", "out/tiny"])
def test_a_file_where_the_zoo_should_be(run, tmp_path, place):
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_text("a file")
    with pytest.raises(ZooError, match="is a file, not a folder"):
        publish(run, tmp_path / "out")
    assert path.read_text() == "a file"


def test_a_part_of_a_model(run, tmp_path):
    edit(run / "train_run.json", lambda content: content.update(model=content["model"]["backbone"]))
    refused(run, tmp_path / "out", "is no whole classification model")


def test_input_that_this_version_does_not_apply_is_not_published(run, tmp_path):
    edit(run / "train_run.json", lambda content: content["model_input"].update(hu_window=[-100.0, 400.0]))
    refused(run, tmp_path / "out", r"input\.hu_window")
