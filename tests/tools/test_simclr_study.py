"""The grid of study 2: who learns from what, which runs are shared, and which learning rate is kept."""

import json
import shutil
from argparse import Namespace
from types import SimpleNamespace

import pytest
import reproduce
from studies import simclr
from studies.results import Results

from pathzoo.datasets.phantom import write_tiles
from pathzoo.errors import ConfigError

_FAST, _SLOW_RATE = simclr._TRANSFER_LRS


class Recorder:
    """Stands in for training, testing and probing, and writes what they leave behind."""

    def __init__(self):
        self.trained, self.tested, self.probed = {}, [], []

    def train(self, file, work, resume, options, seed):
        self.trained[work.name] = (file, options, seed)
        work.mkdir(parents=True)
        # Of the classifiers with a parent the slower rate is better, of the others the faster.
        better = _SLOW_RATE if "parent" in options else _FAST
        loss = 0.5 if options.get(simclr._LR) == better else 1.0
        rows = [{"metric": "nll", "level": "tile", "value": loss}]
        (work / "metrics_best.json").write_text(json.dumps({"rows": rows}))
        (work / "best_loss_epoch_3.pth").touch()

    def test(self, file, work_dir, options):
        self.tested.append(options)
        row = {"metric": "accuracy", "level": "tile", "value": 0.75, "low": None, "high": None}
        (work_dir / "metrics.json").write_text(json.dumps({"rows": [row]}))

    def probe(self, parent, file, options, n_bootstrap, seed):
        self.probed.append(parent)
        row = {"metric": "accuracy", "level": "tile", "value": 0.25, "low": None, "high": None}
        counts = {"test": {"n_images": 7, "n_patients": 3}}
        return SimpleNamespace(record={"linear": {"rows": [row]}, "knn": {"rows": [row]}, "counts": counts})

    def pretexts(self):
        return {name: run for name, run in self.trained.items() if "/full_" not in run[0]}

    def chain(self, options):
        """The runs up from a classifier's options: (config's name, tissue, label_fraction)."""
        found = []
        while "parent" in options:
            name = options["parent"].split("/")[-2]
            file, options, _ = self.trained[name]
            place = options.get("source") or options["data_root"]
            found.append((file.split("/")[1].split("_")[0], place.split("/")[-1], options.get("label_fraction")))
        return found[::-1]


@pytest.fixture(scope="module")
def tissues(tmp_path_factory):
    """Two tiles of each of three patients of every tissue. Read only."""
    root = tmp_path_factory.mktemp("tissues")
    for tissue in ("breast", "kidney", "noise"):
        write_tiles(root / tissue, tissue=tissue, patients=3, tiles_per_patient=2)
    return root


@pytest.fixture(scope="module")
def large_tissues(tmp_path_factory):
    """The same in tiles that the configs of the paper's scale take."""
    root = tmp_path_factory.mktemp("large")
    for tissue in ("breast", "kidney", "noise"):
        write_tiles(root / tissue, tissue=tissue, patients=3, tiles_per_patient=1, size=224, mpp=0.5)
    return root


@pytest.fixture
def recorder(monkeypatch, tissues):
    found = Recorder()
    for name in ("train", "test", "probe"):
        monkeypatch.setattr(simclr, name, getattr(found, name))

    def draw(folder, seed, wanted, scale):
        root = folder / "data" / f"phantom{seed}"
        for tissue in wanted:
            if not (root / tissue).exists():
                shutil.copytree(tissues / tissue, root / tissue)
        return root

    monkeypatch.setattr(simclr, "_draw", draw)
    return found


def run(tmp_path, **changes):
    usual = {"scale": "small", "data_root": "phantom", "data_name": None, "seeds": 1, "first_seed": 7, "arms": None}
    arguments = Namespace(**{**usual, "cfg_options": [], "weights": [], "keep": False, **changes})
    results = Results(tmp_path / "results.csv", simclr.METRICS)
    simclr.run(arguments, results, tmp_path / "work")
    return results.rows()


