"""The brain of an image."""

from __future__ import annotations

from torch import Tensor

from mrcore.data.volume import Volume
from mrcore.segmentation.brainmask import is_skull_stripped, require_reliable, stripped_mask, template_brain_mask
from mrkit.anatomy.template import load_template


def find_brain(volume: Volume) -> tuple[Tensor, tuple[str, ...]]:
    """Return a brain mask (bool, X, Y, Z) and notes on how it was found.

    Stripped images are taken as they are, in heads the template is laid over the brain.

    Raises:
        BadInputError: a head on which the template does not fit.
        MissingExtraError: a head, without nilearn's template.
    """
    if is_skull_stripped(volume):
        return stripped_mask(volume), ("the image is skull-stripped: its own outline is the brain mask",)
    template = load_template()
    found = require_reliable(template_brain_mask(volume, template.t1, Volume(template.mask.float(), template.t1.grid)))
    return found.mask, (*found.cautions, f"brain mask by {found.method}: {found.message}")
