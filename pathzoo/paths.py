"""Where the packaged configs and the packaged zoo lie: in the checkout, or inside an installed wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def configs_root() -> Path:
    """The folder that holds `configs/`' content."""
    return _first(_PACKAGE / "_configs", _PACKAGE.parent / "configs")


def leaf_configs() -> list[Path]:
    """Every packaged config that can be run: all of `configs/` but `_base_/`."""
    return sorted(file for file in configs_root().glob("*/*.py") if not file.parent.name.startswith("_"))


def packaged_zoo() -> Path:
    """The folder that holds `checkpoints/`' content."""
    return _first(_PACKAGE / "_checkpoints", _PACKAGE.parent / "checkpoints")


def _first(installed: Path, checkout: Path) -> Path:
    return installed if installed.is_dir() else checkout
