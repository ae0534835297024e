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
