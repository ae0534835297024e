"""A published generator draws from a lab's label maps; whom it has seen nobody can tell, and that goes along."""

import numpy as np
import pytest
import synthesize as tool
from slice_stores import write_slices

from pathzoo.apis import generators
from pathzoo.apis.synthesize import Drawing, synthesize
from pathzoo.ct.store import SliceStore
from pathzoo.datasets.slices import SliceSegmentation
from pathzoo.datasets.transforms.ct import HUWindow
from pathzoo.errors import ConfigError, DataError, ZooError
from pathzoo.paths import packaged_zoo
from pathzoo.zoo.load import get_model
from pathzoo.zoo.manifest_file import read_manifest
from pathzoo.zoo.verify import require_verified

CONFIG = "kits_pix2pix/pix2pix_unet_1xb4_40e_kits19_small.py"
NAME = "phantom-ct-pix2pix"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_slices(tmp_path_factory.mktemp("real") / "store", size=(128, 128))


@pytest.fixture(scope="module")
def options(store):
    return {"data_root": str(store)}


@pytest.fixture(scope="module")
def drawn(options, tmp_path_factory):
    out = tmp_path_factory.mktemp("drawn") / "store"
    return synthesize(CONFIG, NAME, out, Drawing(9, noise=False), options=options)


def test_its_pictures_are_those_that_the_loaded_model_draws(drawn):
    made = SliceStore(drawn)
    made.verify()
    values = get_model(NAME)(np.stack([made.label("train", index) for index in range(9)])).values
    pictures = np.stack([made.image("train", index) for index in range(9)])
    np.testing.assert_allclose(pictures, values[:, 0], atol=0.51)  # whole HU
    assert len(np.unique(pictures)) > 100


def test_the_record_names_the_model_and_its_weights(drawn):
    record, manifest = SliceStore(drawn).synthetic, read_manifest(packaged_zoo() / NAME / "1.0.0")
    assert record["published"] == f"{NAME}@1.0.0"
    assert record["generator"] == manifest.files["model.safetensors"].sha256


def test_what_could_not_be_compared_stands_beside_the_scores_of_who_trains_on_them(store, drawn):
    given = {
        "data_root": str(store),
        "subset": "train",
        "pipeline": [{"type": HUWindow, "centre": 0.0, "width": 400.0}],
    }
    texts = SliceSegmentation(**given, synthetic=drawn).describe()["caveats"]
    assert any(f"the published {NAME}@1.0.0, which drew the pictures, was trained on could not" in one for one in texts)
    assert any("was trained on phantoms" in one for one in texts)
    assert not any(NAME in one for one in SliceSegmentation(**given).describe()["caveats"])


def test_a_folder_does_as_well(options, drawn, tmp_path):
    folder = packaged_zoo() / NAME / "1.0.0"
    made = synthesize(CONFIG, folder, tmp_path / "made", Drawing(9, noise=False), options=options)
    assert SliceStore(made).digest == SliceStore(drawn).digest


@pytest.mark.parametrize(
    ("name", "more", "text"),
    [
        ("kits19-unet-demo", {}, "kits19-unet-demo@1.0.0: its task is segmentation"),
        (NAME, {"model_input.mpp": 0.5}, r"draws mpp None, .* wants 0.5"),
        (NAME, {"window_width": 350.0}, r"the window -200.0, 200.0, .* wants -175.0, 175.0"),
    ],
)
def test_a_model_of_another_kind_is_refused(options, tmp_path, name, more, text):
    with pytest.raises(ConfigError, match=text):
        synthesize(CONFIG, name, tmp_path / "made", Drawing(2), options=options | more)
    assert not (tmp_path / "made").exists()


def test_slices_that_do_not_show_its_window_are_refused(tmp_path):
    """Nothing could train on both: the store's HU are cut off where the drawn slices' are not."""
    clipped = write_slices(tmp_path / "clipped", size=(128, 128), known_range=(0, 255))
    with pytest.raises(ConfigError, match=r"clipped: its HU are known from 0 to 255 alone, and the window"):
        synthesize(CONFIG, NAME, tmp_path / "made", Drawing(2), options={"data_root": str(clipped)})
    assert not (tmp_path / "made").exists()


def test_a_name_that_is_none_gives_the_nearest_one(options, tmp_path, capsys):
    with pytest.raises(ZooError, match=NAME):
        synthesize(CONFIG, "phantom-ct-pix2pux", tmp_path / "made", Drawing(2), options=options)
    words = ["--out", str(tmp_path / "made"), "--count", "2", "--cfg-options", f"data_root={options['data_root']}"]
    assert tool.main([f"configs/{CONFIG}", "phantom-ct-pix2pux", *words]) != 0
    assert capsys.readouterr().err.count("\n") == 1
    assert tool.main([f"configs/{CONFIG}", NAME, *words]) == 0
    assert "2 slices of 4 training patients" in capsys.readouterr().out
    assert (tmp_path / "made" / "report.json").exists()


def test_slices_of_another_size_are_refused(tmp_path):
    """The network would draw at another scale than it was trained for, and nothing would tell."""
    large = write_slices(tmp_path / "large", size=(256, 192))
    with pytest.raises(ConfigError, match=r"large: 256 x 192 px, but model_input.tile_size is 128 x 128"):
        synthesize(CONFIG, NAME, tmp_path / "made", Drawing(2), options={"data_root": str(large)})


def test_a_store_without_validation_is_drawn_from(tmp_path):
    small = write_slices(tmp_path / "two", size=(128, 128), cohort={"train": ("P0", "P1"), "test": ("P2",)})
    made = synthesize(CONFIG, NAME, tmp_path / "made", Drawing(2), options={"data_root": str(small)})
    assert len(SliceStore(made)) == 2


def test_unknown_patients_end_it_before_anything_is_drawn(tmp_path):
    nobody = write_slices(tmp_path / "nobody", size=(128, 128), renamed={"P2": None})
    with pytest.raises(DataError, match=r"nobody: the patient of case_P2/0001 is not known \(2 such slices\)"):
        synthesize(CONFIG, NAME, tmp_path / "made", Drawing(1), options={"data_root": str(nobody)})


def test_a_manifest_without_a_record_of_training_is_no_obstacle(store, options, monkeypatch, tmp_path):
    monkeypatch.setattr(
        generators, "require_verified", lambda folder: require_verified(folder).model_copy(update={"training": None})
    )
    made = synthesize(CONFIG, NAME, tmp_path / "made", Drawing(1), options=options)
    assert len(SliceStore(made).synthetic["generator_caveats"]) == 1