def test_the_grid_learns_from_what_it_says_and_shares_what_is_the_same(recorder, tmp_path):
    rows = run(tmp_path)
    assert [row["arm"] for row in rows] == [arm.name for arm in simclr.ARMS]
    assert all(row["status"] == "done" and row["seed"] == "7" for row in rows)
    for arm, options in zip(simclr.ARMS, recorder.tested, strict=True):
        assert options["label_fraction"] == arm.fraction
        wanted = []
        for link in arm.chain:
            share = None if link.tissue != "breast" else 1.0 if arm.everything else arm.fraction
            wanted.append((link.task, link.tissue, share))
        assert recorder.chain(options) == wanted, arm.name
    # 4 tasks on 3 fractions and on all tiles, kidney, noise, noise then breast, breast a second time on each; kidney,
    # and breast the first time, are learnt from once.
    assert len(recorder.pretexts()) == 4 * 3 + 4 + 1 + 1 + 1 + 4
    assert {seed for _, _, seed in recorder.trained.values()} == {7}


def test_every_pretext_run_takes_as_many_steps_and_every_classifier(recorder, tmp_path):
    run(tmp_path)
    steps = {True: set(), False: set()}
    for file, options, _ in recorder.trained.values():
        steps["/full_" in file].add(options["samples_per_epoch"] / options["train_dataloader.batch_size"])
    assert [len(found) for found in steps.values()] == [1, 1]


def test_validation_takes_the_learning_rate(recorder, tmp_path):
    rows = {row["arm"]: row for row in run(tmp_path, arms=["supervised, 5 %", "SimCLR, 5 %"])}
    assert rows["supervised, 5 %"]["note"] == f"learning rate {_FAST:g}"
    assert rows["SimCLR, 5 %"]["note"] == f"learning rate {_SLOW_RATE:g}"
    assert [options[simclr._LR] for options in recorder.tested] == [_FAST, _SLOW_RATE]


def test_a_rerun_trains_nothing_and_other_options_train_again(recorder, tmp_path):
    run(tmp_path, arms=["SimCLR, 5 %"])
    before = len(recorder.trained)
    assert len(run(tmp_path, arms=["SimCLR, 5 %"])) == 1
    assert len(recorder.trained) == before
    assert len(run(tmp_path, arms=["SimCLR, 5 %"], cfg_options=["mpp=0.5"])) == 2


def test_other_tiles_and_other_settings_are_learnt_from_anew(recorder, tmp_path, monkeypatch):
    arms = ["SimCLR, 5 %"]
    run(tmp_path, arms=arms)
    first = set(recorder.trained)
    monkeypatch.setattr(simclr, "_PRETEXT_LR", {simclr._LR: 1e-4})
    run(tmp_path, arms=arms)
    second = set(recorder.trained) - first
    assert len(second) == 3, "a pretext run, and the classifiers that begin with it"
    breast = next((tmp_path / "work/data").iterdir()) / "breast"
    picture = next((breast / "tiles").iterdir())
    picture.write_bytes(next(p for p in (breast / "tiles").iterdir() if p != picture).read_bytes())
    assert len(run(tmp_path, arms=arms)) == 3
    assert len(set(recorder.trained) - first - second) == 3


def test_tiles_that_are_not_at_hand_read_not_run(recorder, tmp_path):
    run(tmp_path, arms=["supervised, 5 %"])
    breast = next((tmp_path / "work/data").iterdir())
    arms = ["supervised, 5 %", "SimCLR, kidney then breast, 5 %"]
    rows = run(tmp_path, arms=arms, data_root=str(breast), data_name="ours")[1:]
    assert [(row["status"], row["note"]) for row in rows if row["status"] != "done"] == [
        ("not run", "no tiles of kidney at hand")
    ]
    assert {row["data"] for row in rows} == {"ours"}


def _paper(tmp_path, large_tissues, **changes):
    return run(tmp_path, scale="paper", data_root=str(large_tissues), **changes)


def test_without_imagenet_weights_no_arm_of_the_papers_scale_is_run(recorder, tmp_path, large_tissues):
    """The study's ResNet-50 begins with them in every run; a row is never filled from random weights."""
    arms = [arm.name for arm in simclr.ARMS if arm in simclr.SMOKE or arm.fraction == 1]  # one of every kind
    rows = _paper(tmp_path, large_tissues, arms=arms)
    assert [row["arm"] for row in rows] == arms
    assert {(row["status"], row["note"], row["accuracy_tile"]) for row in rows} == {
        ("not run", "no ImageNet weights of resnet50 at hand", "")
    }
    assert not recorder.trained
    assert len(_paper(tmp_path, large_tissues, arms=arms[:1])) == len(rows)
    assert "supervised, 100 %: no ImageNet weights of resnet50 at hand" in simclr.table(rows)


