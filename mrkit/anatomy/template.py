"""The ICBM-152 2009a template that nilearn carries: a brain for the demo, and for finding brains. No download."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from mrcore.data.brief import Brief
from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.errors import MissingExtraError
from mrcore.io.volumes import load_volume
from mrcore.segmentation.brainmask import stripped_mask

_FILE = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"


@dataclass(frozen=True, eq=False, repr=False)
class Template(Brief):
    """A skull-stripped T1w group average at 1 mm in MNI space, its brain mask (bool, X, Y, Z) and its tissues."""

    t1: Volume
    mask: Tensor
    tissues: TissueMap


def load_template() -> Template:
    """Load the template; CSF is what of the brain is neither grey nor white matter.

    Raises:
        MissingExtraError: nilearn is not installed, or no longer carries the files.
    """
    t1 = load_volume(template_file("t1"))
    mask = stripped_mask(t1)
    grey, white = (load_volume(template_file(name)).data / 255 * mask for name in ("gm", "wm"))
    prob = torch.stack([(mask.float() - grey - white).clamp(0, 1), grey, white])
    prob = torch.where(mask, prob / prob.sum(0).clamp_min(1e-6), 0.0)
    return Template(t1, mask, TissueMap(prob, TISSUES, t1.grid))


def template_file(name: str = "t1") -> Path:
    """Return the file of the template's image (t1) or of a tissue (gm, wm), without importing nilearn (seconds).

    Raises:
        MissingExtraError: nilearn is not installed, or no longer carries the files.
    """
    found = find_spec("nilearn")
    places = list(found.submodule_search_locations or ()) if found else []
    for place in places:
        file = Path(place) / "datasets" / "data" / _FILE.format(name)
        if file.is_file():
            return file
    raise MissingExtraError('the template brain comes with nilearn; install it with: pip install "mrkit[demo]"')
