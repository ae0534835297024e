import cv2
import numpy as np
import pytest
from benchmarks.quadratic_merging import merge_quadratic

from pathzoo.wsi.merging import MergeRule, merge_boxes
from pathzoo.wsi.tiling import tile_grid


def frames_of(grid):
    return np.hstack([grid.corners, grid.corners + np.array(grid.extent)])


def seen(objects, frames, rng=None, jitter=0.0, kept=1.0):
    """What a detector finds in each tile: all that is visible there; with `jitter`, not quite."""
    boxes, tile = [], []
    for number, frame in enumerate(frames):
        box = objects.copy()
        if jitter:
            box[:, :4] += rng.normal(0, jitter, (len(box), 4))
            box[:, 4] = rng.random(len(box)).round(1)
        box[:, :2] = np.maximum(box[:, :2], frame[:2])
        box[:, 2:4] = np.minimum(box[:, 2:4], frame[2:])
        visible = (box[:, 2:4] - box[:, :2] > (0.5 if jitter else 0)).all(axis=1)
        if kept < 1:
            visible &= rng.random(len(box)) < kept
        boxes.append(box[visible])
        tile.append(np.full(visible.sum(), number))
    return np.concatenate(boxes), np.concatenate(tile)


def random_grid(rng, overlaps=(0.1, 0.25, 1 / 3, 0.5, 0.7), downsamples=(1.0, 1.3, 2.0)):
    region = tuple(int(v) for v in (*rng.integers(0, 50, 2), *rng.integers(200, 700, 2)))
    size = tuple(int(v) for v in rng.integers(64, 256, 2))
    return tile_grid(region, size, float(rng.choice(downsamples)), float(rng.choice(overlaps)))


def placed(rng, region, size):
    """A box of about `size` that lies anywhere in the region, at times on its border; whole numbers."""
    x, y, width, height = region
    w, h = np.minimum(np.maximum(np.rint(size), 1), (width, height))
    left, top = x + rng.integers(0, width - w + 1), y + rng.integers(0, height - h + 1)
    left, top = rng.choice([left, left, left, x, x + width - w]), rng.choice([top, top, top, y, y + height - h])
    return [left, top, left + w, top + h, 0.9, 0]


@pytest.mark.parametrize("seed", range(60))
def test_an_object_anywhere_is_found_once_with_its_exact_box(seed):
    rng = np.random.default_rng(seed)
    grid = random_grid(rng)
    shared = np.array(grid.extent) - np.array(grid.stride)
    for largest in (shared, shared, 2 * shared, 2 * np.array(grid.extent), np.array(grid.region[2:])):
        box = placed(rng, grid.region, rng.uniform(0, 1, 2) * largest)
        boxes, tile = seen(np.array([box], float), frames_of(grid))
        merged, number = merge_boxes(boxes, tile, frames_of(grid), grid.region, MergeRule(edge=shared.min() / 4))
        assert merged.tolist() == [box] and not number.any()


@pytest.mark.parametrize("seed", range(40))
def test_two_objects_one_pixel_apart_stay_two(seed):
    rng = np.random.default_rng(seed)
    grid = random_grid(rng, downsamples=(1.0,))
    rule = MergeRule(edge=min(2.0, (np.array(grid.extent) - np.array(grid.stride)).min() / 2))
    for _ in range(4):
        one = placed(rng, grid.region, rng.uniform(4, 200, 2))
        other, axis = list(one), rng.integers(2)
        if rng.random() < 0.5:  # else they face each other wholly, the case that a seam could join
            other = placed(rng, grid.region, rng.uniform(4, 200, 2))
        size = other[axis + 2] - other[axis]
        other[axis], other[axis + 2], other[4] = one[axis + 2] + 1, one[axis + 2] + 1 + size, 0.8
        if other[axis + 2] > grid.region[axis] + grid.region[axis + 2]:
            continue
        boxes, tile = seen(np.array([one, other], float), frames_of(grid))
        merged, _ = merge_boxes(boxes, tile, frames_of(grid), grid.region, rule)
        assert merged.tolist() == [one, other]


