"""Networks that draw pictures. Imported through `pathzoo.models`, which readies mmagic's Pix2Pix parts."""

from mmagic.models.archs.patch_disc import PatchDiscriminator
from mmagic.models.editors.pix2pix import UnetGenerator

from pathzoo.models.translators.label_to_image import LabelToImage
from pathzoo.models.translators.pairs import PairPreprocessor

__all__ = ["LabelToImage", "PairPreprocessor", "PatchDiscriminator", "UnetGenerator"]
