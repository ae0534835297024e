"""Every config of the repository: parsed, bound to its components' signatures, built; small ones take a step."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from slice_stores import write_slices

from pathzoo.apis.config import load_config
from pathzoo.apis.setup import setup
from pathzoo.apis.train import train
from pathzoo.datasets.detection_tiles import DET_META_KEYS
from pathzoo.datasets.phantom import write_biopsies, write_breakhis, write_regions, write_tiles
from pathzoo.datasets.regions import SEG_META_KEYS
from pathzoo.datasets.slices import SLICE_META_KEYS
from pathzoo.paths import configs_root, leaf_configs
from pathzoo.registry import MODELS, TRANSFORMS
from pathzoo.wsi.annotated_boxes import write_box_tiles
from pathzoo.wsi.box_rules import BoxRules
from pathzoo.wsi.slide_objects import find_object_sources
from pathzoo.zoo.allowlist import find_refused, to_data
from pathzoo.zoo.manifest import ModelInput

_ALL = {str(path.relative_to(configs_root())): path for path in leaf_configs()}
_SEGMENTATION = {name for name in _ALL if name.startswith("self_training/")}
_PRETEXT = {n for n in _ALL if n.startswith(("rotation_pred/", "simclr/")) and not n.startswith("simclr/full_")}
_DETECTION = {name for name in _ALL if name.startswith("glomerulus_yolov5/")}
_SLICES = {name for name in _ALL if name.startswith("kits_pix2pix/") and "breastlesions" not in name}
#: Segmentation, and a translator, of regions.
_REGIONS = {name for name in _ALL if "breastlesions" in name}
_TRANSLATION = {name for name in _ALL if name.startswith("kits_pix2pix/pix2pix")}
_SMALL = [name for name in _ALL if name.endswith("_small.py")]


@pytest.fixture(scope="module", autouse=True)
def _set_up():
    setup()


@pytest.fixture(scope="module")
def phantom(tmp_path_factory) -> Path:
    """Ten phantom patients at 40X and 100X, and their table as a lab would write it."""
    root = tmp_path_factory.mktemp("phantom")
    write_breakhis(root, patients=10, images_per_patient=1, magnifications=(40, 100), size=(700, 460))
    lines = ["path,label,patient,mpp"]
    for path in sorted(root.rglob("*.png")):
        patient = path.parts[-3].split("-")[1][:5]
        mpp = 0.49 if path.parent.name == "40X" else 0.20
        lines.append(f"{path.relative_to(root)},{path.parts[-6]},{patient},{mpp}")
    (root / "tiles.csv").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def regions(tmp_path_factory) -> Path:
    """Ten phantom patients with a labelled region each."""
    root = tmp_path_factory.mktemp("regions")
    write_regions(root, patients=10, regions_per_patient=1, size=(200, 150), mpp=2.0)
    return root


@pytest.fixture(scope="module")
def tiles(tmp_path_factory) -> Path:
    """Eighteen phantom patients of breast and six of kidney, two tiles each."""
    root = tmp_path_factory.mktemp("tiles")
    write_tiles(root / "breast", tissue="breast", patients=18, tiles_per_patient=2)
    write_tiles(root / "kidney", tissue="kidney", patients=6, tiles_per_patient=2)
    return root


@pytest.fixture(scope="module")
def biopsies(tmp_path_factory) -> Path:
    """Six phantom patients with a biopsy each, cut into tiles with boxes."""
    root = tmp_path_factory.mktemp("biopsies")
    write_biopsies(root, patients=6, slides_per_patient=1, size=(1000, 700), mpp=2.0)
    sources, _ = find_object_sources(root / "slides", root / "annotations", root / "patients.csv")
    write_box_tiles(sources, root / "tiles", BoxRules(tile=(448, 448), overlap=0.0, mpp=2.0, classes=("glomerulus",)))
    return root / "tiles"


@pytest.fixture(scope="module")
def slices(tmp_path_factory) -> Path:
    """Seven drawn patients with three slices each."""
    return write_slices(tmp_path_factory.mktemp("slices") / "store", size=(128, 128))


@pytest.fixture(scope="module")
def drawn(phantom, regions, tiles, biopsies, slices) -> dict[str, Path]:
    """All of it by name."""
    return {"phantom": phantom, "regions": regions, "tiles": tiles, "biopsies": biopsies, "slices": slices}


def _shrunk(name: str, phantom: Path, regions: Path, tiles: Path, biopsies: Path, slices: Path) -> dict:
    """Options that make a run of a config a matter of seconds: batches of 2, one epoch, no worker processes."""
    config = load_config(name)
    if name in _DETECTION:
        options = {"data_root": str(biopsies), "train_dataloader.batch_size": 2, "samples_per_epoch": 4}
        return options | {"train_cfg.max_epochs": 1, "train_cfg.val_interval": 1}
    if name in _REGIONS:
        options = {"data_root": str(regions), "patches_per_epoch": 4}
        options |= {"train_cfg.val_interval": 1} if name in _TRANSLATION else {}
        # Two epochs, so that a round of pseudo-labels is made and trained on.
        return options | (
            {"train_cfg.max_epochs": 2, "rounds": [1]} if "rounds" in config.parameters else {"train_cfg.max_epochs": 1}
        )
    options = {"train_cfg.max_epochs": 1} | _random_weights(name)
    for part in ("train", "val", "test"):
        if config[f"{part}_dataloader"] is None:
            continue
        options |= {f"{part}_dataloader.batch_size": 2, f"{part}_dataloader.num_workers": 0}
        options |= {f"{part}_dataloader.persistent_workers": False}
    if name in _SLICES:
        return options | {"data_root": str(slices), "samples_per_epoch": 4}
    if "source" in config.parameters:
        return options | {"source": str(tiles / "kidney")}
    if "label_fraction" in config.parameters:
        return options | {"data_root": str(tiles / "breast")}
    options |= (
        {"ann_file": str(phantom / "tiles.csv")} if "ann_file" in config.parameters else {"data_root": str(phantom)}
    )
    return options


def _random_weights(name: str) -> dict:
    return {} if name in _DETECTION | _TRANSLATION else {"model.backbone.pretrained": None}


@pytest.mark.parametrize("name", _ALL)
def test_config_says_what_it_is(name):
    """The head is the lab note; what publishing needs is declared and valid; a leaf inherits from _base_ alone."""
    text = _ALL[name].read_text()
    assert text.startswith('"""')
    assert "Command: " in text.split('"""')[1]
    assert "Result: " in text.split('"""')[1] or "Your own tiles" in text
    assert "import *" not in text
    assert all("from .._base_." in line for line in text.splitlines() if line.strip().startswith("from ."))
    config = load_config(name)
    assert config.default_scope is None
    declared = config.to_dict()["model_input"]
    preprocessor = config.to_dict()["model"]["data_preprocessor"]
    ModelInput.model_validate_json(
        json.dumps(declared | {"value_range": [0, 255], "mean": preprocessor["mean"], "std": preprocessor["std"]})
    )