def test_imagenet_weights_are_what_every_chain_begins_with(recorder, tmp_path, large_tissues):
    files = [tmp_path / "one.pth", tmp_path / "two.pth"]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]))
    arms = ["supervised, 5 %", "SimCLR, kidney then breast, 5 %"]
    given = {"arms": arms, "weights": [f"resnet50={files[0]}"]}
    rows = _paper(tmp_path, large_tissues, **given)
    assert [row["status"] for row in rows] == ["done", "done"]
    started = {(file.split("/")[1].split("_")[0], options.get("source") is not None): options["parent"]
               for file, options, _ in recorder.trained.values()}  # fmt: skip
    # The classifier of the chain is the later of the two.
    assert started[("simclr", True)] == str(files[0]), "kidney"
    assert started[("simclr", False)].endswith("best_loss_epoch_3.pth"), "breast, from kidney"
    assert started[("full", False)].endswith("best_loss_epoch_3.pth")
    assert recorder.tested[0]["parent"] == str(files[0]), "supervised"
    assert recorder.probed[0] == files[0] and recorder.probed[1].name == "best_loss_epoch_3.pth"
    trained = len(recorder.trained)
    assert len(_paper(tmp_path, large_tissues, **given)) == 2 and len(recorder.trained) == trained, "a rerun"
    assert len(_paper(tmp_path, large_tissues, arms=arms, weights=[f"resnet50={files[1]}"])) == 4, "other weights"
    assert len(recorder.trained) == 2 * trained


def test_own_initial_weights_take_the_place_of_imagenets(recorder, tmp_path, large_tissues):
    rows = _paper(tmp_path, large_tissues, arms=["supervised, 5 %"], cfg_options=["model.backbone.pretrained=None"])
    assert rows[0]["status"] == "done" and "parent" not in recorder.tested[0]


def test_weights_that_nobody_takes_are_refused(recorder, tmp_path, large_tissues):
    (tmp_path / "w.pth").touch()
    with pytest.raises(ConfigError, match=r"begins with ImageNet weights of vgg16 .* those of resnet50"):
        _paper(tmp_path, large_tissues, weights=[f"vgg16={tmp_path / 'w.pth'}"])
    with pytest.raises(ConfigError, match="they begin with none"):
        run(tmp_path, arms=["SimCLR, 5 %"], weights=[f"resnet50={tmp_path / 'w.pth'}"])
    with pytest.raises(ConfigError, match="expected NETWORK=FILE"):
        run(tmp_path, weights=[f"resnet50={tmp_path / 'gone.pth'}"])
    assert not recorder.trained


def test_options_reach_the_configs_that_have_a_place_for_them(recorder, tmp_path):
    run(tmp_path, arms=["SimCLR, kidney then breast, 5 %"], cfg_options=["tiles_per_epoch=10"])
    with_tiles = [file for file, options, _ in recorder.trained.values() if "tiles_per_epoch" in options]
    assert len(with_tiles) == 1 and "unlabelled" in with_tiles[0]


def test_bad_usage_is_one_line_and_2(recorder, tmp_path, capsys):
    words = ["simclr", "--work-dir", str(tmp_path)]
    assert reproduce.main([*words, "--arms", "nothing"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert reproduce.main([*words, "--cfg-options", "samplesperepoch=1"]) == 2
    assert "did you mean 'samples_per_epoch'" in capsys.readouterr().err


@pytest.mark.slow
def test_smoke_runs_an_arm_of_every_kind(tmp_path):
    assert reproduce.main(["simclr", "--work-dir", str(tmp_path)]) == 0
    rows = Results(tmp_path / "simclr/smoke/results.csv", simclr.METRICS).rows()
    assert [row["status"] for row in rows] == ["done"] * len(simclr.SMOKE)
    assert all(row["accuracy_tile"] and row["knn_accuracy_tile"] for row in rows)
