"""TimmBackbone against published figures, and its weights, names and frozen parts."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from pathzoo.errors import CheckpointError, ConfigError
from pathzoo.models import TimmBackbone

_TOP4 = ("block12", "conv3", "bn3", "conv4", "bn4")


def test_xception_has_the_published_number_of_parameters():
    """Chollet (2017): 22,855,952 with the classifier of 1000 classes, which the backbone lacks (2048 x 1000 + 1000)."""
    with torch.device("meta"):
        backbone = TimmBackbone("legacy_xception")
    assert sum(p.numel() for p in backbone.parameters()) == 22_855_952 - 2_049_000


def test_top_4_layers_train_and_the_rest_stays_in_eval_mode():
    backbone = TimmBackbone("legacy_xception", trainable=_TOP4).train()
    trained = {name for name, p in backbone.timm_model.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in trained} == set(_TOP4)
    assert backbone.timm_model.bn4.training
    assert not backbone.timm_model.bn1.training
    assert not backbone.timm_model.block11.rep[2].training


def test_frozen_part_does_not_move_in_a_training_step():
    backbone = TimmBackbone("resnet10t", trainable=("layer4",)).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=1.0)
    backbone(torch.randn(2, 3, 64, 64))[0].square().mean().backward()
    optimizer.step()
    moved = {key for key, value in backbone.state_dict().items() if not torch.equal(value, before[key])}
    assert moved
    assert all(key.startswith("timm_model.layer4") for key in moved)


def test_norm_eval_keeps_running_statistics():
    backbone = TimmBackbone("resnet10t", norm_eval=True).train()
    before = backbone.timm_model.bn1.running_mean.clone()
    backbone(torch.randn(2, 3, 64, 64))
    assert torch.equal(before, backbone.timm_model.bn1.running_mean)


def test_channels_last_changes_nothing_but_the_layout():
    plain, other = TimmBackbone("efficientnet_lite0").eval(), TimmBackbone("efficientnet_lite0", channels_last=True)
    other.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(plain(x)[0], other.eval()(x)[0], atol=1e-4, rtol=1e-4)


def test_weights_from_a_file_are_timms_own(tmp_path):
    reference = timm.create_model("resnet10t", num_classes=5)  # a classifier in the file does no harm
    save_file({k: v.contiguous() for k, v in reference.state_dict().items()}, tmp_path / "w.safetensors")
    backbone = TimmBackbone("resnet10t", pretrained=str(tmp_path / "w.safetensors"))
    backbone.init_weights()
    for key, value in backbone.timm_model.state_dict().items():
        assert torch.equal(value, reference.state_dict()[key])


@pytest.mark.parametrize("name", ["resnet10t", "efficientnet_lite0", "resnest14d", "legacy_xception"])
def test_a_grey_picture_is_seen_as_three_equal_channels_were(name, tmp_path):
    colour = TimmBackbone(name).eval()
    save_file({k: v.contiguous() for k, v in colour.timm_model.state_dict().items()}, tmp_path / "w.safetensors")
    grey = TimmBackbone(name, pretrained=str(tmp_path / "w.safetensors"), in_channels=1).eval()
    grey.init_weights()
    x = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(grey(x)[0], colour(x.expand(-1, 3, -1, -1))[0], atol=1e-3, rtol=1e-3)


def test_other_numbers_of_channels_are_refused():
    with pytest.raises(ConfigError, match="in_channels=4: give 3, or 1 for grey"):
        TimmBackbone("resnet10t", in_channels=4)


def test_weights_of_another_network_are_refused(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"w\.safetensors: does not fit timm's resnet10t, nothing was loaded: 0 "):
        TimmBackbone("resnet10t", pretrained=str(tmp_path / "w.safetensors")).init_weights()


def test_truncated_weights_are_refused(tmp_path):
    save_file({"a": torch.zeros(2000)}, tmp_path / "w.safetensors")
    whole = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="no whole safetensors file"):
        TimmBackbone("resnet10t", pretrained=str(tmp_path / "w.safetensors")).init_weights()


def test_missing_file_says_what_to_give():
    with pytest.raises(ConfigError, match="no such file; give 'imagenet', None, or a"):
        TimmBackbone("resnet10t", pretrained="gone.pth").init_weights()


def test_without_a_network_the_error_says_how_to_give_a_file(monkeypatch):
    def offline(name, pretrained=False, **_):
        raise OSError("Name or service not known")

    backbone = TimmBackbone("resnet10t", pretrained="imagenet")
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ConfigError, match=r"model\.backbone\.pretrained=FILE\.safetensors"):
        backbone.init_weights()


@pytest.mark.parametrize("name", ["hf-hub:a/b", "local-dir:/tmp", "resnet50.a1_in1k", "../x"])
def test_names_that_lead_elsewhere_are_refused(name):
    with pytest.raises(ConfigError, match="a plain timm name"):
        TimmBackbone(name)


def test_unknown_names_come_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'resnet10t'"):
        TimmBackbone("resnet10tt")
    with pytest.raises(ConfigError, match="no sub-module 'layer5'; did you mean 'layer"):
        TimmBackbone("resnet10t", trainable=("layer5",))
