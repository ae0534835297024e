"""Finding, loading, feeding."""

import json
import os
import shutil

import numpy as np
import pytest
from tiny_model import CLASSES, TILE, tiles

from pathzoo.errors import DataError, ZooError
from pathzoo.wsi.predictor import ClassProbs
from pathzoo.zoo.find import find_model, list_models
from pathzoo.zoo.load import get_model
from pathzoo.zoo.manifest import ModelInput
from pathzoo.zoo.prepare import prepare_image


def put(zoo, root, reseal, name="tiny", version="1.0.0", **fields):
    """Copies the published model into another zoo under a name and version of its own."""
    folder = root / name / version
    shutil.copytree(zoo / "tiny" / "1.0.0", folder)
    reseal(folder, lambda content: content.update(name=name, version=version, **fields))
    return folder


def test_look_up_order(zoo, no_zoo, tmp_path, monkeypatch, reseal):
    in_cache = put(zoo, no_zoo / "zoo", reseal)
    assert find_model("tiny") == in_cache
    packaged = put(zoo, tmp_path / "packaged", reseal)
    assert find_model("tiny") == packaged
    first, second = put(zoo, tmp_path / "first", reseal), put(zoo, tmp_path / "second", reseal)
    monkeypatch.setenv("PATHZOO_ZOO", os.pathsep.join(str(tmp_path / name) for name in ("gone", "first", "second")))
    assert find_model("tiny") == first
    assert find_model(second) == second
    assert find_model(str(second)) == second
    assert find_model(second.parent) == second
    assert [row["folder"] for row in list_models()] == [str(first)]  # the others are the same name and version


def test_versions(zoo, no_zoo, reseal):
    for version in ("1.9.0", "1.10.0", "2.0.0-rc.1"):
        put(zoo, no_zoo / "zoo", reseal, version=version)
    assert find_model("tiny").name == "1.10.0"
    assert find_model("tiny@1.9.0").name == "1.9.0"
    assert find_model("tiny@2.0.0-rc.1").name == "2.0.0-rc.1"
    with pytest.raises(ZooError, match=r"no version '3\.0\.0'; there are 1\.9\.0, 1\.10\.0, 2\.0\.0-rc\.1"):
        find_model("tiny@3.0.0")
    assert [row["version"] for row in list_models()] == ["2.0.0-rc.1", "1.10.0", "1.9.0"]


def test_unknown_names(zoo, no_zoo, tmp_path, reseal):
    put(zoo, no_zoo / "zoo", reseal, name="breakhis_small")
    with pytest.raises(ZooError, match="did you mean 'breakhis_small'"):
        get_model("breakhis_smal")
    with pytest.raises(ZooError, match="no published model"):
        get_model(tmp_path / "nowhere")
    with pytest.raises(ZooError, match="no published model"):
        get_model("no/such/folder")
    with pytest.raises(ZooError, match=r"here: no model\.json in it"):
        get_model("./here")
    with pytest.raises(ZooError, match=r"there are breakhis_small.*\. Looked in"):
        get_model("zzzzzzzzzzz")


def test_a_folder_of_the_working_directory_does_not_hide_a_name(zoo, no_zoo, tmp_path, monkeypatch, reseal):
    folder = put(zoo, no_zoo / "zoo", reseal)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert find_model("tiny") == folder


def test_filters(zoo, no_zoo, reseal):
    root = no_zoo / "zoo"
    put(zoo, root, reseal, name="a_breast")
    put(zoo, root, reseal, name="b_kidney", organ="kidney", licence="CC-BY-NC-4.0", commercial_use=False)

    def names(**options):
        return [row["name"] for row in list_models(**options)]

    assert names() == ["a_breast", "b_kidney"]
    assert names(pattern="kid") == ["b_kidney"]
    assert names(pattern="a_*") == ["a_breast"]
    assert names(pattern="MALIGNANT") == ["a_breast", "b_kidney"]  # in the description
    assert names(organ="Kidney") == ["b_kidney"]
    assert names(task="segmentation") == []
    assert names(mpp=0.52) == ["a_breast", "b_kidney"]  # tolerance 10 %
    assert names(mpp=0.6) == []
    assert names(commercial=True) == ["a_breast"]
    assert names(commercial=False) == ["b_kidney"]
    with pytest.raises(ZooError, match="did you mean 'segmentation'"):
        list_models(task="segmentaton")
    assert json.dumps(list_models())


