"""Tissue segmentation of a brain: CSF, grey and white matter as partial volumes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mrcore.data.brief import Brief
from mrcore.data.volume import TISSUES, TissueMap, Volume, require_same_grid
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.segmentation.hmrf import HmrfFit, fit

T1W_ORDER = ("CSF", "GM", "WM")
"""Tissues from dark to bright in a T1-weighted image."""
T2W_ORDER = ("WM", "GM", "CSF")
"""Tissues from dark to bright in a T2-weighted image."""
FLAIR_ORDER = ("CSF", "WM", "GM")
"""Tissues from dark to bright in a T2-weighted image with nulled fluid."""

TYPICAL_SHARE = {"CSF": 0.18, "GM": 0.47, "WM": 0.35}
"""Shares of an adult's brain mask; a prior where the histogram does not tell the classes apart."""

_DOUBT = 0.02
"""Added to every probability of a prior: no tissue is impossible anywhere."""


@dataclass(frozen=True)
class HmrfSettings:
    """Settings of `segment`.

    `tissue_order` names the tissues from dark to bright. `beta` is the strength of the Potts field per neighbour at
    the smallest voxel spacing. `bias_order` is the degree of the log-bias polynomial (0: none), `bias_stiffness` the
    weight that holds it flat, relative to that of the data. `weight_smoothing` pulls the class shares towards the
    typical ones: 0 estimates them freely, large values fix them. `sd_pooling` draws the sd of the classes together: 0
    leaves each its own, 1 makes them equal. `mixture_weight` is the prior share of voxels that hold two tissues.
    `tolerance` is the change of the classes, relative to their span, at which the fit ends.
    """

    tissue_order: tuple[str, str, str] = T1W_ORDER
    beta: float = 0.25
    bias_order: int = 3
    bias_stiffness: float = 0.4
    weight_smoothing: float = 1.0
    sd_pooling: float = 0.25
    mixture_weight: float = 0.35
    max_iter: int = 30
    tolerance: float = 5e-3

    def __post_init__(self) -> None:
        if sorted(self.tissue_order) != sorted(TISSUES):
            raise BadInputError(
                f"tissue_order must name {', '.join(TISSUES)} from dark to bright, got {self.tissue_order}"
            )
        if self.beta < 0 or self.bias_order < 0 or self.weight_smoothing < 0 or self.max_iter < 1:
            raise BadInputError("beta, bias_order and weight_smoothing must not be negative, max_iter at least 1")
        if not (0 <= self.mixture_weight < 1 and 0 <= self.sd_pooling <= 1):
            raise BadInputError("mixture_weight and sd_pooling are shares between 0 and 1 (mixture_weight below 1)")

    @property
    def believed(self) -> tuple[float, float]:
        """Range of intensities, over the median, from which the classes learn.

        Far brighter than the median are vessels and fat; far darker, where fluid is bright, are rim, vessels and bone.
        """
        return (0.4, 6.0) if self.tissue_order[-1] == "CSF" else (0.0, 2.5)

    @property
    def weights(self) -> tuple[float, ...]:
        """Typical shares of the classes, from dark to bright."""
        return tuple(TYPICAL_SHARE[name] for name in self.tissue_order)


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation(Brief):
    """Tissues of a brain and how they were found.

    `tissues` holds the fractions of CSF, GM, WM. `mean` and `sd` are those of the classes in the same order, in the
    units of the image after division by `bias` (X, Y, Z; 1 outside the mask). `history` is the mean log density of a
    voxel at each step.
    """

    tissues: TissueMap
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    bias: Tensor
    method: str
    converged: bool
    n_iter: int
    history: tuple[float, ...]
    message: str


Segmenter = Callable[[Volume, Tensor], Segmentation]
"""Any way to segment: image and mask (X, Y, Z) in, tissues out."""


