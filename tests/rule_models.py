"""Models by rule, published as any other: `python tests/rule_models.py OUT` writes a zoo of three."""

import json
import sys
import tempfile
from pathlib import Path

#: kind -> (task, registered model, classes, what it does)
KINDS = {
    "classifier": (
        "classification",
        "ColorThresholdClassifier",
        ["background", "pink", "purple"],
        "How much of a tile is glass, pink (eosin, PAS) and purple (haematoxylin), by colour thresholds.",
    ),
    "segmenter": (
        "segmentation",
        "ColorThresholdSegmenter",
        ["background", "pink", "purple"],
        "Glass, pink (eosin, PAS) and purple (haematoxylin), by colour thresholds.",
    ),
    "detector": ("detection", "BlobDetector", ["nucleus"], "Dark blobs, mostly nuclei, by threshold."),
}
_PREPROCESSOR = {"type": "mmengine.ImgDataPreprocessor", "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}


def publish_rule_model(
    kind: str,
    out: Path,
    *,
    tile: int | tuple[int, int] = 256,
    mpp: float = 0.5,
    name: str | None = None,
    version: str = "1.0.0",
    stain_fit: dict | None = None,
    **arguments,
) -> Path:
    """Publishes a model by rule to `out/<name>/<version>/`, through the same checks as a trained one.

    Args:
        kind: "classifier", "segmenter" or "detector".
        out: The zoo folder.
        tile: Side of the tiles in px, or (width, height).
        mpp: Microns per pixel.
        name: `rule-<kind>` where not given.
        version: MAJOR.MINOR.PATCH.
        stain_fit: {"method", "parameters"} of the stain that its pictures have to have.
        arguments: For the model's constructor, e.g. `radius=2`.

    Returns:
        The new folder, as `publish_model`.
    """
    import torch

    from pathzoo.zoo.allowlist import build_from_data
    from pathzoo.zoo.publish import publish_model

    task, model, classes, description = KINDS[kind]
    config = {"type": f"pathzoo.{model}", "data_preprocessor": _PREPROCESSOR, **arguments}
    size = [tile, tile] if isinstance(tile, int) else list(tile)
    spec = {"tile_size": size, "mpp": mpp, "mean": _PREPROCESSOR["mean"], "std": _PREPROCESSOR["std"]}
    run = {
        "task": task,
        "model": config,
        "model_input": {**spec, "resize": {"kind": "mpp"}, "stain_fit": stain_fit},
        "classes": classes,
        "data": {"synthetic": False},
    }
    card = {
        "description": f"{description} A rule, not trained: it stands in for a trained model in tests.",
        "licence": "CC0-1.0",
        "commercial_use": True,
        "limits": "Means nothing for a diagnosis.",
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "train_run.json").write_text(json.dumps(run), encoding="utf-8")
        torch.save({"state_dict": build_from_data(config).state_dict()}, Path(folder) / "rule.pth")
        return publish_model(Path(folder) / "rule.pth", name or f"rule-{kind}", version, out, card)


if __name__ == "__main__":
    for each in KINDS:
        print(publish_rule_model(each, Path(sys.argv[1])))
