"""YOLOv5's loss against plain loops over objects and cells, in double precision."""

import math

import pytest
import torch

from pathzoo.models.dense_heads.yolov5_loss import Objects, touched, yolov5_loss

STRIDES, BALANCE = (8, 16, 32), (4.0, 1.0, 0.4)
ANCHORS = [[[10, 13], [16, 30], [33, 23]], [[30, 61], [62, 45], [59, 119]], [[116, 90], [156, 198], [373, 326]]]
HEIGHT, WIDTH = 96, 128


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def cross_entropy(logit, target):
    p = sigmoid(logit)
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


def ciou(a, b):
    """Of boxes (centre x, centre y, width, height), by Zheng et al.'s definition."""
    (x0, y0, x1, y1), (u0, v0, u1, v1) = (
        (x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in (a.tolist(), b)
    )
    inside = max(min(x1, u1) - max(x0, u0), 0) * max(min(y1, v1) - max(y0, v0), 0)
    iou = inside / ((x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - inside)
    diagonal = (max(x1, u1) - min(x0, u0)) ** 2 + (max(y1, v1) - min(y0, v0)) ** 2
    apart = ((x0 + x1 - u0 - u1) ** 2 + (y0 + y1 - v0 - v1) ** 2) / 4
    shape = 4 / math.pi**2 * (math.atan((u1 - u0) / (v1 - v0)) - math.atan((x1 - x0) / (y1 - y0))) ** 2
    return iou - apart / diagonal - (shape * shape / (1 - iou + shape) if shape else 0)


def cells_of(box, anchor, stride, rows, columns):
    """(row, column) of the cells that answer with this anchor."""
    x, y, w, h = box
    if max(w / anchor[0], anchor[0] / w, h / anchor[1], anchor[1] / h) >= 4:
        return []
    column, row = int(x // stride), int(y // stride)
    beside = column - 1 if x / stride - column < 0.5 else column + 1
    above = row - 1 if y / stride - row < 0.5 else row + 1
    cells = [(row, column)]
    cells += [(row, beside)] if 0 <= beside < columns else []
    cells += [(above, column)] if 0 <= above < rows else []
    return cells


def predicted(raw, row, column, anchor, stride):
    x, y, w, h = (sigmoid(value) for value in raw[:4].tolist())
    box = [
        (2 * x - 0.5 + column) * stride,
        (2 * y - 0.5 + row) * stride,
        4 * w * w * anchor[0],
        4 * h * h * anchor[1],
    ]
    return torch.tensor(box, dtype=torch.float64)


def hidden(ignored, image, row, column, stride):
    for number, (x, y, w, h) in zip(ignored.image.tolist(), ignored.box.tolist(), strict=True):
        across = x - w / 2 < (column + 1) * stride and column * stride < x + w / 2
        down = y - h / 2 < (row + 1) * stride and row * stride < y + h / 2
        if number == image and across and down:
            return True
    return False


def by_loops(maps, objects, ignored, smoothing):
    """(box, objectness, class) as the docstrings say, cell by cell."""
    totals = [0.0, 0.0, 0.0]
    for raw, anchors, stride, weight in zip(maps, ANCHORS, STRIDES, BALANCE, strict=True):
        images, _, rows, columns, outputs = raw.shape
        target, misses, classes = {}, [], []
        for image, label, box in zip(*(values.tolist() for values in objects), strict=True):
            for number, anchor in enumerate(anchors):
                for row, column in cells_of(box, anchor, stride, rows, columns):
                    cell = raw[image, number, row, column]
                    overlap = ciou(predicted(cell, row, column, anchor, stride), box)
                    misses.append(1 - overlap)
                    place = (image, number, row, column)
                    target[place] = max(target.get(place, 0.0), overlap, 0.0)
                    aims = [1 - smoothing / 2 if k == label else smoothing / 2 for k in range(outputs - 5)]
                    classes += [cross_entropy(v, aim) for v, aim in zip(cell[5:].tolist(), aims, strict=True)]
        counted = []
        for image in range(images):
            for number in range(3):
                for row in range(rows):
                    for column in range(columns):
                        place = (image, number, row, column)
                        if place in target or not hidden(ignored, image, row, column, stride):
                            counted.append(cross_entropy(float(raw[(*place, 4)]), target.get(place, 0.0)))
        totals[0] += sum(misses) / max(len(misses), 1)
        totals[1] += weight * sum(counted) / max(len(counted), 1)
        totals[2] += sum(classes) / max(len(classes), 1) if outputs > 6 else 0.0
    return totals


def drawn(count, seed, images=2):
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor([WIDTH, HEIGHT], dtype=torch.float64)
    centres = torch.rand(count, 2, generator=generator, dtype=torch.float64) * size
    sides = torch.exp(torch.rand(count, 2, generator=generator, dtype=torch.float64) * 3 + 2)
    numbers = torch.randint(0, images, (count,), generator=generator)
    labels = torch.randint(0, 3, (count,), generator=generator)
    return Objects(numbers, labels, torch.cat((centres, sides), dim=1))


def drawn_maps(seed, classes=3, images=2):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(images, 3, HEIGHT // s, WIDTH // s, 5 + classes, generator=generator, dtype=torch.float64)
        for s in STRIDES
    ]


@pytest.mark.parametrize(("seed", "smoothing"), [(0, 0.0), (1, 0.1), (2, 0.0)])
def test_the_loss_is_that_of_the_loops(seed, smoothing):
    maps, objects, ignored = drawn_maps(seed), drawn(40, seed), drawn(3, seed + 50)
    found = yolov5_loss(maps, objects, ignored, torch.tensor(ANCHORS).double(), STRIDES, BALANCE, smoothing)
    expected = by_loops(maps, objects, ignored, smoothing)
    assert expected[1] != by_loops(maps, objects, drawn(0, 0), smoothing)[1], "the ignored boxes hide something"
    torch.testing.assert_close(torch.stack(found), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_one_class_is_not_learnt():
    maps, objects = drawn_maps(3, classes=1), drawn(20, 3)
    objects = objects._replace(label=torch.zeros_like(objects.label))
    found = yolov5_loss(maps, objects, drawn(0, 0), torch.tensor(ANCHORS).double(), STRIDES, BALANCE)
    expected = by_loops(maps, objects, drawn(0, 0), 0.0)
    assert found.classes == 0
    torch.testing.assert_close(torch.stack(found), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_without_objects_every_cell_is_background_and_has_a_gradient(dtype):
    maps = [raw.to(dtype).requires_grad_() for raw in drawn_maps(4)]
    anchors = torch.tensor(ANCHORS).float()
    none = drawn(0, 0)._replace(box=torch.zeros(0, 4))
    found = yolov5_loss(maps, none, none, anchors, STRIDES, BALANCE)
    assert found.objectness.dtype == torch.float32
    assert found.box == 0 and found.classes == 0
    sum(found).backward()
    assert all((raw.grad[..., 4] > 0).all() for raw in maps)
    assert all((raw.grad[..., :4] == 0).all() for raw in maps)


def test_numbers_far_out_give_no_nan():
    maps = [(raw * 200).float().requires_grad_() for raw in drawn_maps(5)]
    objects = drawn(60, 5)
    objects = objects._replace(box=objects.box.float())
    none = drawn(0, 0)._replace(box=torch.zeros(0, 4))
    found = yolov5_loss(maps, objects, none, torch.tensor(ANCHORS).float(), STRIDES, BALANCE)
    sum(found).backward()
    assert all(torch.isfinite(value) for value in found)
    assert all(torch.isfinite(raw.grad).all() for raw in maps)


def test_a_box_hides_the_cells_it_touches_in_its_own_image():
    box = torch.tensor([[20.0, 12.0, 8.0, 8.0]])  # 16..24 x 8..16: its edges only touch the neighbours' edges
    found = touched(Objects(torch.tensor([1]), torch.tensor([0]), box), 2, 8, (3, 5))
    assert found.nonzero().tolist() == [[1, 1, 2]]
    wider = Objects(torch.tensor([0]), torch.tensor([0]), box + torch.tensor([0.0, 0.0, 0.2, 0.0]))
    assert touched(wider, 2, 8, (3, 5)).nonzero().tolist() == [[0, 1, 1], [0, 1, 2], [0, 1, 3]]


def test_all_hidden_is_a_loss_of_nothing():
    whole = Objects(torch.tensor([0, 1]), torch.tensor([0, 0]), torch.tensor([[64.0, 48.0, 200.0, 200.0]] * 2).double())
    found = yolov5_loss(drawn_maps(6), drawn(0, 0), whole, torch.tensor(ANCHORS).double(), STRIDES, BALANCE)
    assert [float(value) for value in found] == [0.0, 0.0, 0.0]
