"""The stand-in that keeps mmdet out of mmpretrain's import, and whether it is still needed."""

import subprocess
import sys

import pytest

pytest.importorskip("mmdet")

_SETUP = "from pathzoo.compat import mmcv_ops, mmpretrain; mmcv_ops.install(); {}; import mmpretrain.models, sys; "


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_defect_is_still_there():
    """The day this fails, mmpretrain leaves mmdet alone: delete pathzoo/compat/mmpretrain.py."""
    assert "True" in _python(_SETUP.format("pass") + "print('mmdet.models.backbones' in sys.modules)")


def test_mmdet_is_not_imported_and_still_can_be():
    code = "print('mmdet' in sys.modules); import mmdet.models; print(mmdet.models.ResNet.__name__)"
    assert _python(_SETUP.format("mmpretrain.install()") + code).split()[-2:] == ["False", "ResNet"]