@pytest.mark.parametrize("name", _ALL)
def test_model_is_built_and_gives_its_classes(name):
    config = load_config(name, _random_weights(name))
    size = config.model_input.tile_size
    with torch.device("meta"):
        model = MODELS.build(copy.deepcopy(config.model)).eval()
        channels = len(config.model.data_preprocessor.mean)
        if name in _TRANSLATION:
            logits = model.generators["image"](torch.zeros(2, model.n_classes, size[1], size[0]))
        else:
            logits = model(torch.zeros(2, channels, size[1], size[0]), mode="tensor")
    if name in _TRANSLATION:
        assert logits.shape == (2, channels, size[1], size[0])
    elif name in _SLICES:  # mmseg's FPN head answers at stride 4; what it predicts is enlarged
        stride = 4 if "neck" in config.model else 1
        assert logits.shape == (2, 3, size[1] // stride, size[0] // stride)
    elif name in _SEGMENTATION:
        assert logits.shape == (2, config.model.decode_head.num_classes, size[1], size[0])
    elif name in _DETECTION:
        assert [maps.shape[2:4] for maps in logits[0]] == [(size[1] // s, size[0] // s) for s in (8, 16, 32)]
        classes = config.model.bbox_head.num_classes
        # RTMDet: a score for each class in a cell; YOLOv5: x, y, width, height, objectness, classes of 3 anchors
        wanted = (classes,) if "rtmdet" in name else (3, 5 + classes)
        assert {(maps.shape[1], *maps.shape[4:]) for maps in logits[0]} == {wanted}
    elif name in _PRETEXT:  # "tensor" gives the backbone's maps
        features = config.model.neck.get("in_channels", config.model.head.get("in_channels"))
        assert logits[-1].shape[:2] == (2, features)
    else:
        assert logits.shape == (2, config.model.head.num_classes)
    assert not list(find_refused(to_data(config.model)))  # so it can be published


@pytest.mark.parametrize("name", sorted(set(_ALL) - _SLICES))
def test_red_patch_reaches_the_network_as_red(name, tmp_path):
    """OpenMMLab's own loaders give BGR; pictures inside pathzoo are RGB, in training and in testing."""
    config = load_config(name)
    red = np.zeros((460, 700, 3), np.uint8)
    red[..., 0] = 250
    Image.fromarray(red).save(tmp_path / "red.png")
    for part in ("train", "val" if name in _PRETEXT else "test"):
        if config[f"{part}_dataloader"] is None:
            continue
        results = {"img_path": str(tmp_path / "red.png"), "item": "red.png", "gt_label": 0, "patient": "p"}
        results |= {"slide": None, "mpp": 0.49, "sample_seed": 1}
        dataset = config[f"{part}_dataloader"].dataset
        if name in _REGIONS:  # whose data sets cut patches; the part of it that reads files is tests/datasets'
            results |= _patch(red, config.model_input.tile_size)
            dataset = dataset.get("labelled", dataset)
        if name in _DETECTION:
            results |= _tile(red)
        if name in _PRETEXT:
            results |= {"img": red.copy(), "sample_idx": 0}  # as UnlabelledTiles hands it out; other sets load it again
        for step in dataset.pipeline:
            results = TRANSFORMS.build(copy.deepcopy(step))(results)
        for picture in results["inputs"] if isinstance(results["inputs"], list) else [results["inputs"]]:  # views
            pixels = picture.float().mean((1, 2))  # (3,)
            assert pixels[0] > (100 if name in _DETECTION else 150)  # grey where no picture fills the frame
            assert pixels[0] > (1.2 if name in _DETECTION else 2) * max(pixels[1], pixels[2])
            if name not in _PRETEXT:  # whose views are smaller than the tiles that they are cut from
                assert picture.shape[1:] == config.model_input.tile_size[::-1]


@pytest.mark.parametrize("name", sorted(_REGIONS | _DETECTION | _SLICES))
def test_the_copy_in_a_work_folder_hands_out_the_same_metadata(name, tmp_path):
    """A name that is imported lazily would be dumped as its text, and every sample's weight and patient be lost."""
    load_config(name).dump(str(tmp_path / "copy.py"))
    for config in (load_config(name), load_config(tmp_path / "copy.py")):
        for part in ("train", "val", "test"):
            dataset = config[f"{part}_dataloader"].dataset
            for one in [dataset[key] for key in ("labelled", "unlabelled") if key in dataset] or [dataset]:
                wanted = DET_META_KEYS if name in _DETECTION else SEG_META_KEYS
                wanted = SLICE_META_KEYS if name in _SLICES else wanted
                assert tuple(one.pipeline[-1].meta_keys) == wanted


def _tile(picture: np.ndarray) -> dict:
    """As TileDetection hands it out, with itself as what a mosaic draws beside it."""
    about = {"img_id": 1, "x": None, "y": None, "downsample": 1.0, "sample_idx": 0}
    boxes = {"gt_bboxes": np.array([[90, 80, 200, 180]], np.float32), "gt_bboxes_labels": np.zeros(1, np.int64)}
    shapes = {"img_shape": picture.shape[:2], "ori_shape": picture.shape[:2]}
    tile = about | shapes | {"img": picture, "gt_ignore_flags": np.zeros(1, bool), **boxes}
    return tile | {"tile_pool": lambda _: copy.deepcopy(tile)}


def _patch(picture: np.ndarray, size: tuple[int, int]) -> dict:
    width, height = size
    patch = {"img": picture[:height, :width].copy(), "gt_seg_map": np.zeros((height, width), np.uint8)}
    about = {"seg_fields": ["gt_seg_map"], "region_index": 0, "patch_x": 0, "patch_y": 0, "sample_idx": 0}
    shapes = {"img_shape": (height, width), "ori_shape": (height, width), "reduce_zero_label": False}
    return patch | about | shapes | {"loss_weight": 1.0, "unlabelled": False}


@pytest.mark.parametrize("name", _SMALL)
def test_small_config_takes_training_steps_and_leaves_its_record(name, drawn, tmp_path):
    folder = train(name, tmp_path / "run", options=_shrunk(name, **drawn), seed=3)
    record = json.loads((folder / "train_run.json").read_text())
    assert record["status"] == "finished"
    assert record["seed"] == 3
    assert record["config"]["digest"]
    assert record["data"]["digest"]
    assert record["data"]["synthetic"] is True
    whole = "mmseg.EncoderDecoder" if name in _SEGMENTATION | _SLICES else "mmpretrain.ImageClassifier"
    whole = "pathzoo.LabelToImage" if name in _TRANSLATION else whole
    if name in _DETECTION:
        whole = "mmdet.RTMDet" if "rtmdet" in name else "mmdet.SingleStageDetector"
    assert record["model"]["type"] == whole
    assert (folder / "splits.json").exists()
    assert list(folder.glob("epoch_*.pth"))
    if load_config(name).val_dataloader is None:
        return
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {"metric", "level", "n", "value", "low", "high"} <= set(metrics["rows"][0])
