"""The tables of study 5: means over seeds beside the study's figures, what drawn slices gain, and every row."""

from collections.abc import Sequence

from studies.results import Row, comparable, floats, paired_gain, shown, spread

#: IoU in per cent that the study prints, by arm.
_PRINTED = {
    "U-Net1, 1 nothing": 58.51,
    "U-Net2, 1 nothing": 89.61,
    "FPN, 1 nothing": 88.98,
    "U-Net1, 2 geometric": 85.70,
    "U-Net2, 2 geometric": 88.93,
    "FPN, 2 geometric": 91.28,
    "U-Net1, 3 drawn": 88.70,
    "U-Net2, 3 drawn": 87.49,
    "FPN, 3 drawn": 89.74,
    "U-Net1, 4 geometric and drawn": 90.73,
    "U-Net2, 4 geometric and drawn": 90.76,
    "FPN, 4 geometric and drawn": 91.41,
}
#: What an arm is held against: the same without drawn slices.
_WITHOUT = {"3 drawn": "1 nothing", "4 geometric and drawn": "2 geometric"}
_SHOWN = (
    ("IoU", "slice_iou_slice"),
    ("IoU, absent as 1", "slice_iou_absent_1_slice"),
    ("IoU, kidney and tumour", "slice_iou_foreground_slice"),
    ("IoU tumour", "slice_iou_tumour_slice"),
    ("Dice kidney", "patient_dice_kidney_patient"),
    ("Dice tumour", "patient_dice_tumour_patient"),
)
_GAINS = (("IoU", "slice_iou_slice"), ("Dice tumour", "patient_dice_tumour_patient"))


def table(rows: list[Row]) -> str:
    """The rows as markdown, those that are `comparable`; the study's figures beside ours."""
    newest, left_out = comparable(rows)
    parts = []
    for scale, data in dict.fromkeys((row["scale"], row["data"]) for row in newest):
        mine = [row for row in newest if (row["scale"], row["data"]) == (scale, data) and row["status"] == "done"]
        if len({row["seed"] for row in mine}) > 1:
            parts.append(
                f"{data}, {scale} scale, means over seeds; IoU per slice, Dice per patient:\n\n{_summary(mine)}"
            )
    parts.append("Every run; intervals are 95 % over patients:\n\n" + _every(newest) if newest else "No rows yet.")
    parts += [left_out] if left_out else []
    return "\n\n".join(parts)


def _summary(rows: Sequence[Row]) -> str:
    """Mean and standard deviation over the seeds that all arms of a model have, so that its rows may be compared.

    What drawn slices gain is paired by seed.
    """
    heads = [name for name, _ in _SHOWN] + [f"drawn slices gain in {name}" for name, _ in _GAINS]
    lines = [f"| arm | seeds | {' | '.join(heads)} | the study, IoU in % |", "|---|---|" + "---|" * (len(heads) + 1)]
    by_arm: dict[str, list[Row]] = {}
    for row in rows:
        by_arm.setdefault(row["arm"], []).append(row)
    shared: dict[str, set[str]] = {}
    for arm, mine in by_arm.items():
        model, seeds = arm.partition(", ")[0], {row["seed"] for row in mine}
        shared[model] = shared.get(model, seeds) & seeds
    for arm, every in by_arm.items():
        common = shared[arm.partition(", ")[0]]
        mine = [row for row in every if row["seed"] in common or not common]
        cells = [spread(floats(mine, name)) for _, name in _SHOWN]
        cells += [_gain(arm, by_arm, name) for _, name in _GAINS]
        lines.append(f"| {_named(mine[-1])} | {_seeds(mine)} | {' | '.join(cells)} | {_printed(arm)} |")
    return "\n".join(lines)


def _seeds(rows: Sequence[Row]) -> str:
    """How many, and which: `3 (100 to 102)`, `2 (0, 7)`."""
    seeds = sorted(int(row["seed"]) for row in rows)
    in_a_row = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    return f"{len(seeds)} ({f'{seeds[0]} to {seeds[-1]}' if in_a_row else ', '.join(map(str, seeds))})"


def _gain(arm: str, by_arm: dict[str, list[Row]], column: str) -> str:
    """What an arm with drawn slices has over the same arm without, or a dash."""
    model, _, scenario = arm.partition(", ")
    base = _WITHOUT.get(scenario.partition(", control")[0])
    if base is None or f"{model}, {base}" not in by_arm:
        return "–"
    mine, without = (
        {row["seed"]: float(row[column]) for row in by_arm[name] if row[column]} for name in (arm, f"{model}, {base}")
    )
    return paired_gain(mine, without)


def _named(row: Row) -> str:
    """The arm; of a run also what is to be known of it."""
    return f"{row['arm']} ({row['note']})" if row["status"] == "done" and row["note"] else row["arm"]


def _printed(arm: str) -> str:
    return f"{_PRINTED[arm]:.2f}" if arm in _PRINTED else "–"


def _every(rows: Sequence[Row]) -> str:
    heads = [*(name for name, _ in _SHOWN), "tumour seen where there is none", "the study, IoU in %"]
    lines = [
        f"| data | arm | seed | slices | patients | {' | '.join(heads)} |",
        "|---|---|---|---|---|" + "---|" * len(heads),
    ]
    levels = [(name.rpartition("_")[0], name.rpartition("_")[2]) for _, name in _SHOWN]
    for row in rows:
        if row["status"] != "done":
            cells = [f"not run: {row['note']}", *[""] * len(heads)]
        else:
            figures = [shown(row, *level) for level in (*levels, ("patient_false_tumour", "patient"))]
            cells = [row["n_images"], row["n_patients"], *figures]
        lines.append("| " + " | ".join([row["data"], _named(row), row["seed"], *cells, _printed(row["arm"])]) + " |")
    return "\n".join(lines)
