"""Loads the Pix2Pix parts of mmagic without the rest of it.

Defects of mmagic 1.2.0, its last release: `import mmagic` refuses mmcv from 2.2 on; `mmagic.utils` needs `np.bool8`,
which numpy 2 has not; `mmagic.models` imports parts of diffusers that no longer exist; and what it wants installed
(mediapipe, face-alignment, controlnet-aux and more) has nothing to do with Pix2Pix. Installed without its dependencies,
the modules that Pix2Pix itself is made of are sound. `install` puts its packages into `sys.modules` with their folders
but without running their `__init__`, and imports those modules alone. A deconvolution by the name "Deconv", which the
generator asks mmcv for, is registered in mmengine's root too, where mmcv looks.

What the caller has to know: keep `default_scope` off "mmagic" (a look-up there imports `mmagic.visualization`, which
fails), and initialise the weights yourself (the generator's `init_weights` fails on a variable that is never set).

`tests/compat/test_mmagic.py` fails on the day when `import mmagic` works: then this file goes.
"""

import importlib
import importlib.machinery
import importlib.util
import sys
from types import ModuleType

VERSION = "1.2.0"
#: What a user without it is told.
COMMAND = f"python -m pip install --no-deps mmagic=={VERSION}"

#: Packages whose `__init__` is not run, outermost first.
_PACKAGES = (
    "mmagic",
    "mmagic.utils",
    "mmagic.structures",
    "mmagic.models",
    "mmagic.models.utils",
    "mmagic.models.base_models",
    "mmagic.models.archs",
    "mmagic.models.editors",
    "mmagic.engine",
    "mmagic.engine.optimizers",
)
#: module -> names that others ask its package for; in the order in which they need each other.
_MODULES = {
    "mmagic.utils.img_utils": ("all_to_tensor",),
    "mmagic.structures.data_sample": ("DataSample",),
    "mmagic.models.utils.model_utils": ("generation_init_weights", "set_requires_grad"),
    "mmagic.models.base_models.base_translation_model": ("BaseTranslationModel",),
    "mmagic.models.archs.conv": (),
    "mmagic.models.archs.patch_disc": ("PatchDiscriminator",),
    "mmagic.models.editors.pix2pix": ("Pix2Pix", "UnetGenerator"),
    "mmagic.engine.optimizers.multi_optimizer_constructor": ("MultiOptimWrapperConstructor",),
}


def install() -> bool:
    """Makes `mmagic.models.editors.pix2pix` and what it needs importable. Calling it again is harmless.

    Returns:
        True where the bare packages are in place, False where a whole mmagic was imported before: it is left alone.

    Raises:
        ImportError: mmagic is not installed, or is another version; names the one command.
    """
    if "mmagic" in sys.modules:
        return isinstance(sys.modules["mmagic"], _BarePackage)
    spec = importlib.util.find_spec("mmagic")  # finds the folder, runs nothing of it
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"Pix2Pix needs mmagic {VERSION}, without what it depends on: {COMMAND}", name="mmagic")
    folder = next(iter(spec.submodule_search_locations))
    try:
        for name in _PACKAGES:
            _add_package(name, "/".join([folder, *name.split(".")[1:]]))
        for name, exported in _MODULES.items():
            module = importlib.import_module(name)
            for attribute in exported:
                setattr(sys.modules[name.rpartition(".")[0]], attribute, getattr(module, attribute))
    except (ImportError, AttributeError) as error:
        for name in [name for name in sys.modules if name.partition(".")[0] == "mmagic"]:
            del sys.modules[name]
        raise ImportError(
            f"the Pix2Pix parts of the mmagic that is installed cannot be loaded ({error}); {VERSION} was tried: "
            f"{COMMAND}",
            name="mmagic",
        ) from error
    _register_deconvolution()
    return True


class _BarePackage(ModuleType):
    """A package with a folder to find modules in, whose `__init__` was not run."""


def _add_package(name: str, folder: str) -> None:
    package = _BarePackage(name, __doc__)
    package.__path__ = [folder]
    package.__spec__ = importlib.machinery.ModuleSpec(name, loader=None, is_package=True)
    package.__spec__.submodule_search_locations = [folder]
    sys.modules[name] = package
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, package)


def _register_deconvolution() -> None:
    from mmengine.registry import MODELS
    from torch import nn

    if "Deconv" not in MODELS:
        MODELS.register_module("Deconv", module=nn.ConvTranspose2d)
