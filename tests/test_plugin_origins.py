"""Whose component is whose, where plug-ins import pathzoo's and each other's modules."""

import json
import os
import subprocess
import sys
from pathlib import Path

_READ = """
import json
from pathzoo.apis.setup import setup
from pathzoo.zoo import allowlist
from pathzoo import plugins
setup()
print(json.dumps({
    "loaded": plugins.loaded(),
    "owners": {name: entry.plugin for name, entry in allowlist._from_plugins.items()},
    "rows": [[c.kind, c.name, c.origin] for c in plugins.components()],
}))
"""


def _install(site: Path, name: str, entries: str, **modules: str) -> None:
    info = site / f"{name}-1.0.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\n")
    (info / "entry_points.txt").write_text(f"[pathzoo.plugins]\n{entries}\n")
    for module, text in modules.items():
        (site / f"{module}.py").write_text(text)


def _component(name: str, base: str = "nn.Module") -> str:
    head = "from torch import nn\nfrom pathzoo.registry import MODELS\n"
    return f"{head}@MODELS.register_module()\nclass {name}({base}):\n    pass\n"


def test_each_plug_in_owns_what_it_defines_and_no_more(tmp_path):
    """`first` derives from pathzoo's own backbone and imports `second`; `second` has two entry points."""
    borrowing = "from pathzoo.models import TimmBackbone\nimport second_necks\n"
    _install(tmp_path, "first", "alpha = first_models", first_models=borrowing + _component("Alpha", "TimmBackbone"))
    _install(
        tmp_path,
        "second",
        "necks = second_necks\nheads = second_heads",
        second_necks=_component("Neck"),
        second_heads=_component("Head"),
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    environment.pop("PATHZOO_PLUGINS", None)
    done = subprocess.run([sys.executable, "-c", _READ], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["loaded"] == {"first": "1.0.0", "second": "1.0.0"}
    assert found["owners"] == {"pathzoo.Alpha": "first", "pathzoo.Neck": "second", "pathzoo.Head": "second"}
    origins = {(kind, name): origin for kind, name, origin in found["rows"]}
    assert origins["model", "Alpha"] == "first 1.0.0"
    assert origins["model", "Neck"] == origins["model", "Head"] == "second 1.0.0"
    assert origins["model", "TimmBackbone"].startswith("pathzoo ")
