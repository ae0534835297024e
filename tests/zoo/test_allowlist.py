"""Configs as data: names instead of classes when published, classes instead of names when built."""

import copy

import pytest
from tiny_model import MODEL

from pathzoo.errors import ZooError
from pathzoo.zoo import allowlist
from pathzoo.zoo.allowlist import (
    allowed_names,
    build_from_data,
    find_part,
    find_refused,
    plugins_needed,
    register_allowed,
    to_data,
)


@pytest.fixture
def plugin_names(monkeypatch):
    monkeypatch.setattr(allowlist, "_from_plugins", {})


def with_classes():
    from mmpretrain import models

    from pathzoo.models import TimmBackbone

    return {
        "type": models.ImageClassifier,
        "pretrained": None,
        "train_cfg": {"augments": [{"type": "Mixup", "alpha": 0.2}]},
        "init_cfg": [{"type": "Pretrained", "checkpoint": "/weights/x.pth"}],
        "backbone": {
            "type": TimmBackbone,
            "name": "test_resnet",
            "pretrained": "/home/jane/weights.pth",
            "trainable": ("layer4",),
        },
        "neck": {"type": models.GlobalAveragePooling},
        "head": {
            "type": models.LinearClsHead,
            "num_classes": 2,
            "in_channels": 96,
            "init_cfg": {"type": "Normal", "layer": "Linear"},
            "loss": {"type": models.CrossEntropyLoss, "loss_weight": 1.0},
        },
        "data_preprocessor": MODEL["data_preprocessor"] | {"type": models.ClsDataPreprocessor},
    }


def test_classes_become_names_and_what_fetches_is_left_out():
    expected = copy.deepcopy(MODEL)
    expected["backbone"]["trainable"] = ["layer4"]
    assert to_data(with_classes()) == expected


def test_strings_as_dumped_configs_have_them():
    config = copy.deepcopy(MODEL)
    config["head"]["type"] = "LinearClsHead"
    config["neck"]["type"] = "mmpretrain.models.necks.gap.GlobalAveragePooling"
    config["backbone"]["type"] = "pathzoo.models.backbones.timm_backbone.TimmBackbone"
    assert to_data(config) == MODEL


def test_a_lazily_imported_config_file(tmp_path):
    from mmengine.config import Config

    path = tmp_path / "lazy.py"
    path.write_text(
        "from mmengine.config import read_base\n"
        "from mmpretrain.models import GlobalAveragePooling, ImageClassifier, LinearClsHead\n"
        "from pathzoo.models import TimmBackbone\n"
        "model = dict(type=ImageClassifier, "
        "backbone=dict(type=TimmBackbone, name='test_resnet', pretrained='imagenet'),\n"
        "    neck=dict(type=GlobalAveragePooling), head=dict(type=LinearClsHead, num_classes=2, in_channels=96))\n"
    )
    data = to_data(Config.fromfile(path).model)
    assert data["backbone"] == {"type": "pathzoo.TimmBackbone", "name": "test_resnet"}
    assert type(data["backbone"]) is dict
    assert list(find_refused(data)) == []


def test_host_names_of_layers_build_the_same_network():
    import torch

    published = to_data({"type": "ResNet", "depth": 18, "norm_cfg": {"type": "BN", "requires_grad": True}})
    assert published["norm_cfg"]["type"] == "torch.BatchNorm2d"
    module = build_from_data(published)
    from mmpretrain.models import ResNet

    assert module.state_dict().keys() == ResNet(depth=18).state_dict().keys()
    assert isinstance(module.bn1, torch.nn.BatchNorm2d)


def test_every_built_in_name_resolves_to_a_module_class():
    from torch import nn

    assert allowlist._resolve("mmcv.nms") == "nms"  # a word, which mmcv evaluates
    assert allowlist._resolve("mmcv.IN") == "IN"  # a word, which mmagic compares
    helpers = {"AnchorGenerator", "MlvlPointGenerator", "DeltaXYWHBBoxCoder", "DistancePointBBoxCoder"}
    for name in sorted(set(allowed_names()) - {"mmcv.nms", "mmcv.IN"}):
        component = allowlist._resolve(name)
        assert isinstance(component, type), name
        assert issubclass(component, nn.Module) or component.__name__ in helpers, name
        assert component.__name__ == name.split(".")[1]


def test_a_bare_name_of_several_hosts_is_that_of_the_whole_models():
    config = {"type": "EncoderDecoder", "backbone": {"type": "ResNet"}, "decode_head": {"type": "FCNHead"}}
    config["decode_head"]["loss_decode"] = {"type": "CrossEntropyLoss"}
    data = to_data(config)
    assert (data["type"], data["backbone"]["type"]) == ("mmseg.EncoderDecoder", "mmseg.ResNet")
    assert data["decode_head"]["loss_decode"]["type"] == "mmseg.CrossEntropyLoss"
    assert to_data({"type": "RetinaNet", "backbone": {"type": "ResNet"}})["backbone"]["type"] == "mmdet.ResNet"
    with pytest.raises(ZooError, match=r"model\.loss\.type: 'mmdet\.DiceLoss'"):  # mmseg's is allowed
        to_data({"type": "RetinaNet", "loss": {"type": "mmdet.DiceLoss"}})


