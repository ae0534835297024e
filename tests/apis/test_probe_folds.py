"""A probe over all folds: each picture is judged once, by what has not seen its patient."""

import numpy as np
import pytest

from pathzoo.apis.probe import probe
from pathzoo.datasets.phantom import write_breakhis
from pathzoo.errors import ConfigError

CONFIG = "breakhis_xception/full_resnet10t_1xb16_20e_phantom40x_small.py"
HOW = {"network": "test_resnet", "n_bootstrap": 20, "device": "cpu"}


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom")
    write_breakhis(root, patients=12, images_per_patient=2)
    split = {"scheme": "patient_kfold", "k": 3, "fold": 0, "seed": 0}
    return {"data_root": str(root), "split": split}


def value(rows, metric):
    return next(row for row in rows if row["metric"] == metric and row["level"] == "image")


def test_all_folds_are_the_single_folds_together(options):
    together = probe(None, CONFIG, options, **HOW, all_folds=True)
    alone = [probe(None, CONFIG, {**options, "fold": fold}, **HOW) for fold in range(3)]
    assert together.record["folds"] == 3
    assert together.record["linear"]["C"] == [one.record["linear"]["C"] for one in alone]
    for kind in ("knn", "linear"):
        rows = [value(one.record[kind]["rows"], "accuracy") for one in alone]
        right = sum(row["value"] * row["n"] for row in rows)
        found = value(together.record[kind]["rows"], "accuracy")
        assert found["n"] == sum(row["n"] for row in rows) == 24
        assert found["value"] == pytest.approx(right / 24)
        assert found["low"] <= found["value"] <= found["high"]
    tested = [info["item"] for one in alone for info in one.subsets["test"].infos]
    assert [info["item"] for info in together.subsets["test"].infos] == tested
    vectors = np.concatenate([one.subsets["test"].vectors for one in alone])
    np.testing.assert_allclose(together.subsets["test"].vectors, vectors, rtol=1e-4, atol=1e-5)  # other batches


def test_every_picture_is_embedded_once(options, monkeypatch):
    from pathzoo.apis import probe as module

    embedded, real = [], module.embed_dataset

    def counted(embedder, dataset, *how):
        embedded.extend(dataset.get_data_info(index)["item"] for index in range(len(dataset)))
        return real(embedder, dataset, *how)

    monkeypatch.setattr(module, "embed_dataset", counted)
    probe(None, CONFIG, options, **HOW, all_folds=True)
    assert len(embedded) == len(set(embedded)) == 24


def test_folds_need_a_split_that_has_them(options):
    split = {"scheme": "patient_ratio", "ratios": {"train": 0.5, "test": 0.5}, "seed": 0}
    with pytest.raises(ConfigError, match="all folds need a split by patient_kfold, this one is 'patient_ratio'"):
        probe(None, CONFIG, {**options, "split": split}, **HOW, all_folds=True)
