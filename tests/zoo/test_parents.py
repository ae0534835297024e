"""Published weights know what they were made from: by the run's own record, proved tensor by tensor."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import CARD, INPUT, MEAN, STD, tiles

from pathzoo.apis.run_record import initial_weights
from pathzoo.cli import main
from pathzoo.errors import ZooError
from pathzoo.models import TimmBackbone
from pathzoo.models.backbones.parent_weights import read_parent
from pathzoo.wsi.predictor import Embeddings
from pathzoo.zoo.ancestry import ancestry
from pathzoo.zoo.load import get_model
from pathzoo.zoo.manifest_file import read_manifest
from pathzoo.zoo.publish import publish_model
from pathzoo.zoo.verify import verify_model

_PRETEXT = {
    "type": "SimCLR",
    "data_preprocessor": {"type": "SelfSupDataPreprocessor", "mean": MEAN, "std": STD, "to_rgb": False},
    "backbone": {"type": "pathzoo.TimmBackbone", "name": "test_resnet", "pretrained": "/home/jane/parent.pth"},
    "neck": {"type": "NonLinearNeck", "in_channels": 96, "hid_channels": 8, "out_channels": 4},
    "head": {"type": "NTXentHead", "temperature": 0.1},
}


def pretext_run(folder: Path, seed: int, start: dict | None = None, model=None) -> Path:
    """What a pretext run leaves: backbone, neck and head in its checkpoint, and figures of the pretext."""
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    backbone = TimmBackbone("test_resnet")
    for name, buffer in backbone.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.1, 0.4)
    state = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
    state |= {"neck.fc0.weight": torch.randn(8, 96), "head.scale": torch.ones(1)}
    torch.save({"state_dict": state, "meta": {"epoch": 9, "iter": 90}}, folder / "best.pth")
    run = {
        "task": "representation",
        "model": model or _PRETEXT,
        "model_input": INPUT,
        "classes": [],
        "study": "simclr",
        "initial_weights": start or {"source": "random"},
        "data": {"dataset": "UnlabelledTiles", "synthetic": True, "counts": {"subset": "train", "n_images": 40}},
    }
    (folder / "train_run.json").write_text(json.dumps(run))
    rows = [{"metric": "loss", "level": "tile", "n": 40, "value": 2.5, "low": None, "high": None}]
    (folder / "metrics.json").write_text(json.dumps({"rows": rows, "subset": "val", "dataset": "UnlabelledTiles"}))
    return folder / "best.pth"


def publish(checkpoint: Path, name: str, zoo: Path, **options) -> Path:
    return publish_model(checkpoint, name, "1.0.0", zoo, CARD, **options)


def start_of(pretrained: Path | str, folder: Path) -> dict:
    """What train() would record of a run in `folder` that begins with these weights."""
    from mmengine.config import Config

    backbone = {"type": "TimmBackbone", "name": "test_resnet", "pretrained": str(pretrained)}
    return initial_weights(Config({"model": {"backbone": backbone}, "work_dir": str(folder)}))


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> Path:
    """A zoo with kidney -> breast -> tiny: two pretexts, the first in half precision, and a classifier. Read only."""
    root = tmp_path_factory.mktemp("chain")
    kidney = publish(pretext_run(root / "kidney", 1), "kidney", root / "zoo", half=True)
    start = start_of(kidney, root / "breast")
    breast = pretext_run(root / "breast", 2, start)
    publish(breast, "breast", root / "zoo")
    return root


def classifier_run(folder: Path, start: dict, run_folder: Path) -> Path:
    """The tiny classifier's run, begun with other weights."""
    shutil.copytree(run_folder, folder)
    record = json.loads((folder / "train_run.json").read_text()) | {"initial_weights": start}
    (folder / "train_run.json").write_text(json.dumps(record))
    return folder / "epoch_5.pth"


