"""Brain masks by other packages."""

from __future__ import annotations

import importlib

import nibabel as nib
import numpy as np
import torch

from mrcore.data.volume import Volume
from mrcore.errors import BadInputError, MissingExtraError
from mrcore.segmentation.brainmask import BrainMask
from mrcore.segmentation.foreground import largest_part


def deepbet_brain_mask(volume: Volume) -> BrainMask:
    """Return the mask of deepbet (Fisch et al., 2023), a network for T1w adult heads; its weights are in its wheel.

    It runs on the CPU. `similarity` is NaN: the network does not say how sure it is; an implausible volume (outside 0.6
    to 2.2 litres) makes the mask unreliable.

    Raises:
        BadInputError: a complex image, or no brain found.
        MissingExtraError: deepbet is not installed (`pip install "mrkit[deepbet]"`).
    """
    if volume.data.is_complex():
        raise BadInputError("deepbet needs a magnitude image, got complex data; take its magnitude first")
    try:
        deepbet = importlib.import_module("deepbet")
    except ImportError as error:
        raise MissingExtraError('the network deepbet is not installed: pip install "mrkit[deepbet]"') from error
    image = nib.Nifti1Image(volume.data.cpu().numpy().astype(np.float32), volume.grid.affine)
    _, found, _ = deepbet.BrainExtraction(no_gpu=True).run(image)
    mask = largest_part(np.asarray(found.dataobj) > 0)
    if mask.shape != volume.grid.shape or not mask.any():
        raise BadInputError("deepbet found no brain in this image; give its mask with --mask")
    litres = float(mask.sum()) * float(np.prod(volume.grid.spacing_mm)) / 1e6
    reliable = 0.6 <= litres <= 2.2
    message = f"deepbet found a brain of {litres:.2f} litres" + ("" if reliable else ", which is not plausible")
    return BrainMask(torch.from_numpy(mask), "deepbet", float("nan"), reliable, message)
