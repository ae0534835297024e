"""tiatoolbox's PatchPredictor over a slide, for slide_prediction.py: run by an interpreter that has tiatoolbox 2.1.

Needs nothing of pathzoo. Prints one line of JSON: seconds, tiles (tiatoolbox finds the tissue itself), peak_mib.
"""

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path


def main() -> None:
    """Runs once to warm up on a few tiles, and once over the slide."""
    parser = argparse.ArgumentParser()
    for name, kind in (("--slide", str), ("--network", str), ("--mpp", float)):
        parser.add_argument(name, type=kind, required=True)
    for name in ("--tile", "--batch-size", "--workers"):
        parser.add_argument(name, type=int, required=True)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    import numpy as np
    import timm
    import torch
    from tiatoolbox.models.engine.io_config import IOPatchPredictorConfig
    from tiatoolbox.models.engine.patch_predictor import PatchPredictor
    from tiatoolbox.models.models_abc import ModelABC

    class Network(ModelABC):
        """timm's network with random weights and two classes, as PatchPredictor wants it."""

        def __init__(self) -> None:
            super().__init__()
            self.network = timm.create_model(arguments.network, num_classes=2)

        def forward(self, imgs):
            return torch.softmax(self.network(imgs), 1)

        @staticmethod
        def infer_batch(model, batch_data, *, device="cpu"):
            with torch.inference_mode():
                images = batch_data.to(device).permute(0, 3, 1, 2).float().div_(255)
                return model(images).cpu().numpy()

    torch.manual_seed(0)
    resolution = [{"units": "mpp", "resolution": arguments.mpp}]
    sides = (arguments.tile, arguments.tile)
    layout = IOPatchPredictorConfig(input_resolutions=resolution, patch_input_shape=sides, stride_shape=sides)
    engine = PatchPredictor(
        Network().eval(), batch_size=arguments.batch_size, num_workers=arguments.workers, verbose=False
    )
    engine.model(torch.zeros(arguments.batch_size, 3, *sides))
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        found = engine.run(
            [Path(arguments.slide)],
            patch_mode=False,
            ioconfig=layout,
            save_dir=Path(folder) / "out",
            output_type="zarr",
            device="cpu",
        )
        seconds = time.perf_counter() - started
        import zarr

        store = zarr.open(str(next(iter(found.values())) if isinstance(found, dict) else found), mode="r")
        tiles = int(np.asarray(store["coordinates"]).shape[0])
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
    print(json.dumps({"seconds": seconds, "tiles": tiles, "peak_mib": peak}))


if __name__ == "__main__":
    main()