def test_a_pretext_is_published_as_its_backbone(chain):
    folder = chain / "zoo/breast/1.0.0"
    manifest = read_manifest(folder)
    assert manifest.task == "representation" and manifest.classes == ()
    assert manifest.model == {
        "type": "mmpretrain.ImageClassifier",
        "data_preprocessor": {"type": "mmpretrain.ClsDataPreprocessor", "mean": MEAN, "std": STD, "to_rgb": False},
        "backbone": {"type": "pathzoo.TimmBackbone", "name": "test_resnet"},
        "neck": {"type": "mmpretrain.GlobalAveragePooling"},
    }
    assert manifest.metrics[0].rows[0].metric == "loss"
    model = get_model(folder)
    answer = model(tiles(3))
    assert isinstance(answer, Embeddings)
    backbone = TimmBackbone("test_resnet").eval()  # second derivation, from the checkpoint
    saved = torch.load(chain / "breast/best.pth", weights_only=True)["state_dict"]
    backbone.load_state_dict({k.removeprefix("backbone."): v for k, v in saved.items() if k.startswith("backbone.")})
    inputs = ((tiles(3).astype(np.float32) - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)
    with torch.no_grad():
        expected = backbone(torch.from_numpy(inputs))[-1].mean(dim=(2, 3)).numpy()
    np.testing.assert_allclose(answer.vectors, expected, atol=1e-5)
    card = (folder / "README.md").read_text()
    assert "a vector of 96 numbers for each tile" in card and "how training went" in card
    assert verify_model(folder, golden=True).ok


@pytest.mark.parametrize("name", ["pathzoo.SimCLR", "pathzoo.RotationPred", "mmpretrain.BYOL", "mmpretrain.SimSiam"])
def test_every_pretext_becomes_the_same_encoder(name):
    from pathzoo.zoo.allowlist import allowed_names, to_data

    assert name not in allowed_names(), "a published model never names a pretext"
    scope, _, last = name.partition(".")
    model = to_data(_PRETEXT | {"type": f"{scope}.models.selfsup.{last}", "base_momentum": 0.99})
    assert set(model) == {"type", "data_preprocessor", "backbone", "neck"}
    assert model["type"] == "mmpretrain.ImageClassifier"


def test_a_pretext_without_mean_and_std_is_refused(tmp_path):
    model = _PRETEXT | {"data_preprocessor": {"type": "SelfSupDataPreprocessor"}}
    with pytest.raises(ZooError, match=r"model\.data_preprocessor\.mean None is not input\.mean"):
        publish(pretext_run(tmp_path / "run", 1, model=model), "pretext", tmp_path / "zoo")


def test_the_best_of_a_pretext_shows_its_own_validation(tmp_path):
    best = pretext_run(tmp_path / "run", 1)
    rows = [{"metric": "loss", "level": "tile", "n": 40, "value": 1.5, "low": None, "high": None}]
    about = {"rows": rows, "subset": "val", "dataset": "UnlabelledTiles"}
    (tmp_path / "run/metrics.json").write_text(json.dumps(about | {"checkpoint": "epoch_9.pth"}))
    with pytest.raises(ZooError, match=r"was measured on epoch_9\.pth, not best\.pth"):
        publish(best, "pretext", tmp_path / "zoo")
    rows[0]["value"] = 1.25
    (tmp_path / "run/metrics_best.json").write_text(json.dumps(about | {"checkpoint": "best.pth"}))
    [evaluation] = read_manifest(publish(best, "pretext", tmp_path / "zoo")).metrics
    assert (evaluation.subset, evaluation.rows[0].value) == ("val", 1.25)


def test_a_published_parent_is_known_from_the_record(chain):
    kidney, breast = (read_manifest(chain / "zoo" / name / "1.0.0") for name in ("kidney", "breast"))
    [parent] = breast.parents
    sha256 = kidney.files["model.safetensors"].sha256
    assert (parent.name, parent.version, parent.sha256) == ("kidney", "1.0.0", sha256)
    start = breast.training.initial_weights
    assert (start.source, start.licence, start.sha256) == ("kidney 1.0.0", "CC-BY-4.0", sha256)


def test_a_zoos_name_starts_a_backbone(chain, monkeypatch):
    monkeypatch.setenv("PATHZOO_ZOO", str(chain / "zoo"))
    for given in ("kidney", "kidney@1.0.0", chain / "zoo/kidney/1.0.0", chain / "zoo/kidney/1.0.0/model.safetensors"):
        parent = read_parent(given)
        assert parent.record["name"] == "kidney" and parent.network == "test_resnet"
        assert list(parent.mean) == MEAN
    backbone = TimmBackbone("test_resnet", pretrained="kidney")
    backbone.init_weights()
    network = get_model("kidney").module.backbone
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in backbone.state_dict().items())


def test_a_changed_parent_starts_nothing(chain, tmp_path):
    folder = Path(shutil.copytree(chain / "zoo/kidney/1.0.0", tmp_path / "kidney"))
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(ZooError, match="SHA-256"):
        TimmBackbone("test_resnet", pretrained=str(folder)).init_weights()


@pytest.mark.parametrize("half", [False, True])
def test_a_parent_that_is_a_run_is_proved_by_its_weights(chain, run_folder, tmp_path, half):
    parent = publish(chain / "breast/best.pth", "mother", tmp_path / "zoo", half=half)
    start = start_of(chain / "breast/best.pth", tmp_path / "run")
    assert start["source"] == "run" and not Path(start["folder"]).is_absolute()
    checkpoint = classifier_run(tmp_path / "run", start, run_folder)
    child = read_manifest(publish(checkpoint, "tiny", tmp_path / "zoo", parents=[parent]))
    assert [(one.name, one.version) for one in child.parents] == [("mother", "1.0.0")]
    assert child.training.initial_weights.source == "mother 1.0.0"
    assert "breast/best.pth" not in child.model_dump_json()


