import cv2
import numpy as np
import pytest

from pathzoo.wsi.slide import Slide
from pathzoo.wsi.tissue import otsu_threshold, pen_ink, tissue_mask, without_small

#: Colours of ink on glass, of a full stroke and of a worn pen.
PENS = {
    "blue": [(30, 60, 180), (70, 100, 190)],
    "green": [(20, 140, 80), (0, 110, 110), (90, 170, 120)],
    "red": [(205, 35, 45), (220, 80, 80)],
    "black": [(20, 20, 24), (45, 45, 55)],
}


def test_otsu_against_opencv_and_a_loop():
    rng = np.random.default_rng(0)
    for _ in range(5):
        grey = np.concatenate([rng.normal(40, 12, 4000), rng.normal(rng.uniform(90, 200), 20, 2500)])
        grey = grey.clip(0, 255).astype(np.uint8).reshape(100, 65)
        expected = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[0]
        assert otsu_threshold(grey) == expected
        within = [
            sum(part.var() * part.size for part in (grey[grey <= t], grey[grey > t]) if part.size) for t in range(255)
        ]
        assert within[otsu_threshold(grey)] == pytest.approx(min(within))
    assert otsu_threshold(np.full((9, 9), 7, np.uint8)) == 0


def test_finds_the_disc_and_fills_small_holes_only(tissue_image):
    small = cv2.resize(tissue_image, (250, 200), interpolation=cv2.INTER_AREA)
    y, x = np.mgrid[:200, :250]
    distance = np.hypot(x - 112.5, y - 100)
    ring, disc = (distance < 75) & (distance > 15), distance < 75
    closed, open_ = tissue_mask(small, max_hole=2000), tissue_mask(small, max_hole=100)
    for mask, truth in [(closed, disc), (open_, ring)]:
        assert mask.dtype == bool and mask.shape == (200, 250)
        assert (mask & truth).sum() / (mask | truth).sum() > 0.97


def test_blank_glass_has_no_tissue():
    rng = np.random.default_rng(0)
    assert not tissue_mask(np.full((100, 100, 3), 255, np.uint8)).any()
    assert not tissue_mask(rng.integers(236, 246, (100, 100, 3)).astype(np.uint8)).any()
    assert not tissue_mask(np.zeros((50, 50, 3), np.uint8)).any()  # a black border is no tissue either


def test_a_picture_full_of_tissue_is_all_tissue():
    rng = np.random.default_rng(0)
    image = np.array([[220, 150, 190]]) + rng.integers(-25, 26, (120 * 90, 1))
    image[::3] = (120, 60, 150)  # nuclei: Otsu alone would take only them
    assert tissue_mask(image.reshape(120, 90, 3).astype(np.uint8)).all()


def test_dust_is_dropped():
    mask = np.zeros((40, 40), bool)
    mask[3:5, 3:5] = True
    mask[20:30, 20:30] = True
    assert without_small(mask, 5).sum() == 100
    assert without_small(mask, 4).sum() == 104
    assert not without_small(np.zeros((5, 5), bool), 1).any()
    assert tissue_mask(np.full((1, 2, 3), 255, np.uint8)).shape == (1, 2)


def draw_pen(image: np.ndarray, color: tuple, points: list, width: int, blur: float = 1.0) -> tuple:
    """Ink over a picture, which takes its part of the light; returns the picture and where the stroke lies."""
    layer = np.full_like(image, 255)
    cv2.polylines(layer, [np.array(points, np.int32)], False, color, width, cv2.LINE_AA)
    stroke = (layer != 255).any(axis=2)
    layer = cv2.GaussianBlur(layer, (0, 0), blur)
    return (image.astype(np.float32) * layer / 255).astype(np.uint8), stroke


@pytest.mark.parametrize("pen", PENS)
@pytest.mark.parametrize(("blur", "widths"), [(0.8, (5, 9, 15)), (3.0, (11, 15))])
def test_pen_marks_on_glass_are_no_tissue(tissue_image, pen, blur, widths):
    """Lines of 5 px and more in focus, of 11 out of it; the disc is drawn, and known."""
    small = cv2.resize(tissue_image, (500, 400), interpolation=cv2.INTER_AREA)
    y, x = np.mgrid[:400, :500]
    distance = np.hypot(x - 225, y - 200)
    truth = (distance < 150) & (distance > 30)
    for color in PENS[pen]:
        for width in widths:
            marked, stroke = draw_pen(small, color, [(10, 20), (250, 12), (480, 30)], width, blur)
            marked, other = draw_pen(marked, color, [(470, 60), (440, 380)], width, blur)
            mask = tissue_mask(marked, max_hole=500)
            assert (mask & truth).sum() / (mask | truth).sum() > 0.97, (color, width)
            assert not mask[stroke | other].any(), (color, width)


@pytest.mark.parametrize("pen", ["blue", "green", "black"])
def test_ink_over_tissue_is_left_out_and_the_tissue_beside_it_stays(tissue_image, pen):
    small = cv2.resize(tissue_image, (500, 400), interpolation=cv2.INTER_AREA)
    clean = tissue_mask(small)
    marked, stroke = draw_pen(small, PENS[pen][0], [(20, 120), (480, 110)], 11)
    mask = tissue_mask(marked)
    assert mask[stroke & clean].mean() < 0.3  # its edges keep the tissue's colour
    far = ~cv2.dilate(stroke.astype(np.uint8), np.ones((15, 15))).astype(bool)
    np.testing.assert_array_equal(mask[far], clean[far])


