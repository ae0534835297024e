"""YOLOv5's boxes and matches against the rules in plain loops."""

import math

import pytest
import torch

from pathzoo.models.dense_heads.yolov5_boxes import decode, decode_cells, match

ANCHORS = torch.tensor([[10.0, 13.0], [16.0, 30.0], [33.0, 23.0]])


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_decoding_follows_the_formula_cell_by_cell():
    torch.manual_seed(0)
    raw = torch.randn(2, 3, 4, 5, 7, dtype=torch.float64) * 2
    found = decode(raw, ANCHORS, stride=8)
    assert found.shape == (2, 3, 4, 5, 4)
    for image, anchor, row, column in ((0, 0, 0, 0), (1, 2, 3, 4), (0, 1, 2, 3)):
        x, y, w, h = (sigmoid(float(value)) for value in raw[image, anchor, row, column, :4])
        width, height = ANCHORS[anchor].tolist()
        expected = [
            (2 * x - 0.5 + column) * 8,
            (2 * y - 0.5 + row) * 8,
            4 * w**2 * width,
            4 * h**2 * height,
        ]
        torch.testing.assert_close(found[image, anchor, row, column], torch.tensor(expected, dtype=torch.float64))


def test_a_cell_of_zeros_is_its_anchor_in_the_middle():
    box = decode(torch.zeros(1, 3, 2, 2, 4), ANCHORS, stride=16)[0, 1, 1, 0]
    assert box.tolist() == [8.0, 24.0, 16.0, 30.0]


def by_loops(images, labels, boxes, stride, size):
    """Every (image, anchor, row, column, label) that answers, by the rules as they are written."""
    found = set()
    rows, columns = size
    for image, label, (x, y, w, h) in zip(images.tolist(), labels.tolist(), boxes.tolist(), strict=True):
        for anchor, (width, height) in enumerate(ANCHORS.tolist()):
            if max(w / width, width / w, h / height, height / h) >= 4:
                continue
            column, row = math.floor(x / stride), math.floor(y / stride)
            cells = [(row, column)]
            beside = column - 1 if x / stride - column < 0.5 else column + 1
            above = row - 1 if y / stride - row < 0.5 else row + 1
            if 0 <= beside < columns:
                cells.append((row, beside))
            if 0 <= above < rows:
                cells.append((above, column))
            found |= {(image, anchor, r, c, label) for r, c in cells}
    return found


def as_set(found):
    columns = (found.image, found.anchor, found.row, found.column, found.label)
    return {tuple(cell) for cell in torch.stack(columns, dim=1).tolist()}


@pytest.mark.parametrize("seed", range(5))
def test_matches_are_those_of_the_rules(seed):
    generator = torch.Generator().manual_seed(seed)
    count, stride, size = 200, 8, (10, 14)
    images = torch.randint(0, 4, (count,), generator=generator)
    labels = torch.arange(count)  # each object its own, so that none hides behind another
    centres = torch.rand(count, 2, generator=generator, dtype=torch.float64) * torch.tensor([14 * 8, 10 * 8])
    sides = torch.exp(torch.rand(count, 2, generator=generator, dtype=torch.float64) * 5)
    boxes = torch.cat((centres, sides), dim=1)
    found = match(images, labels, boxes, ANCHORS.double(), stride, size)
    assert as_set(found) == by_loops(images, labels, boxes, stride, size)
    assert len(found.label) == len(as_set(found)), "no cell answers twice for one object"


def cells_of(x, y, columns, rows):
    """(row, column) of the cells of stride 8 that answer for a centre, by words: own, and the nearer one each way."""
    found = set()
    for dx, dy in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)):
        near = [0 if not step else (at % 8 if step < 0 else 8 - at % 8) for step, at in ((dx, x), (dy, y))]
        column, row = x // 8 + dx, y // 8 + dy
        # A centre on the first inner boundary has no neighbour before it, as in the release.
        first = (dx < 0 and x <= 8) or (dy < 0 and y <= 8)
        if max(near) < 4 and 0 <= column < columns and 0 <= row < rows and not first:
            found.add((row, column))
    return found


