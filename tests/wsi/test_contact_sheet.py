import numpy as np
import pytest
from PIL import Image
from wsi.graded_slides import DISC, DISCS, Discs, Middles, draw_discs, record_of, rows_of

from pathzoo.wsi import contact_sheet
from pathzoo.wsi.contact_sheet import CELL, COLUMNS, Cell, choose_view
from pathzoo.wsi.predictor import InputSpec
from pathzoo.wsi.run import predict_slide
from pathzoo.wsi.slide import Slide


def run(path, out, **options):
    options = {"isolate": False, "tissue": False, "overlap": 0.5} | options
    return predict_slide(path, Discs(), out, **options).folder


def cells(picture):
    """The pictures of a page's cells, found as the squares that are not white, row by row."""
    step, size = CELL + contact_sheet._GAP, CELL + contact_sheet._GAP + contact_sheet._CAPTION
    left = contact_sheet._MARGIN
    filled = (picture[:, left : left + CELL] != 255).any(axis=2).mean(axis=1) > 0.9
    [top, *_] = np.flatnonzero(filled)
    found = []
    for y in range(top, picture.shape[0] - CELL, size):
        found += [picture[y : y + CELL, x : x + CELL] for x in range(left, left + COLUMNS * step, step)]
    return [cell for cell in found if (cell != 255).any(axis=2).mean() > 0.3]


