"""The public surface, and what it costs to import it."""

import subprocess
import sys

import pathzoo

_HEAVY = ("torch", "torchvision", "mmengine", "mmcv", "mmpretrain", "mmdet", "mmseg", "timm", "cv2", "albumentations")


def _modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_public_names_are_exactly_these():
    assert set(pathzoo.__all__) == {
        "__version__",
        "PathzooError",
        "Slide",
        "get_model",
        "list_models",
        "predict",
        "publish_model",
        "test",
        "train",
        "verify_model",
    }


def test_every_public_name_resolves_to_its_own_object():
    for name in pathzoo.__all__:
        found = getattr(pathzoo, name)
        assert getattr(found, "__name__", name) == name


def test_unknown_name_is_an_attribute_error():
    assert not hasattr(pathzoo, "no_such_name")


def test_import_loads_no_torch_and_no_openmmlab():
    assert not _modules_after("import pathzoo").intersection(_HEAVY)


def test_help_loads_no_torch_and_no_openmmlab():
    code = "from pathzoo.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert not _modules_after(code).intersection((*_HEAVY, "numpy", "pydantic", "rich"))
