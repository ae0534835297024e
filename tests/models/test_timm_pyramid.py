"""TimmBackbone with `out_indices`: a pyramid whose numbers, weights and key names are timm's own."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from pathzoo.errors import ConfigError
from pathzoo.models import TimmBackbone

#: ResNeSt (Zhang et al., 2020): millions of parameters with the classifier, as timm's own table of results gives them.
_PUBLISHED = {"resnest14d": 10.61, "resnest26d": 17.07, "resnest50d": 27.48, "resnest101e": 48.28}
_CLASSIFIER = 2048 * 1000 + 1000
_LEVELS = (0, 1, 2, 3, 4)


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", _PUBLISHED)
def test_resnest_has_the_published_number_of_parameters(name):
    with torch.device("meta"):
        backbone = TimmBackbone(name, out_indices=_LEVELS)
        whole = timm.create_model(name)
    assert _count(backbone) == _count(whole) - _CLASSIFIER
    assert (_count(backbone) + _CLASSIFIER) / 1e6 == pytest.approx(_PUBLISHED[name], abs=0.005)
    assert {f"timm_model.{key}" for key in whole.state_dict()} - set(backbone.state_dict()) == {
        "timm_model.fc.weight",
        "timm_model.fc.bias",
    }


@pytest.mark.parametrize("name", ["resnest14d", "resnet10t", "efficientnet_lite0", "convnext_atto", "densenet121"])
def test_channels_and_strides_are_those_of_the_maps(name):
    with torch.device("meta"):
        n = len(timm.create_model(name, features_only=True).feature_info)
        backbone = TimmBackbone(name, out_indices=range(n))
        maps = backbone(torch.zeros(2, 3, 96, 160))
    assert len(maps) == n
    for level, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        assert level.shape == (2, channels, 96 // stride, 160 // stride)
    assert backbone.num_features == backbone.channels[-1]


def test_resnest_begins_at_stride_2():
    with torch.device("meta"):
        backbone = TimmBackbone("resnest14d", out_indices=_LEVELS)
    assert backbone.channels == (64, 256, 512, 1024, 2048)
    assert backbone.strides == (2, 4, 8, 16, 32)


def test_maps_are_those_of_timms_own_pyramid():
    torch.manual_seed(0)
    backbone = TimmBackbone("resnest14d", out_indices=(1, 3, 4)).eval()
    reference = timm.create_model("resnest14d", features_only=True, out_indices=(1, 3, 4)).eval()
    reference.load_state_dict(backbone.timm_model.state_dict())
    x = torch.randn(1, 3, 65, 97)  # sizes that 32 does not divide
    with torch.no_grad():
        for ours, theirs in zip(backbone(x), reference(x), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_last_level_is_what_comes_without_a_pyramid():
    plain, pyramid = TimmBackbone("test_resnet").eval(), TimmBackbone("test_resnet", out_indices=(0, 4)).eval()
    pyramid.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(pyramid(x)[-1], plain(x)[0])


@pytest.mark.parametrize(("name", "levels"), [("resnet10t", (0, 2)), ("efficientnet_lite0", (0, 1, 2, 3, 4))])
def test_nothing_is_left_without_a_gradient(name, levels):
    """Parts after the last level are gone: in several processes a parameter without a gradient stops the training."""
    backbone = TimmBackbone(name, out_indices=levels).train()
    sum(level.square().mean() for level in backbone(torch.randn(2, 3, 64, 64))).backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    assert _count(backbone) < _count(timm.create_model(name, num_classes=0))


def test_weights_of_a_whole_network_go_into_a_part_of_it(tmp_path):
    reference = timm.create_model("resnet10t")
    save_file({key: value.contiguous() for key, value in reference.state_dict().items()}, tmp_path / "w.safetensors")
    backbone = TimmBackbone("resnet10t", pretrained=str(tmp_path / "w.safetensors"), out_indices=(0, 1, 2))
    backbone.init_weights()
    for key, value in backbone.timm_model.state_dict().items():
        assert torch.equal(value, reference.state_dict()[key])


def test_freezing_and_layout_work_as_without_a_pyramid():
    plain = TimmBackbone("resnet10t", out_indices=(1, 4), trainable=("layer4",)).train()
    assert {name.split(".")[0] for name, p in plain.timm_model.named_parameters() if p.requires_grad} == {"layer4"}
    assert not plain.timm_model.bn1.training
    other = TimmBackbone("resnet10t", out_indices=(1, 4), channels_last=True).eval()
    other.load_state_dict(plain.eval().state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for one, two in zip(plain(x), other(x), strict=True):
            torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)
            assert two.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("levels", [(), (1, 1), (3, 1), (-1,), (0, 5)])
def test_levels_that_are_not_there_are_refused(levels):
    with pytest.raises(ConfigError, match=r"increasing numbers from 0 to 4 are taken"):
        TimmBackbone("resnet10t", out_indices=levels)


def test_networks_without_a_pyramid_are_refused(monkeypatch):
    monkeypatch.delattr("timm.models.resnet.ResNet.forward_intermediates")
    with pytest.raises(ConfigError, match=r"timm's resnet10t gives no pyramid .* such as resnet50"):
        TimmBackbone("resnet10t", out_indices=(0, 1))
