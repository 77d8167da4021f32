"""Tissues of two images compared: overlap, volumes, surfaces, contrast."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from mrcore.data.grid import Triple
from mrcore.data.volume import TissueMap, require_same_grid
from mrcore.errors import BadInputError
from mrcore.metrics.similarity import bounding_box

CORE_PROBABILITY = 0.9


@dataclass(frozen=True)
class TissueContrast:
    """Contrast of white against grey matter; `white` and `grey` are mean intensities W and G of the tissue cores.

    Attributes:
        difference: W - G, in units of the image.
        michelson: (W - G) / (W + G).
        weber: (W - G) / G.
        cnr: (W - G) / noise sd; None where no noise sd was given.
    """

    white: float
    grey: float
    difference: float
    michelson: float
    weber: float
    cnr: float | None


def dice(reference: Tensor, image: Tensor) -> float:
    """Return 2 |A and B| / (|A| + |B|) of two boolean masks of one shape; nan where both are empty."""
    _check_masks(reference, image)
    total = int(reference.sum()) + int(image.sum())
    return 2 * int((reference & image).sum()) / total if total else math.nan


def dice_by_tissue(reference: TissueMap, image: TissueMap) -> dict[str, float]:
    """Return the Dice score of each tissue, from the most probable tissue of every voxel in either map's mask."""
    _check_maps(reference, image)
    ours, theirs = image.prob.argmax(0), reference.prob.argmax(0)
    return {
        name: dice((theirs == i) & reference.mask, (ours == i) & image.mask) for i, name in enumerate(reference.names)
    }


def volume_ml(tissues: TissueMap, name: str) -> float:
    """Return the volume of a tissue: the sum of its probabilities times the volume of a voxel."""
    voxel_mm3 = abs(float(np.linalg.det(tissues.grid.affine[:3, :3])))
    return float(tissues.of(name).double().sum()) * voxel_mm3 / 1000


def volume_error_ml(reference: TissueMap, image: TissueMap, name: str) -> float:
    """Return the volume of a tissue in `image` minus that in `reference`; they may be on different grids."""
    return volume_ml(image, name) - volume_ml(reference, name)


def volume_error_relative(reference: TissueMap, image: TissueMap, name: str) -> float:
    """Return `volume_error_ml` divided by the reference's volume; nan where the reference has none."""
    total = volume_ml(reference, name)
    return volume_error_ml(reference, image, name) / total if total > 0 else math.nan


def hd95(reference: Tensor, image: Tensor, spacing_mm: Triple) -> float:
    """Return the 95 % Hausdorff distance in mm between the surfaces of two boolean masks.

    Surface: voxels of a mask with a face neighbour outside it. The larger of the two directed 95th percentiles of the
    distances from surface voxel to nearest surface voxel. nan where a mask is empty.
    """
    _check_masks(reference, image)
    if not bool(reference.any()) or not bool(image.any()):
        return math.nan
    box = bounding_box(reference | image)
    a, b = (_surface(x[box].cpu().numpy()) for x in (reference, image))
    to_a, to_b = (ndimage.distance_transform_edt(~x, sampling=spacing_mm) for x in (a, b))
    return float(max(np.percentile(to_b[a], 95), np.percentile(to_a[b], 95)))


def wm_gm_contrast(
    image: Tensor, tissues: TissueMap, noise_sd: float | None = None, region: Tensor | None = None
) -> TissueContrast:
    """Measure the contrast of WM against GM over the tissue cores, voxels with a probability above 0.9.

    `tissues` should be the reference's, so that every method is measured in the same voxels. `region` (bool) limits
    them further.

    Raises:
        BadInputError: a core without voxels, another shape, or a noise sd that is not positive.
    """
    if tuple(image.shape) != tissues.grid.shape:
        raise BadInputError(f"the image is {tuple(image.shape)} but its tissue maps are {tissues.grid.shape}")
    if noise_sd is not None and noise_sd <= 0:
        raise BadInputError(f"a contrast-to-noise ratio needs a positive noise sd, got {noise_sd}")
    white, grey = (_core_mean(image, tissues, name, region) for name in ("WM", "GM"))
    gap = white - grey
    return TissueContrast(
        white=white,
        grey=grey,
        difference=gap,
        michelson=gap / (white + grey) if white + grey else math.nan,
        weber=gap / grey if grey else math.nan,
        cnr=None if noise_sd is None else gap / noise_sd,
    )


def _core_mean(image: Tensor, tissues: TissueMap, name: str, region: Tensor | None) -> float:
    core = tissues.of(name) > CORE_PROBABILITY
    if region is not None:
        core = core & region
    if not bool(core.any()):
        raise BadInputError(f"no voxel is {name} with a probability above {CORE_PROBABILITY}; check the tissue maps")
    return float(image[core].double().mean())


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    # Outside of the array counts as outside of the mask.
    return np.asarray(mask & ~ndimage.binary_erosion(mask, border_value=0), bool)


def _check_masks(reference: Tensor, image: Tensor) -> None:
    if reference.shape != image.shape or reference.ndim != 3:
        raise BadInputError(
            f"two masks (X, Y, Z) of one shape are needed, got {tuple(reference.shape)} and {tuple(image.shape)}"
        )


def _check_maps(reference: TissueMap, image: TissueMap) -> None:
    require_same_grid(reference.grid, image.grid, "the two tissue maps")
    if reference.names != image.names:
        raise BadInputError(f"the tissue maps name different tissues: {reference.names} and {image.names}")
