"""mmagic's Pix2Pix parts without the rest of it, and whether that is still needed."""

import subprocess
import sys
from pathlib import Path

import pytest

from pathzoo.compat import mmagic


def _python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)


def test_defect_is_still_there():
    """The day this fails, mmagic can be imported as it is: delete pathzoo/compat/mmagic.py."""
    done = _python("import mmagic")
    assert done.returncode != 0
    assert "No module named 'mmagic'" not in done.stderr


def test_the_parts_load_and_nothing_else_does():
    done = _python(
        "from pathzoo import compat; compat.install()\n"
        "from pathzoo.compat.mmagic import install; assert install() and install()\n"
        "from mmagic.models.editors.pix2pix import Pix2Pix, UnetGenerator\n"
        "import sys; print(sorted({'diffusers', 'mediapipe', 'mmagic.visualization'} & set(sys.modules)))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_without_mmagic_the_error_names_the_command():
    done = _python(
        "import sys, importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'mmagic' else real(name, *rest)\n"
        "from pathzoo.models import LabelToImage"
    )
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1] == (
        f"ImportError: Pix2Pix needs mmagic {mmagic.VERSION}, without what it depends on: "
        f"python -m pip install --no-deps mmagic=={mmagic.VERSION}"
    )


def test_another_mmagic_leaves_nothing_half_loaded(tmp_path):
    (tmp_path / "mmagic").mkdir()
    (tmp_path / "mmagic" / "__init__.py").write_text("")
    done = _python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from pathzoo.compat.mmagic import install\n"
        "try:\n    install()\n"
        "except ImportError as error:\n    print(error, 'mmagic' in sys.modules)"
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be loaded" in done.stdout
    assert mmagic.COMMAND in done.stdout
    assert done.stdout.strip().endswith("False")


def test_the_makefile_installs_the_version_that_was_tried():
    makefile = (Path(__file__).resolve().parents[2] / "Makefile").read_text()
    assert f"MMAGIC := mmagic=={mmagic.VERSION}\n" in makefile


@pytest.mark.parametrize(("norm", "generator", "discriminator"), [("BN", 54_413_955, 2_768_705)])
def test_networks_have_the_published_sizes(norm, generator, discriminator):
    """54.414 and 2.769 million: what the authors' own implementation prints for 256 px, 64 filters and 3 channels."""
    from pathzoo.models import PatchDiscriminator, UnetGenerator

    networks = (
        UnetGenerator(3, 3, num_down=8, base_channels=64, norm_cfg={"type": norm}),
        PatchDiscriminator(6, 64, norm_cfg={"type": norm}),
    )
    assert [sum(p.numel() for p in network.parameters()) for network in networks] == [generator, discriminator]
