"""Draws the README's table of models from the zoo: `python tools/analysis_tools/model_table.py` after publishing."""

import argparse
import sys
from pathlib import Path

from pathzoo.fileio import write_text
from pathzoo.paths import packaged_zoo
from pathzoo.zoo.find import folders_of
from pathzoo.zoo.manifest import Manifest
from pathzoo.zoo.manifest_file import read_manifest

START, END = "<!-- models: drawn by tools/analysis_tools/model_table.py -->", "<!-- end of models -->"

#: (metric, level) of the figure that stands for a model, its name, the level whose n is told, what is counted there.
#: Pixels of one region are no independent samples: their number would look like more than it is.
_HEADLINES = (
    (("accuracy", "image"), "accuracy", "image", "images"),
    (("accuracy", "tile"), "accuracy", "tile", "tiles"),
    (("average_precision", "slide"), "average precision", "slide", "slides"),
    (("ap", "tile"), "COCO AP", "tile", "tiles"),
    (("patient_dice_kidney", "patient"), "Dice of the kidney", "patient", "patients"),
    (("miou", "pixel"), "mIoU", "region", "regions"),
    (("ssim", "image"), "SSIM to the real picture", "image", "pictures"),
    (("loss", "tile"), "validation loss of its pretext", "tile", "tiles"),
)


def main() -> int:
    """Replaces what stands between the two marks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    readme: Path = parser.parse_args().readme
    text = readme.read_text(encoding="utf-8")
    head, rest = text.split(START, 1)
    write_text(readme, f"{head}{START}\n\n{model_table()}\n\n{END}{rest.split(END, 1)[1]}")
    return 0


def model_table() -> str:
    """Every packaged model as a row of markdown: what it is, what it takes, what it was measured on."""
    lines = [
        "| model | task | classes | takes | trained on | test | licence |",
        "|---|---|---|---|---|---|---|",
    ]
    for folder in folders_of(packaged_zoo()):
        manifest = read_manifest(folder)
        lines.append(f"| {' | '.join(_cells(manifest, folder))} |")
    return "\n".join(lines)


def _cells(manifest: Manifest, folder: Path) -> list[str]:
    width, height = manifest.input.tile_size
    takes = f"{width}x{height} px, " + (f"{manifest.input.mpp} µm/px" if manifest.input.mpp else "images, not slides")
    counts = manifest.training.counts.get("train") if manifest.training else None
    kind = "phantoms" if manifest.training and manifest.training.synthetic else "images"
    trained = f"{counts.images} {kind}, {counts.patients} patients" if counts else "not stated"
    trained += "".join(f", begun with {parent.name}" for parent in manifest.parents)
    place = f"checkpoints/{manifest.name}/{manifest.version}/README.md"
    return [
        f"[{manifest.name}]({place})",
        manifest.task,
        ", ".join(manifest.classes) or "none: vectors",
        takes,
        trained,
        _test(manifest),
        manifest.licence,
    ]


def _test(manifest: Manifest) -> str:
    """The first of `_HEADLINES` that was measured."""
    of_evaluations = [{(row.metric, row.level): row for row in one.rows} for one in manifest.metrics]
    for key, name, counted, many in _HEADLINES:
        for rows in of_evaluations:
            if key in rows:
                row = rows[key]
                interval = "" if row.low is None else f" [{row.low:.2f}, {row.high:.2f}]"
                return f"{name} {row.value:.2f}{interval}, n = {rows.get((key[0], counted), row).n} {many}"
    return "not measured"


if __name__ == "__main__":
    sys.exit(main())