def test_every_object_is_shown_the_surest_first_and_all_to_one_scale(make_slide, tmp_path):
    path = make_slide(draw_discs(), levels=2)
    folder = run(path, tmp_path)
    picture = np.asarray(Image.open(folder / "contact_sheet.png"))
    shown, said = cells(picture), record_of(folder)["contact_sheet"]
    assert len(shown) == said["objects"] == len(DISCS) and said["left_out"] == 0 and said["pages"] == 1
    zoom = 0.5 / said["mpp"]  # pixels of a cell per pixel of the slide
    for cell, row in zip(shown, rows_of(folder / "detections.csv"), strict=True):
        dark = np.abs(cell.astype(int) - DISC).max(axis=2) < 40
        y, x = np.nonzero(dark)
        for extent, side in ((x, "x"), (y, "y")):
            length = (float(row[f"{side}1"]) - float(row[f"{side}0"])) * zoom
            assert extent.max() - extent.min() + 1 == pytest.approx(length, abs=4)
            assert (extent.max() + extent.min()) / 2 == pytest.approx(CELL / 2, abs=2)
        left, right = (round(CELL / 2 + sign * (float(row["x1"]) - float(row["x0"])) / 2 * zoom) for sign in (-1, 1))
        green = np.abs(cell.astype(int) - (0, 158, 115)).max(axis=2) < 3  # the first class's colour
        assert set(np.flatnonzero(green[CELL // 2])) <= set(range(left - 2, left + 3)) | set(
            range(right - 3, right + 2)
        )
        assert green.sum() > 2 * (right - left) and green.sum() < 5 * (right - left), "a thin frame"


def test_a_box_of_less_than_a_pixel_is_framed_all_the_same():
    sheet = Image.new("RGB", (2 * CELL, 2 * CELL), "white")
    grey = np.full((CELL, CELL, 3), 128, np.uint8)
    box = (CELL / 2 + 0.1, CELL / 2 + 0.1, CELL / 2 + 0.3, CELL / 2 + 0.2)
    contact_sheet._draw_cell(sheet, 0, 0, Cell(grey, box, (200, 0, 0), ("1", "0.9", "glomerulus", "1 µm")))
    assert (np.asarray(sheet)[: CELL - 1, : CELL - 1] == (200, 0, 0)).all(axis=2).sum() in (1, 2)


def test_the_view_holds_most_objects_and_is_not_ruled_by_a_huge_one(make_slide):
    with Slide(make_slide(draw_discs(), mpp=0.25, levels=3)) as slide:
        sides = np.array([300.0] * 40)
        boxes = np.column_stack([np.zeros((40, 2)), sides, sides, np.ones(40), np.zeros(40)])
        view = choose_view(boxes, slide)
        assert view.side == CELL and CELL * view.shown_mpp == pytest.approx(1.4 * 300 * 0.25, rel=0.03)
        boxes[0, 2] = 5000
        assert choose_view(boxes, slide) == view
        few = choose_view(boxes[:2], slide)  # of two, the larger rules as far as the other can still be seen
        assert CELL * few.shown_mpp == pytest.approx(1.4 * 5000 * 0.95 * 0.25, rel=0.06)
        small = choose_view(boxes / 60, slide)  # of 5 pixels: enlarged, but no more than four times
        assert small.mpp == 0.25 and small.zoom == pytest.approx(4, rel=0.03)
        assert choose_view(boxes[:0], slide).side <= CELL


def test_more_than_a_page_goes_on_and_beyond_the_cap_the_least_sure_are_left_out(make_slide, tmp_path, monkeypatch):
    monkeypatch.setattr(contact_sheet, "COLUMNS", 2)
    monkeypatch.setattr(contact_sheet, "ROWS", 1)
    monkeypatch.setattr(contact_sheet, "PAGES", 2)
    told = []
    plain = contact_sheet.draw_page
    monkeypatch.setattr(
        contact_sheet, "draw_page", lambda c, *a, **k: (told.append((c, k["notes"])), plain(c, *a, **k))[1]
    )
    folder = run(make_slide(draw_discs()), tmp_path)
    assert sorted(p.name for p in folder.glob("contact*")) == ["contact_sheet.png", "contact_sheet_2.png"]
    said = record_of(folder)["contact_sheet"]
    assert {k: said[k] for k in ("pages", "objects", "left_out")} == {"pages": 2, "objects": 4, "left_out": 1}
    assert [[cell.texts[0] for cell in page] for page, _ in told] == [["1", "2"], ["3", "4"]]
    assert told[1][1][0] == (
        "page 2 of 2: objects 3 to 4 of 5 by falling score, numbered as in detections.csv; the 1 with the lowest "
        "scores are left out"
    )


def test_a_grade_stands_below_its_object(make_slide, tmp_path, monkeypatch):
    told = []
    plain = contact_sheet.draw_page
    monkeypatch.setattr(contact_sheet, "draw_page", lambda c, *a, **k: (told.append((c, k)), plain(c, *a, **k))[1])
    folder = run(make_slide(draw_discs()), tmp_path, classifier=Middles())
    [(shown, keywords)] = told
    rows = rows_of(folder / "detections.csv")
    texts = [f"{row['grade']} {float(row['prob_' + row['grade']]):.2f}" for row in rows]
    assert [cell.texts[2] for cell in shown] == texts
    assert [cell.texts[:2] for cell in shown] == [(str(n), f"{float(r['score']):.3f}") for n, r in enumerate(rows, 1)]
    assert shown[0].texts[3] == "40 µm"  # 80 pixels
    assert {name: n for name, (_, n) in keywords["legend"].items()} == {"disc: full": 3, "disc: pale": 2}
    assert keywords["subtitle"] == "discs 1.0.0, graded by middles 2.0.0" and keywords["title"] == "slide.tif"
    assert {cell.color for cell in shown} == {color for color, _ in keywords["legend"].values()}


def test_what_cannot_be_decoded_is_grey_and_said(make_slide, tmp_path, monkeypatch):
    """The slide is read whole for its tiles, and then no more: all cells are grey, and the result stands."""
    told, plain = [], contact_sheet.draw_page
    monkeypatch.setattr(contact_sheet, "draw_page", lambda c, *a, **k: (told.append(c), plain(c, *a, **k))[1])

    def broken(slide, grid, *arguments, **keywords):
        from pathzoo.errors import SlideError

        raise SlideError(f"{slide.path}: the disk has gone")
        yield

    monkeypatch.setattr("pathzoo.wsi.object_crops.read_tiles", broken)
    folder = run(make_slide(draw_discs()), tmp_path, classifier=Middles())
    assert [cell.remark for cell in told[0]] == ["not readable"] * 5
    assert all((cell.picture == contact_sheet._LOST).all() for cell in told[0])
    assert [row["grade"] for row in rows_of(folder / "detections.csv")] == [""] * 5
    record = record_of(folder)
    assert record["contact_sheet"]["not_wholly_readable"] == 5
    assert {entry["reason"] for entry in record["grades"]["not_classified"]} == {"the disk has gone"}


def test_without_objects_the_sheet_says_so(make_slide, tmp_path):
    folder = run(make_slide(np.full((300, 300, 3), 240, np.uint8)), tmp_path)
    assert record_of(folder)["contact_sheet"]["objects"] == 0
    assert Image.open(folder / "contact_sheet.png").size[1] < 300


def test_a_crop_that_hangs_costs_itself(make_slide, tmp_path):
    """In a process of its own: a region at a corner of one crop, which no tile of the detector touches."""
    from wsi.faulty_slides import FaultySlide

    from pathzoo.wsi.job import SlideJob
    from pathzoo.wsi.object_crops import read_crops

    path = make_slide(draw_discs())
    with FaultySlide(path, point=(5, 5), fault="hang") as slide:
        detector = Discs()
        detector.input = InputSpec((64, 64), 0.5)
        reading = {"batch_size": 2, "num_workers": 1, "isolate": True, "timeout": 1.0}
        job = SlideJob(slide, None, 0.5, detector, None, None, tmp_path, "slide.tif", reading=reading)
        boxes = np.array([[200, 200, 220, 220], [10, 10, 20, 20], [100, 300, 130, 330]], float)
        damaged, seen = {}, []
        for batch in read_crops(job, boxes, (32, 32), 0.5):
            seen += batch.numbers.tolist()
            damaged |= {n: why for n, (_, why) in batch.damage.items()}
    assert sorted(seen) == [0, 1, 2] and list(damaged) == [1]
    assert "decoder gave no answer within 1 s" in damaged[1]
