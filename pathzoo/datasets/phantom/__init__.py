"""Seeded look-alikes of real data, in the real sets' own on-disk layouts; numpy, SciPy, OpenCV and tifffile only.

They stand in for data in tests and in the first command of the README: learnable, not trivial, and without a
shortcut, so a model at chance scores at chance. Nothing measured on them says anything about patients.

    stain, texture, nuclei, canvas    how a section looks (any organ)
    epithelium, tissue                breast, from benign to malignant
    kidney                            another organ, without labels
    glomeruli                         what is to be found in it, and what looks alike
    layout, lesions                   several lesions in one region, with labels
    breakhis, regions, slide, tiles   what is written to disk: a cohort of images, of labelled regions or of tiles (of
                                      noise too), a whole slide with annotations
    biopsy                            slides of kidney biopsies with outlined glomeruli
    ct_canvas, ct_body, ct_kidneys    an abdomen in Hounsfield units
    ct                                patients with and without a tumour of the kidney, as NIfTI (which takes nibabel)
"""

from pathzoo.datasets.phantom.biopsy import draw_biopsy, write_biopsies
from pathzoo.datasets.phantom.breakhis import write_breakhis
from pathzoo.datasets.phantom.ct import draw_volume, write_ct
from pathzoo.datasets.phantom.lesions import draw_region
from pathzoo.datasets.phantom.regions import write_regions
from pathzoo.datasets.phantom.slide import draw_slide, write_slide
from pathzoo.datasets.phantom.tiles import write_tiles
from pathzoo.datasets.phantom.tissue import DIFFICULTY, draw_tissue

__all__ = [
    "DIFFICULTY",
    "draw_biopsy",
    "draw_region",
    "draw_slide",
    "draw_tissue",
    "draw_volume",
    "write_biopsies",
    "write_breakhis",
    "write_ct",
    "write_regions",
    "write_slide",
    "write_tiles",
]