def test_a_parent_that_is_a_run_has_to_be_published_first(chain, run_folder, tmp_path):
    start = start_of(chain / "breast/best.pth", tmp_path / "run")
    checkpoint = classifier_run(tmp_path / "run", start, run_folder)
    with pytest.raises(ZooError, match=r"made from best\.pth .*publish it first, then name its folder .*--parent"):
        publish(checkpoint, "tiny", tmp_path / "zoo")
    with pytest.raises(ZooError, match=r"kidney/1\.0\.0 holds other weights: publish that very checkpoint"):
        publish(checkpoint, "tiny", tmp_path / "zoo", parents=[chain / "zoo/kidney/1.0.0"])
    assert not (tmp_path / "zoo").exists()


def test_a_folder_that_contradicts_the_record_is_refused(chain, run_folder, tmp_path):
    other = publish(pretext_run(tmp_path / "other", 5), "kidney", tmp_path / "elsewhere")
    checkpoint = classifier_run(tmp_path / "run", start_of(chain / "zoo/kidney", tmp_path / "run"), run_folder)
    with pytest.raises(ZooError, match=r"is not the kidney 1\.0\.0 that the run began with"):
        publish(checkpoint, "tiny", tmp_path / "zoo", parents=[other])


def test_info_prints_the_ancestry(chain, run_folder, tmp_path, monkeypatch, capsys):
    zoo = Path(shutil.copytree(chain / "zoo", tmp_path / "zoo"))
    checkpoint = classifier_run(tmp_path / "run", start_of(zoo / "breast", tmp_path / "run"), run_folder)
    publish(checkpoint, "tiny", zoo)
    monkeypatch.setenv("PATHZOO_ZOO", str(zoo))
    assert main(["info", "tiny"]) == 0
    shown = capsys.readouterr().out.splitlines()
    digests = [read_manifest(zoo / name / "1.0.0").digest[:12] for name in ("breast", "kidney")]
    assert shown[-3:] == [
        "Made from:",
        f"  breast@1.0.0  representation, digest {digests[0]}  in this zoo",
        f"    kidney@1.0.0  representation, digest {digests[1]}  in this zoo",
    ]
    assert main(["info", "tiny", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["depth"], one["status"]) for one in content["ancestry"]] == [
        ("breast", 1, "in this zoo"),
        ("kidney", 2, "in this zoo"),
    ]
    assert content["parents"][0]["name"] == "breast"
    assert main(["info", "kidney"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("Made from no published model.")


def test_ancestors_that_are_elsewhere_gone_or_exchanged(chain, tmp_path, monkeypatch, no_zoo):
    zoo = Path(shutil.copytree(chain / "zoo", tmp_path / "zoo"))
    breast = zoo / "breast/1.0.0"
    manifest = read_manifest(breast)
    shutil.rmtree(zoo / "kidney")
    assert [one.status for one in ancestry(breast, manifest)] == ["not here"]
    assert verify_model(breast).ok, "a parent that is not here is no fault"
    monkeypatch.setenv("PATHZOO_ZOO", str(chain / "zoo"))
    assert [one.status for one in ancestry(breast, manifest)] == ["in another zoo"]
    monkeypatch.delenv("PATHZOO_ZOO")
    publish(pretext_run(tmp_path / "other", 5), "kidney", zoo)
    [one] = ancestry(breast, manifest)
    assert one.status == "differs" and one.digest != one.sha256
    report = verify_model(breast)
    assert [str(problem).split(" (")[0] for problem in report.problems] == [
        "model.json: parents: kidney 1.0.0 lies in the same zoo with other weights"
    ]
    (zoo / "kidney/1.0.0/model.json").write_text("{")
    assert "cannot be read" in str(verify_model(breast).problems[0])


def test_a_ring_of_parents_ends(chain, tmp_path, no_zoo, reseal):
    """A forged manifest may name itself, or its child, as its parent."""
    zoo = Path(shutil.copytree(chain / "zoo", tmp_path / "zoo"))
    breast = read_manifest(zoo / "breast/1.0.0")
    entry = {"name": "breast", "version": "1.0.0", "sha256": breast.files["model.safetensors"].sha256}
    reseal(zoo / "kidney/1.0.0", lambda content: content.update(parents=[entry]))
    found = ancestry(zoo / "breast/1.0.0", breast)
    assert [(one.name, one.depth) for one in found] == [("kidney", 1), ("breast", 2)]
