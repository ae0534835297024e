import subprocess
import sys


def test_wsi_needs_neither_torch_nor_a_host_nor_the_network():
    code = (
        "import importlib, pkgutil, sys, pathzoo.wsi as wsi\n"
        "names = [m.name for m in pkgutil.walk_packages(wsi.__path__, 'pathzoo.wsi.')]\n"
        "[importlib.import_module(name) for name in names]\n"
        "heavy = {'torch', 'mmengine', 'mmcv', 'matplotlib', 'requests', 'urllib3', 'pandas'} & set(sys.modules)\n"
        "assert len(names) > 15 and not heavy, (len(names), heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