def segment(
    volume: Volume,
    mask: Tensor,
    settings: HmrfSettings | None = None,
    prior: TissueMap | None = None,
    prior_weight: float = 0.5,
) -> Segmentation:
    """Segment the brain in `mask` (bool, X, Y, Z) by HMRF-EM with bias correction and partial volumes.

    Works on any voxel size; the neighbourhood follows the spacing. Outliers (vessels, lesions) do not move the classes.
    `prior`, tissues expected at each voxel of the same grid (see `mrkit.anatomy.atlas`), starts the classes and counts
    `prior_weight` times: 1 trusts it as much as a voxel's intensity.

    Raises:
        BadInputError: a complex or constant image, a mask with too few voxels, fewer than three tissues in it, or a
            prior that does not name them.
        GridMismatchError: a mask of another shape, or a prior on another grid.
    """
    settings = settings or HmrfSettings()
    check_segmentable(volume, mask)
    if prior is not None:
        _check_prior(prior, volume, prior_weight)
    window = _bounding_box(mask)
    inside = mask[window]
    scale = float(volume.data[mask].abs().mean())
    log_prior = None
    if prior is not None:
        order = [prior.names.index(n) for n in settings.tissue_order]
        log_prior = prior_weight * (prior.prob[order][(slice(None), *window)].float() + _DOUBT).log()
    fitted = fit(volume.data[window].float() / scale, inside, volume.grid.spacing_mm, settings, log_prior)
    return _named(volume, mask, window, fitted, scale, settings)


def _check_prior(prior: TissueMap, volume: Volume, weight: float) -> None:
    require_same_grid(volume.grid, prior.grid, "the image and the tissue prior")
    if sorted(prior.names) != sorted(TISSUES) or weight <= 0:
        raise BadInputError(
            f"a tissue prior needs the maps {', '.join(TISSUES)} and a positive weight, got {prior.names} and {weight}"
        )


def check_segmentable(volume: Volume, mask: Tensor) -> None:
    """Raise unless `volume` is a real image that varies inside a `mask` of its shape with at least 1000 voxels."""
    if volume.data.is_complex():
        raise BadInputError("segmentation needs a magnitude image, got complex data; take its magnitude first")
    if mask.dtype != torch.bool or tuple(mask.shape) != volume.grid.shape:
        raise GridMismatchError(
            f"the mask must be boolean of shape {volume.grid.shape}, got {mask.dtype} {tuple(mask.shape)}"
        )
    n_voxels = int(mask.sum())
    if n_voxels < 1000:
        raise BadInputError(f"the brain mask holds {n_voxels} voxels, at least 1000 are needed; check the mask")
    values = volume.data[mask]
    if float(values.std()) <= 1e-5 * float(values.abs().max()):
        raise BadInputError("the image is constant inside the mask: there is nothing to segment; check the files")


def _bounding_box(mask: Tensor) -> tuple[slice, slice, slice]:
    hits = [torch.nonzero(mask.any(dim=axes).flatten())[:, 0] for axes in ((1, 2), (0, 2), (0, 1))]
    a, b, c = (slice(int(h[0]), int(h[-1]) + 1) for h in hits)
    return a, b, c


def _named(
    volume: Volume,
    mask: Tensor,
    window: tuple[slice, slice, slice],
    fitted: HmrfFit,
    scale: float,
    settings: HmrfSettings,
) -> Segmentation:
    order = [settings.tissue_order.index(name) for name in TISSUES]
    prob = torch.zeros((len(TISSUES), *volume.grid.shape))
    prob[(slice(None), *window)] = fitted.fraction[order]
    bias = torch.ones(volume.grid.shape)
    bias[window] = torch.where(mask[window], fitted.bias, 1.0)
    # The bias keeps the level of the image: its geometric mean in the mask is one.
    level = float(bias[mask].log().mean().exp())
    bias[mask] /= level
    mean = [float(fitted.classes.mean[k]) * scale * level for k in order]
    sd = [float(fitted.classes.sd[k]) * scale * level for k in order]
    state = "converged" if fitted.converged else "stopped before its classes settled"
    return Segmentation(
        TissueMap(prob, TISSUES, volume.grid),
        tuple(mean),
        tuple(sd),
        bias,
        "HMRF-EM",
        fitted.converged,
        fitted.n_iter,
        fitted.history,
        f"HMRF-EM {state} after {fitted.n_iter} steps",
    )