def test_tiles_that_only_touch_join_what_their_seam_cuts_and_nothing_else():
    grid = tile_grid((0, 0, 300, 300), (100, 100), 1.0)
    objects = np.array([[80, 20, 130, 60, 0.9, 0], [40, 150, 260, 250, 0.8, 0], [150, 10, 199.5, 50, 0.7, 0]], float)
    objects = np.vstack([objects, [200.5, 10, 250, 50, 0.6, 0]])  # 1 px apart, the seam between them
    boxes, tile = seen(objects, frames_of(grid))
    merged, _ = merge_boxes(boxes, tile, frames_of(grid), grid.region, MergeRule(edge=0.25))
    assert merged.tolist() == objects.tolist()
    merged, _ = merge_boxes(boxes, tile, frames_of(grid), grid.region, MergeRule(edge=2))
    assert merged[:, :4].tolist() == [*objects[:2, :4].tolist(), [150, 10, 250, 50]]  # as the docstring warns


def two_tiles(*found, rule=None):
    """Boxes (tile, x0, y0, x1, y1, score, class) of the tiles 0..100 and 60..160 across, 0..100 down."""
    rows = np.array(found, float)
    tiles = np.array([[0, 0, 100, 100], [60, 0, 160, 100]], float)
    return merge_boxes(rows[:, 1:], rows[:, 0].astype(int), tiles, (0, 0, 160, 100), rule or MergeRule())[0].tolist()


def test_neighbours_that_one_tile_tells_apart_stay_apart():
    # Two overlapping boxes, IoU 0.6, kept by the model in both tiles; the second tile is surer of the other one.
    x, y = [70, 20, 90, 40], [75, 20, 95, 40]
    found = two_tiles((0, *x, 0.9, 0), (0, *y, 0.5, 0), (1, *x, 0.6, 0), (1, *y, 0.8, 0))
    assert found == [[*x, 0.9, 0], [*y, 0.8, 0]]
    # Found by the second tile only: still two.
    assert two_tiles((0, *x, 0.9, 0), (1, *x, 0.6, 0), (1, *y, 0.8, 0)) == [[*x, 0.9, 0], [*y, 0.8, 0]]


def test_a_box_inside_another_is_a_piece_unless_a_tile_found_both():
    large, small = [62, 10, 98, 50], [70, 20, 80, 30]
    assert len(two_tiles((0, *large, 0.9, 0), (0, *small, 0.8, 0), (1, *large, 0.7, 0), (1, *small, 0.95, 0))) == 2
    assert len(two_tiles((0, *large, 0.9, 0), (0, *small, 0.8, 0), (1, *small, 0.95, 0))) == 2
    assert two_tiles((0, *large, 0.5, 0), (1, *small, 0.95, 0)) == [[*large, 0.5, 0]]  # and its score does not count
    assert len(two_tiles((0, *large, 0.9, 0), (1, *small, 0.8, 1))) == 2  # of another class


def test_an_edge_that_cuts_an_object_into_several_pieces_adds_none():
    # Found whole by tile 0; of its horseshoe tile 1 sees the two ends.
    whole, ends = [50, 20, 90, 60], [(60, 20, 88, 30), (60, 48, 90, 60)]
    assert two_tiles((0, *whole, 0.6, 0), *((1, *end, 0.9, 0) for end in ends)) == [[*whole, 0.6, 0]]
    # But where tile 1 has the whole too, what it found beside it is another object.
    assert len(two_tiles((0, *whole, 0.6, 0), (1, 65, 20, 90, 60, 0.6, 0), (1, 60, 20, 80, 30, 0.5, 0))) == 2


def test_a_hull_does_not_take_what_stands_between_its_parts():
    # An L of two parts, larger than the overlap; what lies in its corner is whole in a tile that sees nothing of it.
    tiles = np.array([[x, y, x + 100, y + 100] for y in (0, 60) for x in (0, 60)], float)
    boxes = np.array([[10, 5, 100, 30, 0.9, 0], [60, 5, 150, 100, 0.9, 0], [125, 60, 150, 150, 0.9, 0]])
    boxes = np.vstack([boxes, [20, 70, 40, 90, 0.5, 0]])
    tile, region = np.array([0, 1, 3, 2]), (0, 0, 160, 160)
    merged, number = merge_boxes(boxes, tile, tiles, region)
    assert merged.tolist() == [[10, 5, 150, 150, 0.9, 0], [20, 70, 40, 90, 0.5, 0]] and number.tolist() == [0, 0, 0, 1]
    assert np.array_equal(merge_quadratic(boxes, tile, tiles, region, MergeRule())[0], merged)