def test_a_damaged_model_is_left_out_with_a_warning(zoo, no_zoo, reseal):
    folder = put(zoo, no_zoo / "zoo", reseal)
    (folder / "model.json").write_text("{")
    with pytest.warns(UserWarning, match="left out"):
        assert list_models() == []


def test_cached_models_are_verified_each_time(zoo, no_zoo, reseal):
    folder = put(zoo, no_zoo / "zoo", reseal)
    assert get_model("tiny").name == "tiny"
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ZooError, match="SHA-256"):
        get_model("tiny")


def test_a_folder_under_anothers_name(zoo, no_zoo, reseal):
    folder = put(zoo, no_zoo / "zoo", reseal)
    shutil.copytree(folder, no_zoo / "zoo" / "other" / "1.0.0")
    with pytest.raises(ZooError, match=r"holds tiny 1\.0\.0"):
        get_model("other")
    folder.rename(folder.parent / "1.0.1")
    with pytest.raises(ZooError, match=r"holds tiny 1\.0\.0"):
        get_model("tiny")
    assert get_model(folder.parent / "1.0.1").version == "1.0.0"  # a folder given as such may have any name


def test_tensors_that_do_not_fit_the_config(published, reseal):
    from safetensors.torch import load_file, save_file

    tensors = load_file(published / "model.safetensors")
    name = "head.fc.bias"
    tensors["head.fc.offset"] = tensors.pop(name)
    save_file(tensors, published / "model.safetensors")
    reseal(published, lambda content: None)
    with pytest.raises(ZooError, match=r"lacks head\.fc\.bias"):
        get_model(published)
    tensors[name] = tensors["head.fc.offset"].clone()
    save_file(tensors, published / "model.safetensors")
    reseal(published, lambda content: content["weights"].update(n_tensors=len(tensors)))
    with pytest.raises(ZooError, match=r"too many: head\.fc\.offset"):
        get_model(published)


def test_a_predictor(zoo):
    import torch

    model = get_model(zoo / "tiny" / "1.0.0")
    assert (model.name, model.version, model.task) == ("tiny", "1.0.0", "classification")
    assert model.classes == tuple(CLASSES)
    assert model.digest == json.loads((zoo / "tiny" / "1.0.0" / "model.json").read_text())["digest"]
    assert (model.input.tile_size, model.input.mpp, model.input.mpp_tolerance) == ((TILE, TILE), 0.5, 0.1)
    assert not model.module.training
    assert {parameter.dtype for parameter in model.module.parameters()} == {torch.float32}
    result = model(tiles(4))
    assert isinstance(result, ClassProbs)
    assert result.probs.dtype == np.float32
    np.testing.assert_allclose(result.probs.sum(axis=1), 1, atol=1e-6)
    assert model(tiles(4)[:0]).probs.shape == (0, 2)
    np.testing.assert_allclose(model(tiles(4)[2:3]).probs, result.probs[2:3], atol=1e-6)  # no tile sees another


def test_red_is_red(zoo):
    """Channels are taken in RGB order: a red tile and a blue one differ as the first mean says."""
    import torch

    model = get_model(zoo / "tiny")
    red = np.zeros((1, TILE, TILE, 3), dtype=np.uint8)
    red[..., 0] = 255
    seen = []
    hook = model.module.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(red)
    hook.remove()
    expected = torch.tensor([(255 - 180) / 40, (0 - 130) / 50, (0 - 170) / 35])
    torch.testing.assert_close(seen[0][0, :, 5, 7], expected)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (np.zeros((1, TILE, TILE, 3), dtype=np.float32), "uint8"),
        (np.zeros((TILE, TILE, 3), dtype=np.uint8), "N, H, W, 3"),
        (np.zeros((1, 3, TILE, TILE), dtype=np.uint8), "N, H, W, 3"),
        (np.zeros((1, TILE, TILE + 1, 3), dtype=np.uint8), "takes tiles of 64 x 64 px, not 65 x 64"),
        ("picture.png", "not str"),
    ],
)
def test_wrong_tiles(zoo, wrong, match):
    model = get_model(zoo / "tiny")
    with pytest.raises(DataError, match=match):
        model(wrong)


