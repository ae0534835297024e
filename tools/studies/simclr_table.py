"""The tables of study 2: accuracy and loss beside the study's, what each pretext task gains, and the probes."""

import statistics
from collections.abc import Sequence

from studies.results import Row, comparable, floats, paired_gain, spread

#: Parts of the labels that the study takes.
FRACTIONS = (0.05, 0.25, 0.5)
_SUPERVISED = "supervised"
#: How the name ends of an arm whose pretext tasks see all tiles of breast.
ON_ALL = ", pretext on all tiles"
#: Test accuracy in % and loss as the study prints them, at 5, 25, 50 % and at 100 %. A question mark: the print has a
#: second reading (0.4001, 0.2765, 91.0).
_PRINTED = {
    "supervised": ("67.10 (1.595)", "83.15 (0.5947)", "88.7 (0.5538)", "88.96 (0.3376)"),
    "RotNet": ("64.11 (0.7344)", "84.51 (0.3881)", "85.76 (0.3864)"),
    "RotNet + jitter": ("79.32 (0.776)", "86.64 (0.3466)", "89.4 (0.2897)"),
    "SimCLR": ("75.59 (0.5545)", "84.8 (0.3569)", "88.79 (0.2767)"),
    "SimCLR, kidney then breast": ("80.65 (0.4881?)", "88.96 (0.2785?)", "91.5? (0.2229)"),
}
#: Arm's name without fraction -> fraction in % -> rows.
_Grid = dict[str, dict[str, list[Row]]]


def table(rows: list[Row]) -> str:
    """The rows as markdown, those that are `comparable`; the study's figures beside ours."""
    parts = []
    for scale, data in dict.fromkeys((row["scale"], row["data"]) for row in rows):
        mine, left_out = comparable([row for row in rows if (row["scale"], row["data"]) == (scale, data)])
        grid = _grid([row for row in mine if row["status"] == "done"])
        seeds = {row["seed"] for row in mine}
        sizes = sorted({f"{row['n_images']} tiles of {row['n_patients']} patients" for row in mine if row["n_images"]})
        about = f"{data}, {scale} scale, {len(seeds)} seed{'s' * (len(seeds) > 1)}, tested on {' or '.join(sizes)}"
        if grid:
            parts += [
                f"{about}. Accuracy, loss (negative log-likelihood) in brackets; the study's in %:\n\n{_beside(grid)}",
                f"Gains in accuracy, paired by seed:\n\n{_gains(grid)}",
                f"Accuracy of a linear probe and of nearest neighbours on the vectors before fine-tuning, with the "
                f"fraction's labels:\n\n{_probes(grid, scale)}",
            ]
        parts += [left_out] if left_out else []
        notes = dict.fromkeys(f"{row['arm']}: {row['note']}" for row in mine if row["status"] != "done")
        if notes:
            parts.append("Not run:\n\n" + "\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts) or "No rows yet."


def _grid(rows: Sequence[Row]) -> _Grid:
    grid: _Grid = {}
    for row in rows:
        name, _, fraction = row["arm"].removesuffix(ON_ALL).rpartition(", ")
        name += ON_ALL if row["arm"].endswith(ON_ALL) else ""
        grid.setdefault(name, {}).setdefault(fraction, []).append(row)
    return grid


def _beside(grid: _Grid) -> str:
    """Accuracy (loss) of every arm and fraction, and the study's."""
    shares = [*(percent(fraction) for fraction in FRACTIONS), "100 %"]
    lines = [
        "| arm | pretext tiles of breast | " + " | ".join(f"{share} | the study" for share in shares) + " |",
        "|---|---|" + "---|" * 2 * len(shares),
    ]
    for name, cells in grid.items():
        method, tiles = _split_name(name)
        printed = (*_PRINTED.get(method, ()), *["–"] * len(shares))[: len(shares)]
        figures = []
        for share, study in zip(shares, printed, strict=True):
            rows = cells.get(share, [])
            loss = f" ({statistics.mean(floats(rows, 'nll_tile')):.3f})" if rows else ""
            figures += [spread(floats(rows, "accuracy_tile")) + loss, study]
        lines.append("| " + " | ".join([method, tiles, *figures]) + " |")
    return "\n".join(lines)


def _gains(grid: _Grid) -> str:
    """What each arm gains on another, by fraction."""
    shares = [percent(fraction) for fraction in FRACTIONS]
    lines = ["| arm | on | " + " | ".join(shares) + " |", "|---|---|" + "---|" * len(shares)]
    pairs = [(name, _SUPERVISED) for name in grid if name != _SUPERVISED]
    for end in ("", ON_ALL):
        pairs.append((f"SimCLR, kidney then breast{end}", f"SimCLR{end}"))
        pairs.append((f"SimCLR, kidney then breast{end}", f"SimCLR, breast then breast (control){end}"))
        pairs.append((f"RotNet + jitter{end}", f"SimCLR{end}"))
    pairs.append((f"SimCLR, noise then breast (control){ON_ALL}", f"SimCLR{ON_ALL}"))
    for name, base in pairs:
        if name in grid and base in grid:
            cells = [_gain(grid[name].get(share, []), grid[base].get(share, [])) for share in shares]
            lines.append(f"| {name} | {base} | " + " | ".join(cells) + " |")
    full = grid.get(_SUPERVISED, {}).get("100 %", [])
    for name in grid:
        if full and name != _SUPERVISED:
            cells = [_gain(grid[name].get(share, []), full) for share in shares]
            lines.append(f"| {name} | supervised, 100 % | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _probes(grid: _Grid, scale: str) -> str:
    shares = [percent(fraction) for fraction in FRACTIONS]
    heads = " | ".join(f"{share}: linear | kNN" for share in shares)
    lines = [f"| vectors of | pretext tiles of breast | {heads} |", "|---|---|" + "---|" * 2 * len(shares)]
    for name, cells in grid.items():
        method, tiles = _split_name(name)
        figures = [
            spread(floats(cells.get(share, []), f"{kind}_accuracy_tile"))
            for share in shares
            for kind in ("linear", "knn")
        ]
        # At the paper's scale every chain begins with ImageNet weights, or what the user has put in their place.
        start = "initial weights" if scale == "paper" else "random weights"
        vectors = start if method == _SUPERVISED else method
        lines.append("| " + " | ".join([vectors, tiles, *figures]) + " |")
    return "\n".join(lines)


def _gain(rows: Sequence[Row], base: Sequence[Row]) -> str:
    mine, theirs = ({row["seed"]: float(row["accuracy_tile"]) for row in part} for part in (rows, base))
    return paired_gain(mine, theirs)


def _split_name(name: str) -> tuple[str, str]:
    method = name.removesuffix(ON_ALL)
    if method == _SUPERVISED or method in ("SimCLR on kidney alone", "SimCLR on noise (control)"):
        return method, "none"
    return method, "all" if name.endswith(ON_ALL) else "the fraction's"


def percent(fraction: float) -> str:
    """`5 %`."""
    return f"{fraction:.0%}".replace("%", " %")