def test_whole_pixels_are_matched_to_cells_that_reach_them():
    """Centres on every pixel, cells' boundaries and middles too: each cell once, none out of reach."""
    centres = torch.cartesian_prod(torch.arange(48), torch.arange(40))
    boxes = torch.cat((centres, torch.full_like(centres, 14)), dim=1).float()
    number = torch.arange(len(boxes))
    found = match(torch.zeros_like(number), number, boxes, ANCHORS[:1], stride=8, size=(5, 6))
    answers = {}
    for k, row, column in zip(found.label.tolist(), found.row.tolist(), found.column.tolist(), strict=True):
        answers.setdefault(tuple(centres[k].tolist()), []).append((row, column))
    for (x, y), cells in answers.items():
        assert len(cells) == len(set(cells)) and set(cells) == cells_of(x, y, 6, 5), (x, y)
    assert len(answers) == len(boxes)
    assert found.box[:, :2].min() > -0.5 and found.box[:, :2].max() < 1.5


@pytest.mark.parametrize(
    ("place", "cells"),
    [
        ((32, 32), {(3, 4), (4, 3), (4, 4)}),
        ((36, 32), {(3, 4), (4, 4)}),
        ((34, 32), {(3, 4), (4, 3), (4, 4)}),
        ((40, 28), {(3, 4), (3, 5)}),
        ((38, 37), {(4, 4), (4, 5), (5, 4)}),
        ((0, 0), {(0, 0)}),
        ((8, 8), {(1, 1)}),
        ((56, 56), {(6, 7), (7, 6), (7, 7)}),
        ((8, 30), {(3, 1), (4, 1)}),
    ],
)
def test_cells_are_those_that_the_package_trains(place, cells):
    """Asked of yolov5 7.0.14 as a black box: 64 x 64 px, a box of 14 x 14, the gradient of its loss by its maps."""
    box = torch.tensor([[*place, 14.0, 14.0]])
    none = torch.zeros(1, dtype=torch.long)
    found = match(none, none, box, ANCHORS, stride=8, size=(8, 8))
    assert set(zip(found.row.tolist(), found.column.tolist(), strict=True)) == cells
    assert len(found.row) == len(cells) * len(ANCHORS)


def test_a_matched_cell_can_give_the_object_exactly():
    """The box of a match is within reach of its cell: the raw numbers that give it exist, and decode to it."""
    torch.manual_seed(1)
    count, stride, size = 100, 16, (8, 8)
    boxes = torch.cat((torch.rand(count, 2) * 128, torch.exp(torch.rand(count, 2) * 4)), dim=1).double()
    found = match(torch.zeros(count, dtype=torch.long), torch.arange(count), boxes, ANCHORS.double(), stride, size)
    anchors = ANCHORS.double()[found.anchor] / stride
    assert len(found.label) > count
    part = torch.cat(((found.box[:, :2] + 0.5) / 2, (found.box[:, 2:] / anchors).sqrt() / 2), dim=1)
    assert ((part > 0) & (part < 1)).all()
    cells = torch.stack((found.column, found.row), dim=1).double()
    decoded = decode_cells(torch.logit(part), cells, anchors, 1.0) * stride
    torch.testing.assert_close(decoded, boxes[found.label])


def test_no_object_matches_nothing_and_the_edge_stays_inside():
    none = torch.zeros(0, dtype=torch.long)
    assert len(match(none, none, torch.zeros(0, 4), ANCHORS, 8, (4, 4)).label) == 0
    edge = torch.tensor([[32.0, 32.0, 12.0, 12.0], [0.0, 0.0, 12.0, 12.0]])
    found = match(none.new_zeros(2), none.new_zeros(2), edge, ANCHORS, 8, (4, 4))
    assert found.row.min() >= 0 and found.row.max() <= 3 and found.column.min() >= 0 and found.column.max() <= 3
