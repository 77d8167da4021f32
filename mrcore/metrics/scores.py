"""Scores of an image against a reference, each with a stated definition, over the whole mask and well inside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from mrcore.data.brief import Brief
from mrcore.data.volume import TissueMap, Volume, require_same_grid
from mrcore.errors import BadInputError
from mrcore.metrics.edges import (
    DEFAULT_EDGES,
    EdgeSettings,
    ReferenceEdges,
    f1_of,
    find_edges,
    reference_edges,
)
from mrcore.metrics.overlap import (
    TissueContrast,
    dice_by_tissue,
    hd95,
    volume_error_ml,
    volume_error_relative,
    wm_gm_contrast,
)
from mrcore.metrics.similarity import (
    Box,
    bounding_box,
    data_range,
    gradient_error,
    inside,
    intensity_fit,
    mslc,
    nrmse,
    psnr,
    ssim_map,
)


@dataclass(frozen=True)
class RegionScores:
    """Scores over one region: PSNR in dB, relative errors, SSIM and F1 in [0, 1]; functions of these names define them.

    `edge_f1_0` and `edge_f1_1` are the edge F1 at tolerances of 0 and 1 voxel.
    """

    n_voxels: int
    psnr_db: float
    nrmse: float
    ssim: float
    gradient_error: float
    edge_f1_0: float
    edge_f1_1: float


@dataclass(frozen=True)
class Scores:
    """What `score_image` measured.

    Attributes:
        whole: over the whole mask.
        inside: over voxels more than `inside_depth_mm` from the mask's edge, where a zero background flatters nobody.
        mslc: mean shifted line correlation over the mask's bounding box, 0 outside the mask.
        reference_mslc: that of the reference.
        contrast: WM against GM, in the reference's tissue cores; None without tissues.
        reference_contrast: that of the reference.
        scale: and `offset`: the image was scored as scale * image + offset; 1 and 0 unless a fit was asked for.
        data_range: of the reference inside the mask, the peak of PSNR and SSIM.
    """

    whole: RegionScores
    inside: RegionScores
    mslc: float
    reference_mslc: float
    contrast: TissueContrast | None
    reference_contrast: TissueContrast | None
    data_range: float
    scale: float = 1.0
    offset: float = 0.0
    inside_depth_mm: float = 4.0
    edges: EdgeSettings = DEFAULT_EDGES


@dataclass(frozen=True, eq=False, repr=False)
class Target(Brief):
    """A reference made ready by `score_target`, so that many images are scored against it without repeating work."""

    reference: Volume
    mask: Tensor
    tissues: TissueMap | None
    box: Box
    deep: Tensor
    edges: ReferenceEdges
    inside_depth_mm: float


def score_image(
    reference: Volume,
    image: Volume,
    mask: Tensor,
    tissues: TissueMap | None = None,
    *,
    fit_intensity: bool = False,
    noise_sd: float | None = None,
    inside_depth_mm: float = 4.0,
    edges: EdgeSettings = DEFAULT_EDGES,
) -> Scores:
    """Score `image` against `reference` inside `mask`, all on one grid.

    Args:
        reference: the truth, real.
        image: what is scored, in the same units unless `fit_intensity`.
        mask: brain, bool (X, Y, Z).
        tissues: of the reference; measures WM-GM contrast over the same voxels in both images.
        fit_intensity: map the image by one least-squares scale and offset in the mask first; both are recorded.
        noise_sd: of the image, for its CNR.
        inside_depth_mm: distance from the mask's edge beyond which a voxel is inside.
        edges: how Canny edges are found.

    Raises:
        GridMismatchError: images or tissues on different grids.
        BadInputError: a mask of another shape, empty, or without voxels deep enough inside.
    """
    target = score_target(reference, mask, tissues, inside_depth_mm=inside_depth_mm, edges=edges)
    return score_against(target, image, fit_intensity=fit_intensity, noise_sd=noise_sd)


def score_target(
    reference: Volume,
    mask: Tensor,
    tissues: TissueMap | None = None,
    *,
    inside_depth_mm: float = 4.0,
    edges: EdgeSettings = DEFAULT_EDGES,
) -> Target:
    """Do the part of `score_image` that depends on the reference alone; arguments and errors as there."""
    if tissues is not None:
        require_same_grid(reference.grid, tissues.grid, "reference and tissue maps")
    data_range(reference.data, mask)
    box = bounding_box(mask)
    deep = inside(mask[box], reference.grid.spacing_mm, inside_depth_mm)
    if not bool(deep.any()):
        raise BadInputError(f"no voxel of the mask is more than {inside_depth_mm} mm from its edge; lower the depth")
    found = reference_edges(reference.data[box], mask[box], edges)
    return Target(reference, mask, tissues, box, deep, found, inside_depth_mm)


def score_against(
    target: Target, image: Volume, *, fit_intensity: bool = False, noise_sd: float | None = None
) -> Scores:
    """Score `image` against a prepared target; arguments and errors as in `score_image`."""
    reference, mask, tissues = target.reference, target.mask, target.tissues
    require_same_grid(reference.grid, image.grid, "reference and image")
    scale, offset = intensity_fit(reference.data, image.data, mask) if fit_intensity else (1.0, 0.0)
    scored = scale * image.data + offset if fit_intensity else image.data
    truth, brain = reference.data[target.box], mask[target.box]
    whole, core = _regions(target, truth, scored[target.box], brain)
    return Scores(
        whole=whole,
        inside=core,
        mslc=mslc(_only(scored[target.box], brain)),
        reference_mslc=mslc(_only(truth, brain)),
        contrast=None if tissues is None else wm_gm_contrast(scored, tissues, noise_sd, mask),
        reference_contrast=None if tissues is None else wm_gm_contrast(reference.data, tissues, None, mask),
        data_range=data_range(reference.data, mask),
        scale=scale,
        offset=offset,
        inside_depth_mm=target.inside_depth_mm,
        edges=target.edges.settings,
    )


def _regions(target: Target, truth: Tensor, scored: Tensor, brain: Tensor) -> tuple[RegionScores, RegionScores]:
    """Return the scores of the whole mask and of its inside, from one map and one set of edges."""
    found = find_edges(target.edges, scored)
    similarity = ssim_map(truth, scored, brain)
    spacing_mm = target.reference.grid.spacing_mm
    whole, core = (
        RegionScores(
            n_voxels=int(region.sum()),
            psnr_db=psnr(truth, scored, brain, region),
            nrmse=nrmse(truth, scored, brain, region),
            ssim=float(similarity[region].double().mean()),
            gradient_error=gradient_error(truth, scored, brain, spacing_mm, region),
            edge_f1_0=f1_of(found, 0, region),
            edge_f1_1=f1_of(found, 1, region),
        )
        for region in (brain, target.deep)
    )
    return whole, core


def score_tissues(reference: TissueMap, image: TissueMap) -> Mapping[str, Mapping[str, float]]:
    """Return for each tissue its `dice`, `hd95_mm`, `volume_error_ml` and `volume_error_relative`."""
    overlap = dice_by_tissue(reference, image)
    ours, theirs = image.prob.argmax(0), reference.prob.argmax(0)
    return MappingProxyType(
        {
            name: {
                "dice": overlap[name],
                "hd95_mm": hd95((theirs == i) & reference.mask, (ours == i) & image.mask, image.grid.spacing_mm),
                "volume_error_ml": volume_error_ml(reference, image, name),
                "volume_error_relative": volume_error_relative(reference, image, name),
            }
            for i, name in enumerate(reference.names)
        }
    )


def scores_to_json(scores: Scores) -> dict[str, object]:
    """Return the scores as JSON values."""
    return asdict(scores)


def _only(image: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, image, torch.zeros((), dtype=image.dtype))
