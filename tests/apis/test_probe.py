"""Backbones from anywhere, judged by their vectors; the tools that print it and that hand a backbone on."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from analysis_tools import export_backbone, probe_backbone
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_run import CONFIG, as_words, draw_cohort, tiny_options

from pathzoo.apis.embed import embed_dataset, load_embedder
from pathzoo.apis.lineage import ancestors_of
from pathzoo.apis.probe import probe
from pathzoo.apis.run_record import start_from
from pathzoo.apis.train import train
from pathzoo.engine.checkpoint import load_checkpoint_safely
from pathzoo.errors import CheckpointError, ConfigError, DataError, LeakageError
from pathzoo.fileio import sha256_file
from pathzoo.models.backbones.parent_weights import read_parent
from pathzoo.zoo.publish import publish_model

_CARD = {"description": "A toy.", "licence": "CC0-1.0", "commercial_use": True}
_MEAN, _STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return draw_cohort(tmp_path_factory.mktemp("data"), images_per_patient=3)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    return train(CONFIG, tmp_path_factory.mktemp("runs") / "run", options=tiny_options(data))


@pytest.fixture(scope="module")
def published(run, tmp_path_factory) -> Path:
    return publish_model(run / "epoch_1.pth", "tiny", "1.0.0", tmp_path_factory.mktemp("zoo"), _CARD)


class Pictures:
    """A data set of plain pictures; `sizes` may differ."""

    subset = "test"

    def __init__(self, sizes=((40, 48),) * 5):
        rng = np.random.default_rng(0)
        self.pictures = [torch.from_numpy(rng.integers(0, 256, (3, *size), dtype=np.uint8)) for size in sizes]

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        return {"inputs": self.pictures[index], "data_samples": None}

    def get_data_info(self, index):
        return {"item": index}


def test_vectors_are_the_mean_of_the_last_map():
    embedder = load_embedder(None, "test_resnet", _MEAN, _STD, seed=3)
    pictures = Pictures()
    vectors, infos = embed_dataset(embedder, pictures, batch_size=2)
    assert vectors.dtype == np.float32 and [info["item"] for info in infos] == list(range(5))
    for picture, vector in zip(pictures.pictures, vectors, strict=True):
        x = (picture.numpy().transpose(1, 2, 0).astype(np.float32) - np.float32(_MEAN)) / np.float32(_STD)
        with torch.no_grad():
            features = embedder.backbone.timm_model.forward_features(torch.from_numpy(x.transpose(2, 0, 1))[None])
        np.testing.assert_allclose(vector, features.numpy()[0].mean(axis=(1, 2)), atol=1e-5)


def test_random_weights_follow_their_seed_and_leave_other_draws_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    one, same, other = (load_embedder(None, "test_resnet", _MEAN, _STD, seed=seed).backbone for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    weights = [network.timm_model.state_dict() for network in (one, same, other)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert any(not torch.equal(weights[0][key], weights[2][key]) for key in weights[0])


def test_pictures_of_several_sizes_or_none_are_refused():
    embedder = load_embedder(None, "test_resnet", _MEAN, _STD)
    with pytest.raises(DataError, match=r"pictures \['\(3, 40, 48\)', '\(3, 64, 64\)'\] come in one batch"):
        embed_dataset(embedder, Pictures([(40, 48), (64, 64)]))
    with pytest.raises(DataError, match="'test' is empty"):
        embed_dataset(embedder, Pictures(()))


def test_a_probe_of_a_run_and_of_its_published_form_agree(data, run, published):
    of_run = probe(run / "epoch_1.pth", CONFIG, tiny_options(data), n_bootstrap=50, device="cpu")
    of_zoo = probe(published, CONFIG, tiny_options(data), n_bootstrap=50, device="cpu")
    for subset, part in of_run.subsets.items():
        np.testing.assert_allclose(part.vectors, of_zoo.subsets[subset].vectors, atol=1e-5)
    assert of_run.record["source"]["source"] == "run" and of_zoo.record["source"]["name"] == "tiny"
    record = json.loads(json.dumps(of_run.record))
    assert record["counts"]["train"]["n_images"] == 18 and record["counts"]["test"]["n_patients"] == 2
    assert record["linear"]["chosen_by"] == "validation"
    rows = {(row["metric"], row["level"]): row for row in record["knn"]["rows"]}
    truth, near = of_run.subsets["test"].labels, of_run.subsets["train"]
    unit = [
        part / np.linalg.norm(part, axis=1, keepdims=True) for part in (of_run.subsets["test"].vectors, near.vectors)
    ]
    votes = np.exp(unit[0].astype(float) @ unit[1].T.astype(float) / 0.07)  # all 18 vote, since k is 20
    guess = [int(vote[near.labels == 1].sum() > vote[near.labels == 0].sum()) for vote in votes]
    assert rows["accuracy", "image"]["value"] == pytest.approx((np.array(guess) == truth).mean())


def test_a_run_that_has_seen_the_test_patients_is_refused(data, run):
    with pytest.raises(LeakageError, match=r"run/splits\.json, first: patient"):
        probe(run / "epoch_1.pth", CONFIG, tiny_options(data, fold=1), n_bootstrap=0, device="cpu")


def test_the_tool_prints_writes_and_draws(data, run, tmp_path, capsys):
    words = [CONFIG, "--sources", "random", f"mine={run / 'epoch_1.pth'}", "--out", str(tmp_path / "out")]
    words += ["--n-bootstrap", "50", "--device", "cpu", *as_words(tiny_options(data))]
    assert probe_backbone.main(words) == 0
    shown = capsys.readouterr().out
    assert "random: 18 nearest neighbours, T = 0.07" in shown and "mine: linear, C = " in shown
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "probe.json",
        "embedding_random.png",
        "embedding_mine.png",
    }
    record = json.loads((tmp_path / "out/probe.json").read_text())
    assert record["random"]["source"] == {"source": "random", "seed": 0, "network": "test_resnet"}
    assert record["mine"]["source"]["source"] == "run"
    assert np.asarray(Image.open(tmp_path / "out/embedding_mine.png")).std() > 10
    assert probe_backbone.main(words) == 2
    assert "exists already" in capsys.readouterr().err


def test_the_tool_refuses_in_one_line(data, tmp_path, capsys):
    segmenter = "self_training/supervised_resnest14d-unet_1xb8_48e_breastlesions_small.py"
    for words, match in (
        ([CONFIG, "--sources", "random", "x=random", "x=imagenet"], "the name 'x' stands there twice"),
        ([CONFIG, "--sources", "x="], "expected SOURCE or NAME=SOURCE"),
        ([CONFIG, "--sources", "gone.pth", *as_words(tiny_options(data))], "gone.pth: no such file"),
        ([CONFIG, "--sources", "random", "--network", "resnet10tt"], "timm has no such network"),
        ([segmenter, "--sources", "random", "--cfg-options", f"data_root={tmp_path}"], ""),
    ):
        assert probe_backbone.main([*words, "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ") and match in error
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("source", ["run", "published", "file"])
def test_an_exported_backbone_loads_strictly_into_timm(source, run, published, tmp_path, capsys):
    state = load_checkpoint_safely(run / "epoch_1.pth")["state_dict"]
    own = {key.removeprefix("backbone.timm_model."): value for key, value in state.items() if "timm_model" in key}
    save_file({key: value.contiguous() for key, value in own.items()}, tmp_path / "w.safetensors")
    given = {"run": run / "epoch_1.pth", "published": published, "file": tmp_path / "w.safetensors"}[source]
    out = tmp_path / "out.safetensors"
    words = ["--network", "test_resnet"] if source == "file" else []
    assert export_backbone.main([str(given), str(out), *words]) == 0
    assert "timm.create_model('test_resnet', num_classes=0)" in capsys.readouterr().out
    network = timm.create_model("test_resnet", num_classes=0)
    network.load_state_dict(load_file(out), strict=True)
    assert all(torch.equal(value, own[key]) for key, value in network.state_dict().items())
    with safe_open(out, "pt") as file:
        about = file.metadata()
    assert about["network"] == "test_resnet"
    assert about.get("mean") == (None if source == "file" else "0.485, 0.456, 0.406")
    assert export_backbone.main([str(given), str(out), *words]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["run", "published"])
def test_an_exported_backbone_still_knows_its_parent(source, run, published, tmp_path):
    given = {"run": run / "epoch_1.pth", "published": published}[source]
    out = tmp_path / "out.safetensors"
    export_backbone.export(str(given), out)
    before, after = read_parent(given), read_parent(out)
    assert after.record.pop("exported") == {"file": out.name, "sha256": sha256_file(out)}
    assert after.record == before.record and list(after.mean) == list(before.mean)
    start = start_from(read_parent(out).record, tmp_path, tmp_path / "child")
    assert "folder" not in start, "wherever the file was moved to, the run is not beside it"
    assert any("could not be compared" in text for text in ancestors_of(start, tmp_path / "child").caveats)
    tensors = load_file(out)
    with safe_open(out, "pt") as file:
        about = file.metadata()
    next(iter(tensors.values())).add_(1)
    save_file(tensors, out, metadata=about)
    with pytest.raises(CheckpointError, match=r"out\.safetensors: its metadata says that other tensors were exported"):
        read_parent(out)


def test_a_resnet10t_goes_there_and_back(tmp_path):
    """The same weights by the name of the network alone, in half precision and with a classifier beside them."""
    torch.manual_seed(5)
    network = timm.create_model("resnet10t", num_classes=4).half()
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    export_backbone.export(str(tmp_path / "w.safetensors"), tmp_path / "out.safetensors", "resnet10t")
    bare = timm.create_model("resnet10t", num_classes=0)
    bare.load_state_dict(load_file(tmp_path / "out.safetensors"), strict=True)
    assert torch.equal(bare.conv1[0].weight, network.conv1[0].weight.float())


def test_what_is_no_whole_backbone_is_not_exported(run, tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors")
    out = tmp_path / "out.safetensors"
    for source, path, network, error, match in (
        (tmp_path / "w.safetensors", out, "resnet10t", CheckpointError, r"0 tensors mapped, \d+ missing"),
        (tmp_path / "w.safetensors", out, None, ConfigError, "timm's name of its network is None"),
        (run / "epoch_1.pth", tmp_path / "out.pth", None, ConfigError, "ends in .safetensors"),
    ):
        with pytest.raises(error, match=match):
            export_backbone.export(str(source), path, network)
        assert not path.exists()