def test_tiles_that_touch_beyond_a_third_are_not_joined_over_it():
    # Half overlap: the first and the last tile touch at 100; the one between them tells the two objects apart.
    tiles = np.array([[x, 0, x + 100, 100] for x in (0, 50, 100)], float)
    objects = np.array([[85, 20, 112, 50, 0.9, 0], [90, 22, 140, 58, 0.8, 0]], float)
    found = [(0, 85, 20, 100, 50), (0, 90, 22, 100, 58), (1, *objects[0, :4]), (1, *objects[1, :4])]
    found += [(2, 100, 22, 140, 58)]  # and nothing of the first, whose end is too thin for the detector
    del found[1]
    rows = np.array(found, float)
    boxes = np.column_stack([rows[:, 1:], np.select([rows[:, 2] == 20], [0.9], 0.8), np.zeros(len(rows))])
    merged, _ = merge_boxes(boxes, rows[:, 0].astype(int), tiles, (0, 0, 200, 100))
    assert merged.tolist() == objects.tolist()


@pytest.mark.parametrize("overlap", [0.25, 1 / 3, 0.5, 0.7])
@pytest.mark.parametrize("seed", range(6))
def test_of_shapes_of_every_kind_those_whole_in_a_tile_are_found_once(seed, overlap):
    """Connected parts of a mask, found anew in each tile: bent, nested and touching boxes, some larger than tiles."""
    rng = np.random.default_rng(seed)
    field = cv2.GaussianBlur(rng.normal(size=(500, 600)), (0, 0), 6)
    mask = (field > np.quantile(field, 0.6)).astype(np.uint8)
    grid = tile_grid((0, 0, 600, 500), (128, 112), 1.0, overlap)
    frames, boxes, tile, truth = frames_of(grid), [], [], components(mask)
    for number, (x, y) in enumerate(grid.corners.tolist()):
        found = np.add(components(np.ascontiguousarray(mask[y : y + 112, x : x + 128])), [x, y, x, y])
        boxes.append(np.column_stack([found, np.full(len(found), 0.5), np.zeros(len(found))]))
        tile.append(np.full(len(found), number))
    merged, _ = merge_boxes(np.concatenate(boxes), np.concatenate(tile), frames, grid.region)
    inside = (truth[:, None, :2] >= frames[:, :2]) & (truth[:, None, 2:] <= frames[:, 2:])
    whole = inside.all(axis=2).any(axis=1)
    assert 10 < whole.sum() < len(truth)
    for box in truth[whole].tolist():
        assert (merged[:, :4] == box).all(axis=1).sum() == 1
    # Of the few others no more than some arms come out beside them.
    assert len(merged) <= len(truth) + 2 * (~whole).sum()


def components(mask):
    x, y, width, height = cv2.connectedComponentsWithStats(mask, connectivity=8)[2][1:, :4].T
    return np.stack([x, y, x + width, y + height], axis=1)


def test_a_whole_box_wins_over_a_surer_fragment_and_has_the_highest_score():
    # 50..90 is whole in tile 0; tile 1 sees 60..90 of it, and is surer.
    assert two_tiles((0, 50, 20, 90, 60, 0.6, 0), (1, 60, 20, 90, 60, 0.9, 0)) == [[50, 20, 90, 60, 0.9, 0]]


def test_a_hull_does_not_swallow_neighbours():
    # Two objects side by side along the seam, each larger than the overlap, their boxes overlapping in y.
    a, b = [30, 10, 140, 50], [20, 40, 150, 90]
    parts = [(0, *a[:2], 100, a[3], 0.9, 0), (1, 60, a[1], *a[2:], 0.8, 0)]
    parts += [(0, *b[:2], 100, b[3], 0.7, 0), (1, 60, b[1], *b[2:], 0.6, 0)]
    assert two_tiles(*parts) == [[*a, 0.9, 0], [*b, 0.7, 0]]
    # Their extents alone would agree well enough; each part joins the one that agrees best.
    a, b = [30, 10, 140, 50], [20, 12, 150, 54]
    parts = [(0, *a[:2], 100, a[3], 0.9, 0), (1, 60, b[1], *b[2:], 0.6, 0)]
    parts += [(0, *b[:2], 100, b[3], 0.7, 0), (1, 60, a[1], *a[2:], 0.8, 0)]
    assert two_tiles(*parts) == [[*a, 0.9, 0], [*b, 0.7, 0]]


