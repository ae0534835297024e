"""The stand-in for mmcv's compiled ops, and whether it is still needed."""

import importlib
import subprocess
import sys

import pytest
import torch
import torchvision

from pathzoo.compat.mmcv_ops import MissingOpError, install


def _python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)


def test_defect_is_still_there():
    """The day this fails, mmcv's wheel brings its ops without a compiler: delete pathzoo/compat/mmcv_ops.py."""
    assert "No module named 'mmcv._ext'" in _python("import mmcv._ext").stderr


def test_mmdet_imports_with_the_stand_in_and_mmengine_reports_its_environment():
    done = _python(
        "from pathzoo.compat.mmcv_ops import install; assert install() and install()\n"
        "import mmdet.models; from mmengine.utils.dl_utils import collect_env; collect_env()\n"
        "from mmcv.ops import get_compiler_version; print(get_compiler_version())"
    )
    assert done.returncode == 0, done.stderr
    assert "not compiled" in done.stdout


@pytest.fixture
def ops():
    if not install():
        pytest.skip("mmcv has compiled ops of its own")
    return importlib.import_module("mmcv._ext")


def test_nms_is_torchvisions(ops):
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(50, 2, generator=generator) * 50
    boxes = torch.cat([corner, corner + torch.rand(50, 2, generator=generator) * 30], 1)
    scores = torch.rand(50, generator=generator)
    assert torch.equal(ops.nms(boxes, scores, iou_threshold=0.4, offset=0), torchvision.ops.nms(boxes, scores, 0.4))


def test_nms_offset_counts_the_last_pixel(ops):
    # 9 x 9 and 9 x 9 boxes shifted by one: IoU 72/90 = 0.8 without the offset, 90/110 = 0.818 with it.
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [1.0, 0.0, 10.0, 9.0]])
    scores = torch.tensor([0.9, 0.8])
    assert ops.nms(boxes, scores, iou_threshold=0.81, offset=0).tolist() == [0, 1]
    assert ops.nms(boxes, scores, iou_threshold=0.81, offset=1).tolist() == [0]


def test_other_ops_say_what_is_missing(ops):
    with pytest.raises(MissingOpError, match="roi_align_forward"):
        ops.roi_align_forward()
