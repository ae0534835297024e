"""The tables of study 1: means over seeds with what self-training gains, and every row."""

import statistics
from collections.abc import Sequence

from studies.results import Row, comparable, floats, paired_gain, shown, spread

_FULL, _FEW = "supervised, 100 %", "supervised, 35 %"
#: What the study prints: mIoU, F1, accuracy; whether micro or macro it does not say.
_PRINTED = {_FULL: "0.97 / 0.98 / 0.99", "self-training, 35 %, all pixels (study)": "0.93 / 0.95 / 0.98"}
_FOUND = "flipped_in_first_fifth"


def table(rows: list[Row]) -> str:
    """The rows as markdown, those that are `comparable`; the study's figures beside ours."""
    newest, left_out = comparable(rows)
    parts = []
    scales = {row["scale"] for row in newest}
    for scale, data in dict.fromkeys((row["scale"], row["data"]) for row in newest):
        mine = [row for row in newest if (row["scale"], row["data"]) == (scale, data) and row["status"] == "done"]
        if len({row["seed"] for row in mine}) > 1:
            about = f"{data}, {scale} scale" if len(scales) > 1 else data
            parts.append(f"{about}, means over seeds:\n\n{_summary(mine)}")
    parts.append("Every run; intervals are 95 % over patients:\n\n" + _every(newest) if newest else "No rows yet.")
    parts += [left_out] if left_out else []
    return "\n\n".join(parts)


def _summary(rows: Sequence[Row]) -> str:
    """Mean and standard deviation over seeds; gain and closed distance are paired by seed."""
    lines = [
        "| arm | seeds | mIoU | mIoU, micro | F1 | F1, micro | accuracy | IoU benign | IoU malignant "
        "| gain in mIoU on 35 % supervised | of the distance to 100 % | the study: mIoU / F1 / accuracy |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    by_arm: dict[str, list[Row]] = {}
    for row in rows:
        by_arm.setdefault(row["arm"], []).append(row)
    for arm, mine in by_arm.items():
        if mine[0].get(f"{_FOUND}_region"):
            continue
        names = ("miou", "miou_micro", "f1", "f1_micro", "accuracy", "iou_benign", "iou_malignant")
        cells = [spread(floats(mine, f"{name}_pixel")) for name in names]
        lines.append(
            "| " + " | ".join([arm, str(len(mine)), *cells, *_gain(arm, by_arm), _PRINTED.get(arm, "–")]) + " |"
        )
    found = [row for row in rows if row.get(f"{_FOUND}_region")]
    text = "\n".join(lines)
    if found:
        shares = floats(found, f"{_FOUND}_region")
        each = ", ".join(f"{share:.0%}".replace("%", " %") for share in shares)
        text += (
            f"\n\nLabel review, {len(found)} seeds: of the regions whose classes were exchanged, "
            f"{statistics.mean(shares):.0%} stand in the first fifth of the ranking (chance: 20 %; by seed: {each})."
        ).replace("% stand", " % stand")
    return text


def _gain(arm: str, by_arm: dict[str, list[Row]]) -> tuple[str, str]:
    """Gain on the arm with few labels of the same kind, and its part of the distance to that with all."""
    end = arm[arm.rindex(", ") :] if arm.endswith(" inconsistent") else ""
    base, full = f"{_FEW}{end}", f"{_FULL}{end}"
    if arm in (base, full) or base not in by_arm or full not in by_arm:
        return "–", "–"
    few, most, mine = ({row["seed"]: float(row["miou_pixel"]) for row in by_arm[name]} for name in (base, full, arm))
    seeds = sorted(set(few) & set(most) & set(mine))
    if not seeds:
        return "–", "–"
    gain = statistics.mean(mine[seed] - few[seed] for seed in seeds)
    distance = statistics.mean(most[seed] - few[seed] for seed in seeds)
    closed = f"{gain / distance:.0%}".replace("%", " %") if distance > 0 else "– (no distance)"
    return paired_gain({seed: mine[seed] for seed in seeds}, few), closed


def _every(rows: Sequence[Row]) -> str:
    lines = [
        "| data | arm | seed | regions | patients | mIoU | F1 | accuracy | IoU of each class |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row["status"] != "done":
            cells = [f"not run: {row['note']}", *[""] * 5]
        elif row.get(f"{_FOUND}_region"):
            share = f"{float(row[f'{_FOUND}_region']):.0%}".replace("%", " % of the exchanged in the first fifth")
            cells = [row["n_images"], row["n_patients"], share, "", "", ""]
        else:
            names = [name for name in ("normal", "benign", "malignant", "tumour") if row[f"iou_{name}_pixel"]]
            each = ", ".join(f"{name} {float(row[f'iou_{name}_pixel']):.3f}" for name in names)
            figures = (shown(row, name, "pixel") for name in ("miou", "f1", "accuracy"))
            cells = [row["n_images"], row["n_patients"], *figures, each]
        lines.append("| " + " | ".join([row["data"], row["arm"], row["seed"], *cells]) + " |")
    return "\n".join(lines)
