"""From a run to a folder: the same probabilities, all that is known, nothing that identifies, all or nothing."""

import hashlib
import hmac
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_model import CARD, MODEL, tiles

from pathzoo.errors import CheckpointError, ZooError
from pathzoo.zoo.load import get_model
from pathzoo.zoo.publish import publish_model
from pathzoo.zoo.verify import verify_model


@pytest.fixture
def run(run_folder, tmp_path) -> Path:
    """A copy of the run folder, to be changed."""
    return Path(shutil.copytree(run_folder, tmp_path / "run"))


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def publish(run, out, **options):
    options = {"name": "tiny", "version": "1.0.0", "card": CARD} | options
    return publish_model(run / "epoch_5.pth", out=out, **options)


def refused(run, out, match, **options):
    with pytest.raises(ZooError, match=match) as caught:
        publish(run, out, **options)
    assert "\n" not in str(caught.value)
    assert not out.exists() or not [path for path in out.rglob("*") if path.is_file()], "something was left behind"


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
    ("text", "kind"),
    [
        ("Trained on patient 22549.", "a patient id"),
        ("Trained on patient 9146.", "a patient id"),
        ("Trained on p-0007.", "a patient id"),
        ("See smith-john.", "a file name"),
        ("See slide_0815x.", "an id in a folder's name"),
        ("See SOB_M_DC-14-9146-40-002.png.", "BreakHis"),
        ("Holds " + "b" * 64, "an image's digest"),
        (f"In {Path.home()}/x/y.", "an absolute path"),
    ],
)
def test_identifiers_in_the_card_text(run, tmp_path, text, kind):
    refused(run, tmp_path / "out", kind, card=CARD | {"limits": text})


def test_short_ids_count_only_as_whole_values(run, tmp_path):
    refused(run, tmp_path / "a", "a patient id, '7', in stain", card=CARD | {"stain": "7"})
    assert publish(run, tmp_path / "b", card=CARD | {"limits": "7 of 10 images were blurred."})


def test_counts_that_equal_an_id_are_no_leak(run, tmp_path):
    edit(run / "train_run.json", lambda content: content["data"]["counts"]["train"].update(images=22549))
    assert publish(run, tmp_path / "out")


def test_user_and_host(run, tmp_path, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "jdoe42")
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu17.lab.example")
    refused(run, tmp_path / "a", "the user's name", card=CARD | {"limits": "Ask jdoe42."})
    refused(run, tmp_path / "b", "the host's name", card=CARD | {"limits": "Ran on gpu17."})


def test_the_work_folder(run, tmp_path):
    refused(run, tmp_path / "out", "an absolute path", card=CARD | {"limits": f"In {run}."})


def test_without_the_split_nothing_is_published(run, tmp_path):
    (run / "splits.json").unlink()
    refused(run, tmp_path / "out", r"splits\.json: no such file")


def test_keyed_hashes_of_patients(run, tmp_path):
    key = b"0123456789abcdef0123456789abcdef"
    (tmp_path / "key").write_bytes(key + b"\n")
    folder = publish(run, tmp_path / "out", hash_key=tmp_path / "key")
    hashes = json.loads((folder / "model.json").read_text())["training"]["patient_hashes"]
    assert hashes["val"] == [hmac.new(key, b"9146", hashlib.sha256).hexdigest()]
    assert len(hashes["train"]) == 3  # the group of unknown patients is no patient
    assert key not in b"".join(path.read_bytes() for path in folder.iterdir())
    (tmp_path / "short").write_bytes(b"secret")
    refused(run, tmp_path / "b", "can be guessed", hash_key=tmp_path / "short")


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


@pytest.mark.parametrize("measured", ["best_accuracy_epoch_4.pth", 4])
def test_figures_of_another_checkpoint(run, tmp_path, measured):
    edit(run / "metrics.json", lambda content: content.update(checkpoint=measured))
    refused(run, tmp_path / "a", rf"was measured on {measured}, not epoch_5\.pth; test this checkpoint first")
    assert publish(run, tmp_path / "b", metrics=run / "metrics.json")  # named by the user


def test_figures_of_this_checkpoint(run, tmp_path):
    edit(run / "metrics.json", lambda content: content.update(checkpoint="epoch_5.pth"))
    manifest = json.loads((publish(run, tmp_path / "out") / "model.json").read_text())
    assert manifest["metrics"][0]["rows"][0]["value"] == 0.75


def test_a_threshold_is_of_detectors_alone(run, tmp_path):
    refused(run, tmp_path / "out", "score_threshold 0.3 means nothing to class", card=CARD | {"score_threshold": 0.3})


def test_several_evaluations_with_their_curves(run, tmp_path):
    point = {"threshold": 0.5, "precision": 0.9, "recall": 0.8, "f1": 0.847, "false_positives": 2.0}
    row = {"metric": "froc", "level": "slide", "n": 6, "value": 0.7, "low": None, "high": None}
    slides = {"dataset": "unseen slides", "subset": "all", "split": None, "rows": [row], "curve": [point]}
    (tmp_path / "slides.json").write_text(json.dumps(slides))
    folder = publish(run, tmp_path / "out", metrics=[run / "metrics.json", tmp_path / "slides.json"])
    own, other = json.loads((folder / "model.json").read_text())["metrics"]
    assert (own["rows"][0]["value"], own["curve"]) == (0.75, [])
    assert (other["dataset"], other["split"], other["curve"]) == ("unseen slides", None, [point])
    assert "| 0.5000 | 0.900 | 0.800 | 0.847 | 2.00 |" in (folder / "README.md").read_text()
    edit(tmp_path / "slides.json", lambda content: content["curve"][0].update(recall=1.2))
    refused(run, tmp_path / "bad", r"metrics\.0\.curve\.0\.recall", metrics=tmp_path / "slides.json")


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