def test_red_ink_over_tissue_stays_tissue(tissue_image):
    """Blood and strong eosin look like it: tissue is not given up for it."""
    small = cv2.resize(tissue_image, (500, 400), interpolation=cv2.INTER_AREA)
    marked, stroke = draw_pen(small, PENS["red"][0], [(100, 120), (350, 110)], 11)
    inside = stroke & tissue_mask(small)
    assert tissue_mask(marked)[inside].mean() > 0.9


def test_a_slide_with_nothing_but_ink_has_no_tissue():
    glass = np.random.default_rng(0).integers(238, 246, (300, 300, 3)).astype(np.uint8)
    for colors in PENS.values():
        marked, _ = draw_pen(glass, colors[0], [(40, 40), (260, 60), (250, 250), (50, 240), (40, 40)], 9)
        assert not tissue_mask(marked).any()
    assert not tissue_mask(np.full((60, 60, 3), (30, 60, 180), np.uint8)).any()  # ink all over


#: Absorption over (R, G, B): Ruifrok and Johnston 2001 (haematoxylin, eosin, DAB), as common software gives them (PAS,
#: and a second pair for H&E).
STAINS = {
    "H&E": ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11)),
    "H&E, redder": ((0.60, 0.71, 0.37), (0.17, 0.86, 0.48)),
    "IHC": ((0.65, 0.70, 0.29), (0.27, 0.57, 0.78)),
    "PAS": ((0.65, 0.70, 0.29), (0.175, 0.972, 0.155)),
}


@pytest.mark.parametrize("stain", STAINS)
@pytest.mark.parametrize("white", [255, 243, 225])
def test_no_mixture_of_stains_is_ink(stain, white):
    """Every mixture, in large patches of one colour each, up to where nothing is left but black."""
    first, second = (np.array(vector) for vector in STAINS[stain])
    amounts = np.linspace(0, 1.2, 41)
    density = amounts[:, None, None] * first + amounts[None, :, None] * second
    colors = np.rint(white * 10**-density).astype(np.uint8)
    colors = colors[(colors.max(axis=2) > 60)]
    patches = np.repeat(np.repeat(colors.reshape(1, -1, 3), 8, axis=0), 8, axis=1)
    assert not pen_ink(patches).any()


@pytest.mark.parametrize("sigma", [2, 5, 8])
def test_a_slide_out_of_focus(tissue_image, sigma):
    small = cv2.resize(tissue_image, (500, 400), interpolation=cv2.INTER_AREA)
    y, x = np.mgrid[:400, :500]
    disc = np.hypot(x - 225, y - 200) < 150
    mask = tissue_mask(cv2.GaussianBlur(small, (0, 0), sigma), max_hole=5000)
    assert (mask & disc).sum() == disc.sum()  # nothing is lost
    assert (mask & ~disc).sum() / disc.sum() < 0.02 * sigma + 0.01  # the edge widens by what the blur spreads


@pytest.mark.real
def test_real_tissue_is_never_ink(real_data):
    """H&E and PAS at 4 and 8 times coarser pixels: a thumbnail's pixels are mixtures of what lies in them."""
    from PIL import Image

    folders = ("breakhis", "breast_segmentation", "breast_lesions_bracs", "glomeruli", "histology_unlabelled")
    files = [path for name in folders for path in sorted((real_data / name).rglob("*"))]
    seen = 0
    for path in files:
        if path.suffix not in (".png", ".jpg", ".tiff") or "mask" in path.as_posix():
            continue
        with Image.open(path) as picture:
            if picture.mode != "RGB":
                continue
            image = np.array(picture)
        seen += 1
        for factor in (4, 8):
            size = (max(1, image.shape[1] // factor), max(1, image.shape[0] // factor))
            small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            mask = tissue_mask(small)
            ink = pen_ink(small)
            assert ink.sum() <= 0.01 * max(100, (mask | ink).sum()), (path, factor, ink.sum())
    assert seen > 100


@pytest.mark.real
def test_real_slide(real_data):
    with Slide(real_data / "slides" / "cmu_small_region.svs") as slide:
        thumbnail = slide.thumbnail(371)
    mask = tissue_mask(thumbnail)
    assert 0.3 < mask.mean() < 0.6
    assert mask[200, 140] and not mask[40, 30] and not mask[300, 260]


@pytest.mark.parametrize("glass", [(223, 243, 226), (232, 246, 238), (240, 242, 241)])
def test_greenish_glass_is_glass_and_pale_tissue_on_it_tissue(glass):
    """As scanners without white balance give it: green exceeds red by as much as in pale tissue red exceeds green."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:200, :250]
    disc = np.hypot(x - 125, y - 100) < 70
    light = np.where(disc[..., None], (0.86, 0.75, 0.86), 1.0)  # let through by lightly stained stroma
    picture = light * np.array(glass) + rng.normal(0, 2, (200, 250, 1))
    mask = tissue_mask(picture.clip(0, 255).astype(np.uint8))
    assert (mask & disc).sum() / (mask | disc).sum() > 0.97
    assert not tissue_mask(np.tile(np.array(glass, np.uint8), (60, 60, 1))).any()
