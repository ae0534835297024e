"""How much the vectors of backbones tell of a labelled data set: nearest neighbours and a linear classifier.

    python tools/analysis_tools/probe_backbone.py CONFIG --out probe/ --sources random imagenet \\
        "simclr=work_dirs/simclr/best_loss_epoch_90.pth" [--cfg-options fold=1 data_root=DIR ...]

CONFIG is a classification config: its training subset (with its label_fraction) is learnt from, its validation subset
chooses the linear classifier's penalty, its test subset is judged; with --all-folds that of every fold, together. A
source is `random`, `imagenet`, a file with timm's key names, a training run's folder or checkpoint, a published model's
folder or NAME[@VERSION]; "NAME=SOURCE" names it. Runs that have seen the patients of val or test are refused. OUT gets
probe.json and embedding_NAME.png.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pathzoo.errors import ConfigError, PathzooError

#: What the table shows of the rows; probe.json holds all.
_SHOWN = {"accuracy", "balanced_accuracy", "roc_auc", "nll", "recognition_rate"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    try:
        for path in run(args):
            print(path)
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def run(args: argparse.Namespace) -> list[Path]:
    """Probes as the arguments say, and prints a table of each source; the files written."""
    from pathzoo.apis.options import parse_options
    from pathzoo.apis.probe import probe
    from pathzoo.fileio import write_json
    from pathzoo.wsi.outputs import atomic_folder

    sources = _sources(args.sources)
    if args.out.exists() and not args.overwrite:
        raise ConfigError(f"{args.out}: exists already; give another --out, or --overwrite")
    options = parse_options(args.cfg_options)
    given = {
        "network": args.network,
        "k": args.k,
        "temperature": args.temperature,
        "n_bootstrap": args.n_bootstrap,
        "batch_size": args.batch_size,
        "num_workers": args.num_workers,
        "device": args.device,
        "seed": args.seed,
        "partial": args.partial,
        "all_folds": args.all_folds,
    }
    records: dict[str, Any] = {}
    names = ["probe.json"]
    with atomic_folder(args.out, args.overwrite) as folder:
        for name, source in sources.items():
            found = probe(source, args.config, options, **given)
            records[name] = found.record
            names.append(f"embedding_{name}.png")
            _draw(found, name, folder / names[-1])
            _show(name, found.record)
        write_json(folder / names[0], {"options": {key: str(value) for key, value in options.items()}, **records})
    return [args.out / name for name in names]


def _show(name: str, record: dict[str, Any]) -> None:
    from rich.console import Console

    from pathzoo.evaluation.table import format_rows

    near, plane = record["knn"], record["linear"]
    strengths = plane["C"] if isinstance(plane["C"], list) else [plane["C"]]
    console = Console(width=None if sys.stdout.isatty() else 160)
    for title, rows in (
        (f"{name}: {near['k']} nearest neighbours, T = {near['temperature']:g}", near["rows"]),
        (f"{name}: linear, C = {', '.join(f'{c:g}' for c in strengths)} by {plane['chosen_by']}", plane["rows"]),
    ):
        console.print(format_rows([row for row in rows if row["metric"] in _SHOWN], title))


def _draw(found: Any, name: str, path: Path) -> None:
    import numpy as np

    from pathzoo.visualization.curves import save_figure
    from pathzoo.visualization.embedding import plot_embedding

    parts = list(found.subsets.values())
    tested = [np.full(len(part.vectors), subset == "test") for subset, part in found.subsets.items()]
    figure = plot_embedding(
        np.concatenate([part.vectors for part in parts]),
        np.concatenate([part.labels for part in parts]),
        found.classes,
        np.concatenate(tested),
        [patient for part in parts for patient in part.column("patient")],
        title=name,
    )
    save_figure(figure, path)


def _sources(words: Sequence[str]) -> dict[str, str | None]:
    """Name -> source, as `probe` takes it; a source without a name is called by its last part."""
    sources: dict[str, str | None] = {}
    for word in words:
        name, equals, source = word.partition("=")
        if not equals or Path(word).exists():
            name, source = Path(word).stem if Path(word).exists() else word, word
        name = re.sub(r"[^\w.-]+", "_", name)
        if not name or not source:
            raise ConfigError(f"--sources {word!r}: expected SOURCE or NAME=SOURCE")
        if name in sources:
            raise ConfigError(f"--sources: the name {name!r} stands there twice; give NAME=SOURCE")
        sources[name] = None if source == "random" else source
    return sources


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a classification config, or its path below the packaged configs")
    parser.add_argument("--sources", nargs="+", required=True, metavar="[NAME=]SOURCE", help="backbones to judge")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--network", help="timm's name, where the source does not tell it; the config's by default")
    parser.add_argument("--k", type=int, default=20, help="neighbours that vote (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.07, help="of their votes (default: %(default)s)")
    parser.add_argument("--n-bootstrap", type=int, default=1000, help="resamples of patients (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--device", help="cpu, cuda, cuda:1; the first GPU where there is one")
    parser.add_argument("--seed", type=int, default=0, help="of random weights, folds and resampling")
    parser.add_argument("--partial", action="store_true", help="take what fits of weights that do not fit in whole")
    parser.add_argument("--all-folds", action="store_true", help="of a patient_kfold split: each picture tested once")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="set keys of the config")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")
    return parser


if __name__ == "__main__":
    sys.exit(main())