@pytest.mark.parametrize("word", ["__import__('os').system('true')", "os.system", "soft_nms", "mmcv.batched_nms"])
def test_no_text_of_a_manifest_reaches_what_mmcv_evaluates(word):
    config = {"type": "mmdet.RetinaNet", "test_cfg": {"nms": {"type": word, "iou_threshold": 0.5}}}
    assert [path for path, _ in find_refused(config)] == ["model.test_cfg.nms.type"]
    with pytest.raises(ZooError, match=r"model\.test_cfg\.nms\.type"):
        to_data(config)
    config["test_cfg"]["nms"]["type"] = "nms"
    assert to_data(config)["test_cfg"]["nms"]["type"] == "mmcv.nms"


@pytest.mark.parametrize(
    ("task", "config", "where"),
    [
        ("segmentation", {"type": "mmseg.FCNHead"}, "model.type"),
        ("segmentation", {"type": "mmpretrain.ImageClassifier"}, "model.type"),
        ("detection", {"type": "mmseg.EncoderDecoder"}, "model.type"),
        ("classification", {"type": "mmdet.RetinaNet"}, "model.type"),
        ("representation", {"type": "mmpretrain.ImageClassifier", "head": {"num_classes": 2}}, "model.head"),
        ("detection", {"type": "mmdet.FCOS"}, None),
        ("representation", {"type": "mmpretrain.ImageClassifier"}, None),
    ],
)
def test_a_part_or_another_tasks_model_is_no_whole_one(task, config, where):
    assert [path for path, _ in find_part(config, task)] == ([where] if where else [])


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("head", "loss", "type"), "MyLoss", "model.head.loss.type: 'MyLoss'"),
        (("head", "loss", "type"), dict, "model.head.loss.type: 'builtins.dict'"),
        (("head", "loss", "type"), "os.system", "model.head.loss.type: 'os.system'"),
        (("backbone", "name"), "hf-hub:timm/resnet18", "model.backbone.name"),
        (("neck", "notes"), ("https://example.org",), "model.neck.notes[0]"),
        (("neck", "scale"), float("nan"), "model.neck.scale"),
        (("neck", "hook"), print, "model.neck.hook"),
        (("neck", 3), "x", "model.neck.3"),
    ],
)
def test_publishing_names_what_it_refuses(path, value, reason):
    config = copy.deepcopy(MODEL)
    block = config
    for key in path[:-1]:
        block = block[key]
    block[path[-1]] = value
    with pytest.raises(ZooError) as caught:
        to_data(config)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_building_refuses_before_anything_is_imported_or_called(monkeypatch):
    def never(name):
        raise AssertionError(f"{name} was imported")

    monkeypatch.setattr(allowlist.importlib, "import_module", never)
    config = copy.deepcopy(MODEL)
    config["head"]["loss"] = {"type": "os.system", "command": "true"}
    with pytest.raises(ZooError, match=r"model\.head\.loss\.type: 'os\.system'"):
        build_from_data(config)


def test_host_registries_never_see_a_name(monkeypatch):
    from mmengine.registry import Registry

    asked = []
    original = Registry.get
    monkeypatch.setattr(Registry, "get", lambda self, key: asked.append(key) or original(self, key))
    build_from_data(MODEL)
    assert not [key for key in asked if "." in key], asked
    assert "LinearClsHead" not in asked


def test_arguments_that_do_not_fit_give_one_line():
    config = copy.deepcopy(MODEL)
    config["head"]["in_chanels"] = 96
    with pytest.raises(ZooError, match="in_chanels"):
        build_from_data(config)
    config = copy.deepcopy(MODEL)
    config["backbone"]["name"] = "no_such_network"
    with pytest.raises(ZooError, match="no_such_network"):
        build_from_data(config)


def test_components_of_plug_ins(plugin_names):
    from torch import nn

    class WidePooling(nn.Module):
        def forward(self, feats):
            return tuple(feat.amax(dim=(2, 3)) for feat in feats)

    register_allowed("mylab.WidePooling", WidePooling, "mylab-pathzoo", "1.4.0")
    register_allowed("mylab.WidePooling", WidePooling, "mylab-pathzoo", "1.4.0")  # loading twice is harmless
    config = copy.deepcopy(MODEL) | {"neck": {"type": WidePooling}}
    data = to_data(config)
    assert data["neck"] == {"type": "mylab.WidePooling"}
    assert plugins_needed(data) == {"mylab-pathzoo": "1.4.0"}
    assert plugins_needed(MODEL) == {}
    assert isinstance(build_from_data(data).neck, WidePooling)


def test_plug_ins_cannot_take_names_or_bring_functions(plugin_names):
    with pytest.raises(ZooError, match="already belongs to pathzoo"):
        register_allowed("mmpretrain.LinearClsHead", object, "lab", "1.0")
    with pytest.raises(ZooError, match=r"scope\.Name"):
        register_allowed("os.path.join", object, "lab", "1.0")
    register_allowed("lab.Run", exec, "lab", "1.0")
    with pytest.raises(ZooError, match="already belongs to lab"):
        register_allowed("lab.Run", eval, "other", "1.0")
    with pytest.raises(ZooError, match="no torch module"):
        build_from_data(copy.deepcopy(MODEL) | {"neck": {"type": "lab.Run"}})
