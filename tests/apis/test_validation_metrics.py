"""Which checkpoint a run's validation figures are of."""

import json

from tiny_run import CONFIG, draw_cohort, tiny_options

from pathzoo.apis.train import train


def test_the_best_ones_figures_are_kept_beside_the_last_ones(tmp_path):
    """A learning rate of 10 ruins the network after its first epoch, and a run that goes on does not forget that."""
    data = draw_cohort(tmp_path / "data")
    options = tiny_options(data, epochs=1)
    folder = train(CONFIG, tmp_path / "run", options=options)
    first = json.loads((folder / "metrics_best.json").read_text())
    assert first["checkpoint"] == "best_nll_epoch_1.pth" and first["subset"] == "val"
    assert json.loads((folder / "metrics.json").read_text())["rows"] == first["rows"]
    ruined = tiny_options(data, epochs=2) | {"optim_wrapper.optimizer.lr": 10.0}
    train(CONFIG, folder, options=ruined, resume=True)
    last = json.loads((folder / "metrics.json").read_text())
    assert last["checkpoint"] == "epoch_2.pth" and last["rows"] != first["rows"]
    kept = next(folder.glob("best_*.pth")).name
    best = json.loads((folder / "metrics_best.json").read_text())
    assert best["checkpoint"] == kept and best["rows"] == (first if kept == "best_nll_epoch_1.pth" else last)["rows"]
