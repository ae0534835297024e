"""Looks over an environment: what is there, what is missing, and the command that mends it."""

import importlib
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

#: import name -> (distribution, extra that brings it; None where pathzoo always needs it)
_PACKAGES = {
    "torch": ("torch", None),
    "torchvision": ("torchvision", None),
    "mmengine": ("onedl-mmengine", None),
    "mmcv": ("onedl-mmcv", None),
    "mmpretrain": ("onedl-mmpretrain", None),
    "mmdet": ("onedl-mmdetection", "detection"),
    "mmseg": ("onedl-mmsegmentation", "segmentation"),
    "nibabel": ("nibabel", "ct"),
    "pydicom": ("pydicom", "ct"),
    "skimage": ("scikit-image", "translation"),
    "timm": ("timm", None),
    "albumentations": ("albumentations", None),
    "openslide": ("openslide-python", None),
    "openslide_bin": ("openslide-bin", None),
    "tifffile": ("tifffile", None),
    "imagecodecs": ("imagecodecs", None),
    "safetensors": ("safetensors", None),
    "pydantic": ("pydantic", None),
    "shapely": ("shapely", None),
}
_CV2_FLAVOURS = ("opencv-python", "opencv-contrib-python", "opencv-python-headless", "opencv-contrib-python-headless")


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, whether it is well, what was found, and the command that mends it."""

    name: str
    ok: bool
    found: str
    remedy: str = ""

    def as_dict(self) -> dict:
        """The check as JSON shows it."""
        return asdict(self)


def examine() -> list[Check]:
    """Runs every check; takes some seconds, since torch is imported."""
    checks = [_python()]
    checks += [_package(module, *where) for module, where in _PACKAGES.items()]
    checks += [_safely(check) for check in (_opencv, _torch_pair, _ops, _mmagic, _openslide, _plugins, _zoo, _disk)]
    return checks


def report(checks: list[Check]) -> str:
    """The checks as text, one line each, a remedy under each that failed."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{'ok  ' if check.ok else 'FAIL'} {check.name:<{width}}  {check.found}")
        if not check.ok:
            lines.append(f"     {'':<{width}}  mend: {check.remedy}")
    failed = sum(not check.ok for check in checks)
    lines.append(f"{len(checks)} checks, {failed} failed" if failed else f"{len(checks)} checks, all well")
    return "\n".join(lines)


def _safely(check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:  # a broken package may raise anything on import; that is the finding
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        remedy = "pip install --force-reinstall -c constraints.txt pathzoo"
        return Check(check.__name__.strip("_"), False, reason, remedy)


def _python() -> Check:
    version = platform.python_version()
    ok = (3, 10) <= sys.version_info[:2] <= (3, 12)
    return Check("python", ok, f"{version}, {platform.platform()}", "use Python 3.10 to 3.12")


def _package(module: str, distribution: str, extra: str | None) -> Check:
    if importlib.util.find_spec(module) is None:
        if extra:
            return Check(distribution, True, f"not installed (only needed for {extra}: pip install 'pathzoo[{extra}]')")
        return Check(distribution, False, "not installed", f"pip install -c constraints.txt {distribution}")
    try:
        return Check(distribution, True, metadata.version(distribution))
    except metadata.PackageNotFoundError:
        original = distribution.removeprefix("onedl-")
        return Check(
            distribution,
            False,
            f"{module} comes from another distribution than {distribution}, whose frozen original does not run here",
            f"pip uninstall -y {original} && pip install -c constraints.txt {distribution}",
        )


def _opencv() -> Check:
    present = [name for name in _CV2_FLAVOURS if _version(name)]
    remedy = (
        "pip uninstall -y opencv-python opencv-contrib-python opencv-python-headless && "
        "pip install -c constraints.txt opencv-python-headless"
    )
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError as error:
        found = f"cannot be imported ({error}); installed: {', '.join(present) or 'none'}"
        return Check("opencv", False, found, remedy)
    ok = present == ["opencv-python-headless"]
    found = f"{cv2.__version__}, {', '.join(present) or 'unknown build'}"
    return Check("opencv", ok, found if ok else found + " (all install into one folder; keep the headless one)", remedy)


def _torch_pair() -> Check:
    import torch
    import torchvision

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    found = f"torch {torch.__version__}, torchvision {torchvision.__version__}, GPU: {', '.join(devices) or 'none'}"
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5)  # fails where the two builds do not match
    return Check("torch pair", kept.tolist() == [0], found, "pip install --force-reinstall torch torchvision")


def _ops() -> Check:
    from pathzoo.compat.mmcv_ops import install

    return Check("mmcv ops", True, "torchvision's stand in (nothing compiled)" if install() else "compiled")


def _mmagic() -> Check:
    from pathzoo import compat
    from pathzoo.compat import mmagic

    if importlib.util.find_spec("mmagic") is None:
        return Check("mmagic", True, f"not installed (only needed for Pix2Pix: {mmagic.COMMAND})")
    compat.install()
    try:
        mmagic.install()
    except ImportError as error:
        return Check("mmagic", False, str(error), mmagic.COMMAND)
    return Check("mmagic", True, f"{_version('mmagic')}, its Pix2Pix parts")


def _openslide() -> Check:
    import openslide

    return Check("openslide library", True, openslide.__library_version__)


def _plugins() -> Check:
    from pathzoo.plugins import load_plugins

    loaded = load_plugins()
    return Check("plug-ins", True, ", ".join(f"{name} {version}" for name, version in loaded.items()) or "none")


def _zoo() -> Check:
    from pathzoo.zoo.load import list_models

    return Check("zoo", True, f"{len(list_models())} models; PATHZOO_ZOO={os.environ.get('PATHZOO_ZOO', '')}")


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return Check("disk", free > 2, f"{free:.0f} GiB free in the working folder", "free some space: a run needs 2 GiB")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