def test_the_cap_of_a_disc_belongs_to_it():
    # A disc cut off centre: the cap beyond the seam shows a shorter extent along it.
    tiles = np.array([[0, 0, 100, 100], [100, 0, 200, 100]], float)
    boxes = np.array([[20, 20, 100, 80, 0.9, 0], [100, 38, 106, 62, 0.8, 0]])
    merged, number = merge_boxes(boxes, np.array([0, 1]), tiles, (0, 0, 200, 100))
    assert merged.tolist() == [[20, 20, 106, 80, 0.9, 0]] and number.tolist() == [0, 0]


@pytest.mark.parametrize("seed", range(40))
def test_same_as_the_quadratic_definition(seed):
    rng = np.random.default_rng(seed)
    grid = random_grid(rng, overlaps=(0, 0.1, 0.25, 0.5, 0.7))
    n = int(rng.integers(1, 80))
    objects = np.array([placed(rng, grid.region, rng.uniform(4, rng.choice([30, 100, 400]), 2)) for _ in range(n)])
    objects[:, 4:] = np.column_stack([rng.random(n).round(1), rng.integers(0, 2, n)])
    boxes, tile = seen(objects, frames_of(grid), rng, rng.choice([0, 1, 4]), rng.choice([1, 0.8]))
    chosen = rng.permutation(len(boxes))[:500]
    rule = MergeRule(edge=float(rng.choice([0, 0.25, 2, 10])))
    expected, which = merge_quadratic(boxes[chosen], tile[chosen], frames_of(grid), grid.region, rule)
    merged, number = merge_boxes(boxes[chosen], tile[chosen], frames_of(grid), grid.region, rule)
    assert np.array_equal(merged, expected) and np.array_equal(number, which)


def test_same_as_the_quadratic_definition_with_thousands():
    rng = np.random.default_rng(7)
    grid = tile_grid((0, 0, 2000, 1500), (256, 256), 1.0, 0.25)
    middle = rng.uniform((0, 0), (2000, 1500), (1500, 2))
    half = rng.uniform(5, 40, (1500, 2))
    objects = np.column_stack([middle - half, middle + half, rng.random(1500), rng.integers(0, 3, 1500)])
    boxes, tile = seen(objects, frames_of(grid), rng, 1.0, 0.95)
    assert len(boxes) > 2500
    expected, which = merge_quadratic(boxes, tile, frames_of(grid), grid.region, MergeRule())
    merged, number = merge_boxes(boxes, tile, frames_of(grid), grid.region)
    assert np.array_equal(merged, expected) and np.array_equal(number, which)
    inside = (boxes[:, :4] - frames_of(grid)[tile]) * [1, 1, -1, -1]
    whole = (inside > 2).all(axis=1)
    for k in range(len(merged)):  # as promised: at most one whole box of each tile
        assert len(set(tile[whole & (number == k)])) == (whole & (number == k)).sum()


def test_order_of_the_boxes_does_not_matter():
    rng = np.random.default_rng(1)
    grid = random_grid(rng)
    objects = np.array([placed(rng, grid.region, rng.uniform(4, 60, 2)) for _ in range(60)])
    boxes, tile = seen(objects, frames_of(grid), rng, 1.0)
    boxes[:, 4] = rng.random(len(boxes))
    merged = merge_boxes(boxes, tile, frames_of(grid), grid.region)[0]
    mixed = rng.permutation(len(boxes))
    assert np.array_equal(merged, merge_boxes(boxes[mixed], tile[mixed], frames_of(grid), grid.region)[0])


def test_nothing_and_wrong_rules():
    merged, number = merge_boxes(np.zeros((0, 6)), np.zeros(0, int), np.zeros((0, 4)), (0, 0, 9, 9))
    assert merged.shape == (0, 6) and number.shape == (0,)
    for wrong in ({"iou": 0}, {"ios": 1.1}, {"seam": float("nan")}, {"edge": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            MergeRule(**wrong)
