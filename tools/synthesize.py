"""Draws synthetic CT slices or tissue tiles by a trained generator, from the label maps of training patients.

    python tools/synthesize.py CONFIG CHECKPOINT --out DRAWN [--count 1333] [--classes NAME ...] [--augment-labels] \\
        [--cfg-options data_root=DATA]

CONFIG is a translator's (configs/kits_pix2pix/pix2pix_*.py), CHECKPOINT its run's, or a published translator's name or
folder: whom that one has seen cannot be compared, and metrics.json of who trains on its pictures says so. DRAWN becomes
a store of slices, or a folder of drawn regions, that training adds by `synthetic=DRAWN`, and that nothing else takes:
every drawn picture keeps the patient of its label map. Beside the pictures lie report.json (SSIM, KID, and how many may
be copies of a patient's picture) and pictures.png.

--classes draws from label maps that show one of these classes alone: so a rare class is augmented. --augment-labels
shifts, scales and turns label maps and, of CT, changes size and place of tumours, by the amounts that the options below
it show. --control makes what cannot help, to be held against what is hoped to.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pathzoo.errors import ConfigError, PathzooError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    args = _parser().parse_args(argv)
    try:
        run(args)
    except PathzooError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def run(args: argparse.Namespace) -> None:
    """Draws, judges, and prints what came of it."""
    from pathzoo.apis.config import load_config
    from pathzoo.apis.options import parse_options
    from pathzoo.apis.setup import setup
    from pathzoo.apis.synthesis_report import report_synthesis
    from pathzoo.apis.synthesize import Drawing, draw_into, maps_class

    setup()
    options = parse_options(args.cfg_options)
    if args.out.exists() and not args.overwrite:
        raise ConfigError(f"{args.out}: exists already; give another --out, or --overwrite")
    cfg = load_config(args.config, options)
    kind = maps_class(cfg)
    drawing = Drawing(args.count, args.seed, _augmentation(args, kind.has_lesions), not args.no_noise, args.control)
    model = draw_into(
        args.out,
        cfg,
        args.checkpoint,
        drawing,
        classes=args.classes,
        device=args.device,
        overwrite=args.overwrite,
    )
    found = report_synthesis(cfg, model, args.out)
    quality, copies, kid = found["quality"], found["memorised"], found["kid"]
    print(f"{args.out}: {found['n']} {kind.drawn_name} of {found['parents']['patients']} training patients")
    print(f"own label maps drawn again: SSIM {quality['ssim']:.3f}, mean difference {quality['mae']:.1f} of 255")
    for name in ("drawn", "validation"):
        if kid.get(name):
            print(f"KID ({kid['features']}) from training {kind.map_name}, {name}: {kid[name]['mean']:.4f}")
    if copies["flagged"] is None:
        print(f"copies of a patient's picture: not judged ({copies['note']})")
    else:
        near = f"nearer to a real one than two patients' {kind.map_name} are"
        print(f"{near}: {copies['flagged']} (pictures.png shows them first)")


def _augmentation(args: argparse.Namespace, lesions: bool) -> Any:
    from pathzoo.datasets.label_augmentation import LabelAugmentation

    names = ("shift", "scale", "rotation", "tumour_scale", "tumour_shift")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if not args.augment_labels:
        if given:
            option = f"--{next(iter(given)).replace('_', '-')}"
            raise ConfigError(f"{option} changes label maps, which are drawn as they are: give --augment-labels too")
        return LabelAugmentation()
    usual = {"shift": 8.0, "scale": (0.9, 1.1), "rotation": 10.0}
    usual |= {"tumour_scale": (0.7, 1.4), "tumour_shift": 6.0} if lesions else {}
    return LabelAugmentation(**usual | {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})


def _parser() -> argparse.ArgumentParser:
    head, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="synthesize.py", description=head, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="a translator's config")
    parser.add_argument(
        "checkpoint", nargs="?", help=".pth of its run, or a published translator; none with --control untrained"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--count", type=int, default=1333, help="pictures to draw (default: the study's 1333)")
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="label maps that show one of these alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--augment-labels", action="store_true", help="change the label maps, by:")
    parser.add_argument("--shift", type=float, metavar="PX", help="up to, each way (default: 8)")
    parser.add_argument("--scale", type=float, nargs=2, metavar=("LOW", "HIGH"), help="(default: 0.9 1.1)")
    parser.add_argument("--rotation", type=float, metavar="DEGREES", help="up to, either way (default: 10)")
    parser.add_argument("--tumour-scale", type=float, nargs=2, metavar=("LOW", "HIGH"), help="of CT (default: 0.7 1.4)")
    parser.add_argument("--tumour-shift", type=float, metavar="PX", help="of CT, up to, each way (default: 6)")
    parser.add_argument("--no-noise", action="store_true", help="leave the generator's dropout off")
    parser.add_argument("--control", choices=("untrained", "shuffled"), help="draw what cannot help")
    parser.add_argument("--device", help="cpu, cuda, ...; the first GPU where there is one")
    parser.add_argument("--overwrite", action="store_true", help="replace drawn pictures that are there")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="set in the config")
    return parser


if __name__ == "__main__":
    sys.exit(main())
