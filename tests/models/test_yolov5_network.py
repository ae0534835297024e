"""YOLOv5's backbone and neck: shapes, and folding the normalisation away. Of the whole: test_yolov5_detector.py."""

import copy

import pytest
import torch
from torch import nn

from pathzoo.errors import ConfigError
from pathzoo.models.backbones.yolov5_backbone import YOLOV5_SIZES, YOLOv5Backbone
from pathzoo.models.layers import SPPF, ConvUnit, fuse_conv_bn, scaled_channels, scaled_depth
from pathzoo.models.necks import YOLOv5PAFPN


def network(size):
    deepen, widen = YOLOV5_SIZES[size]
    backbone = YOLOv5Backbone(deepen, widen)
    return nn.Sequential(backbone, YOLOv5PAFPN(backbone.channels, deepen))


def randomised(module):
    """Normalisation with statistics and factors that are not the initial ones."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for value in (part.weight, part.running_var):
                nn.init.uniform_(value, 0.5, 1.5)
            for value in (part.bias, part.running_mean):
                nn.init.uniform_(value, -0.5, 0.5)
    return module


def test_maps_have_their_strides_and_channels():
    parts = network("n").eval()
    with torch.no_grad():
        maps = parts(torch.zeros(2, 3, 64, 96))
    assert [tuple(found.shape) for found in maps] == [(2, 64, 8, 12), (2, 128, 4, 6), (2, 256, 2, 3)]


def test_the_layout_in_memory_is_kept_to_the_last_map_and_changes_no_result():
    last = randomised(network("n")).double().train()
    usual = copy.deepcopy(last)
    usual[0]._memory_format = torch.contiguous_format
    pictures = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    found, wanted = last(pictures), usual(pictures)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.is_contiguous(memory_format=torch.channels_last) and theirs.is_contiguous()
        torch.testing.assert_close(ours, theirs)
    for maps in (found, wanted):
        sum(part.square().mean() for part in maps).backward()
    for (name, ours), (_, theirs) in zip(last.named_parameters(), usual.named_parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)
    assert YOLOv5Backbone(0.33, 0.25, channels_last=False)._memory_format is torch.contiguous_format


def test_pools_in_a_row_are_larger_pools_side_by_side():
    torch.manual_seed(0)
    block, x = SPPF(8, 8).eval(), torch.randn(1, 8, 17, 19)
    with torch.no_grad():
        reduced = block.reduce(x)
        pools = [nn.functional.max_pool2d(reduced, side, stride=1, padding=side // 2) for side in (5, 9, 13)]
        torch.testing.assert_close(block(x), block.join(torch.cat([reduced, *pools], dim=1)))


def test_the_finest_map_sees_the_coarsest_and_the_reverse():
    torch.manual_seed(0)
    parts = network("n").eval()
    for source, target in ((2, 0), (0, 2)):
        maps = [torch.randn(1, c, 8 >> k, 8 >> k, requires_grad=True) for k, c in enumerate(parts[0].channels)]
        parts[1](maps)[target].square().sum().backward()
        assert maps[source].grad.abs().sum() > 0


def test_folding_changes_no_result_and_leaves_no_normalisation():
    torch.manual_seed(0)
    parts = randomised(network("n")).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = parts(x)
        count = fuse_conv_bn(parts)
        after = parts(x)
    assert count == sum(isinstance(part, ConvUnit) for part in parts.modules())
    assert not any(isinstance(part, nn.BatchNorm2d) for part in parts.modules())
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert fuse_conv_bn(parts) == 0


def test_folding_needs_eval_mode():
    with pytest.raises(ValueError, match="training mode"):
        fuse_conv_bn(ConvUnit(3, 8))


def test_multiples_round_as_published():
    assert [scaled_channels(1024, 0.25), scaled_channels(64, 0.2), scaled_channels(64, 1.25)] == [256, 16, 80]
    assert [scaled_depth(3, 0.33), scaled_depth(9, 0.33), scaled_depth(9, 0.67), scaled_depth(3, 0.1)] == [1, 3, 6, 1]


def test_a_neck_of_other_levels_is_refused():
    with pytest.raises(ConfigError, match="three levels"):
        YOLOv5PAFPN([64, 128])
