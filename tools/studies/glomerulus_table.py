"""The tables of study 4: means over seeds beside the study's figures, and every row."""

from collections.abc import Sequence

from studies.results import Row, comparable, floats, shown, spread

#: Precision, recall and F1 as the study prints them; at which level and overlap, it does not say.
_PRINTED = {"YOLOv5 L": "0.908 / 0.923 / 0.915", "YOLOv5 XL": "0.901 / 0.926 / 0.913"}
_STUDY = (
    f"The study's own precision / recall / F1: {'; '.join(f'{arm} {printed}' for arm, printed in _PRINTED.items())}; "
    "earlier work, as it quotes it, 0.931 / 0.831 / 0.878. At which level and overlap it does not say: presumably on "
    "tiles, where a glomerulus counts in each that shows it, so that our tiles compare and our slides do not."
)
_HEADS = {
    "tiles: AP": ("ap_tile",),
    "AP50": ("ap50_tile",),
    "precision / recall / F1": ("precision_at_best_f1_tile", "recall_at_best_f1_tile", "best_f1_tile"),
    "slides: average precision": ("average_precision_slide",),
    "precision / recall / F1, each once": ("precision_at_chosen_slide", "recall_at_chosen_slide", "f1_at_chosen_slide"),
    "for recall 0.99: recall": ("recall_for_recall_slide",),
    "false detections per slide": ("false_positives_for_recall_slide",),
    "recall of all": ("highest_recall_slide",),
}


def table(rows: list[Row]) -> str:
    """The rows as markdown, those that are `comparable`; the study's figures beside ours."""
    newest, left_out = comparable(rows)
    parts = []
    for scale, data in dict.fromkeys((row["scale"], row["data"]) for row in newest):
        mine = [row for row in newest if (row["scale"], row["data"]) == (scale, data) and row["status"] == "done"]
        if mine:
            parts.append(f"{data}, {scale} scale, {_about(mine)}:\n\n{_summary(mine)}")
    if parts:
        parts.append(_STUDY)
    parts.append("Every run; intervals are 95 % over patients:\n\n" + _every(newest) if newest else "No rows yet.")
    parts += [left_out] if left_out else []
    return "\n\n".join(parts)


def _about(rows: Sequence[Row]) -> str:
    seeds = len({row["seed"] for row in rows})
    equal = len(rows) == seeds * len({row["arm"] for row in rows})
    means = f"means over {'' if equal else 'up to '}{seeds} seeds" if seeds > 1 else "one seed"
    slides, objects = (sorted(map(int, floats(rows, f"{name}_slide"))) for name in ("slides", "objects"))
    return f"{means}, tested on {_range(slides)} slides with {_range(objects)} glomeruli each time"


def _range(values: Sequence[int]) -> str:
    return f"{values[0]}" if values[0] == values[-1] else f"{values[0]} to {values[-1]}"


def _summary(rows: Sequence[Row]) -> str:
    """Mean and standard deviation over seeds."""
    lines = [f"| arm | seeds | {' | '.join(_HEADS)} | the study |", "|---|---|" + "---|" * (len(_HEADS) + 1)]
    by_arm: dict[str, list[Row]] = {}
    for row in rows:
        by_arm.setdefault(row["arm"], []).append(row)
    for arm, mine in by_arm.items():
        cells = [" / ".join(spread(floats(mine, name)) for name in names) for names in _HEADS.values()]
        lines.append("| " + " | ".join([arm, str(len(mine)), *cells, _PRINTED.get(arm, "–")]) + " |")
    return "\n".join(lines)


def _every(rows: Sequence[Row]) -> str:
    figures = {
        "tiles: AP50": ("ap50", "tile"),
        "slides: precision": ("precision_at_chosen", "slide"),
        "recall": ("recall_at_chosen", "slide"),
        "F1": ("f1_at_chosen", "slide"),
        "best F1 (threshold chosen on the same slides)": ("best_f1", "slide"),
    }
    lines = [
        f"| data | arm | seed | tiles | patients | glomeruli | {' | '.join(figures)} |",
        "|---|---|---|---|---|---|" + "---|" * len(figures),
    ]
    for row in rows:
        if row["status"] == "done":
            objects = f"{float(row['objects_slide']):.0f}"
            cells = [row["n_images"], row["n_patients"], objects, *(shown(row, *figure) for figure in figures.values())]
        else:
            cells = [f"not run: {row['note']}", *[""] * (2 + len(figures))]
        lines.append("| " + " | ".join([row["data"], row["arm"], row["seed"], *cells]) + " |")
    return "\n".join(lines)