@pytest.mark.parametrize(
    "device", ["gpu", "cuda:99", "cuda:-1", "cuda:x", "cpu:0", "mps", "meta", "xpu:0", "", "cpu\n", "cuda:0 "]
)
def test_a_device_that_is_not_there(zoo, device):
    with pytest.raises(ZooError, match="device") as caught:
        get_model(zoo / "tiny", device=device)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("stain_fit", {"method": "vahadane", "parameters": {}}, "vahadane"),
        ("stain_fit", {"method": "macenko", "parameters": {}}, "macenko"),
        ("hu_window", [-100.0, 400.0], "-100.0, 400.0"),
        ("value_range", [0.0, 1.0], "0.0, 1.0"),
    ],
)
def test_input_that_this_version_does_not_apply(published, reseal, field, value, shown):
    def change(content):
        content["input"][field] = value

    reseal(published, change)
    with pytest.raises(ZooError, match=rf"input\.{field} is .*{shown}"):
        get_model(published)


def test_a_model_of_another_task_is_refused_by_name(published, reseal):
    reseal(published, lambda content: content.update(task="translation"))
    with pytest.raises(ZooError, match=r"'mmpretrain\.ImageClassifier' is no whole translation model"):
        get_model(published)
    reseal(published, lambda content: content.update(task="segmentation"))
    with pytest.raises(ZooError, match=r"'mmpretrain\.ImageClassifier' is no whole segmentation model"):
        get_model(published)


def spec(resize, tile=(32, 16), mpp=0.5):
    block = {"tile_size": tile, "mpp": mpp, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "resize": resize}
    return ModelInput.model_validate(block)


def test_prepare_by_mpp_averages_areas_and_takes_the_centre():
    image = np.random.default_rng(0).integers(0, 256, (80, 160, 3), dtype=np.uint8)
    tile = prepare_image(image, spec({"kind": "mpp"}), mpp=0.25)
    blocks = image.reshape(40, 2, 80, 2, 3).mean(axis=(1, 3))  # 2 x 2 px of 0.25 µm are one of 0.5 µm
    expected = blocks[12:28, 24:56]
    assert tile.shape == (16, 32, 3)
    assert np.abs(tile - expected).max() <= 1


def test_prepare_pads_small_images_with_white():
    image = np.zeros((8, 40, 3), dtype=np.uint8)
    tile = prepare_image(image, spec({"kind": "mpp"}), mpp=0.5)
    assert (tile[:4] == 255).all()
    assert (tile[4:12] == 0).all()
    assert (tile[12:] == 255).all()


def test_prepare_by_short_side():
    image = np.zeros((64, 128, 3), dtype=np.uint8)
    image[:, 64:] = 200
    tile = prepare_image(image, spec({"kind": "short_side", "size": 16}, mpp=None))
    assert tile.shape == (16, 32, 3)
    assert (tile[:, :16] == 0).all()
    assert (tile[:, 16:] == 200).all()


@pytest.mark.parametrize(("mpp", "match"), [(None, "--mpp"), (1.0, "coarser"), (-1.0, "above 0"), (float("nan"), "0")])
def test_prepare_refuses_rather_than_guesses(mpp, match):
    with pytest.raises(DataError, match=match):
        prepare_image(np.zeros((64, 64, 3), dtype=np.uint8), spec({"kind": "mpp"}), mpp)


def test_prepare_within_the_tolerance_and_through_the_model(zoo):
    model = get_model(zoo / "tiny")
    tile = model.prepare(np.zeros((100, 100, 3), dtype=np.uint8), mpp=0.54)
    assert tile.shape == (TILE, TILE, 3)
    assert model(tile[None]).probs.shape == (1, 2)
