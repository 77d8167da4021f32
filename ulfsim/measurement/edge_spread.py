"""Edge spread: how blurred a scan is along each of its voxel axes, from the borders that it shows.

The principle is that of the slanted edge (ISO 12233): a border crosses neighbouring lines of voxels at different
places between two voxels, which samples its profile more finely than the voxels do. Here a plane with an error function
across it is fitted to small patches around borders, so that place, slope and width of each are found together and no
noisy profile is aligned or differentiated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from mrcore.data.grid import Triple
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError

FWHM_PER_SD = math.sqrt(8 * math.log(2))
_N_CANDIDATES = 1500
_N_ENOUGH = 30
_BIN_VOXELS = 0.25


@dataclass(frozen=True)
class EdgeSpread:
    """Full width at half maximum of the line spread along each voxel axis.

    Attributes:
        fwhm_mm: of the Gaussian whose integral fits the edges; NaN where an axis shows too few.
        n_edges: edge patches it rests on, per axis.
        voxel_mm: nominal voxel size, to compare with.
        profiles: per axis, distances from the edge (mm) and the mean profile there, from 0 to 1; for plots.
        notes: which axes have few edges.
    """

    fwhm_mm: Triple
    n_edges: tuple[int, int, int]
    voxel_mm: Triple
    profiles: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def fwhm_voxels(self) -> Triple:
        """Width relative to the nominal voxel."""
        return cast("Triple", tuple(f / v for f, v in zip(self.fwhm_mm, self.voxel_mm, strict=True)))


@dataclass(frozen=True, eq=False)
class _Edges:
    """Fitted patches of one axis: variance of the line spread along it and slopes to the others, in voxels."""

    variance: Tensor
    slopes: Tensor
    distance: Tensor
    height: Tensor


def edge_spread(volume: Volume, mask: Tensor | None = None) -> EdgeSpread:
    """Measure the edge spread of `volume` (real or complex, its magnitude counts) where `mask` (X, Y, Z, bool) holds.

    Borders that run across an axis are fitted in patches of 3 x 3 lines: level, height, place, two slopes and width.
    The half of them that fit better counts; its median is free of what the slope adds through the blur along the other
    axes. Borders that are soft themselves (partial volumes, folds) widen the result: it compares scans of like
    objects, and is an upper bound of the blur. Without a mask every border counts. Patches with voxels of exactly 0 are
    left out: software set them, and their border is that of a mask, not of an object.

    Raises:
        BadInputError: a mask of another shape or type.
    """
    if mask is None:
        mask = torch.ones(volume.grid.shape, dtype=torch.bool)
    if mask.dtype != torch.bool or mask.shape != volume.data.shape:
        raise BadInputError(f"the mask must be boolean of shape {volume.grid.shape}, got {mask.dtype} {mask.shape}")
    window = _around(mask)
    image, mask = volume.data[window].abs().double(), mask[window]
    voxel_mm = volume.grid.spacing_mm
    found = [_edges_along(image, mask, axis, _half_window(voxel_mm[axis])) for axis in range(3)]
    variance = _without_slopes(found)
    n_edges = cast("tuple[int, int, int]", tuple(edges.variance.numel() for edges in found))
    notes = tuple(f"axis {axis}: only {n} usable edges" for axis, n in enumerate(n_edges) if n < _N_ENOUGH)
    fwhm_mm = cast(
        "Triple",
        tuple(
            FWHM_PER_SD * math.sqrt(v) * mm if n >= _N_ENOUGH else math.nan
            for v, mm, n in zip(variance, voxel_mm, n_edges, strict=True)
        ),
    )
    profiles = tuple(_mean_profile(edges, mm) for edges, mm in zip(found, voxel_mm, strict=True))
    return EdgeSpread(fwhm_mm, n_edges, voxel_mm, profiles, notes)


def _around(mask: Tensor, margin: int = 7) -> tuple[slice, slice, slice]:
    """Return the box of the mask with room for the patches at its border; empty where the mask is."""
    found = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        at = mask.any(others[1]).any(others[0]).nonzero()
        low, high = (int(at.min()), int(at.max())) if at.numel() else (0, -1 - margin)
        found.append(slice(max(low - margin, 0), max(high + 1 + margin, 0)))
    return found[0], found[1], found[2]


def _half_window(voxel_mm: float) -> int:
    """Return how many voxels to look at on either side: about 6 mm, enough for the width and little else."""
    return min(max(round(6 / voxel_mm), 3), 6)


def _edges_along(image: Tensor, mask: Tensor, axis: int, half: int) -> _Edges:
    lines, inside = image.movedim(axis, -1), mask.movedim(axis, -1)
    n_taps = 2 * half + 1
    if lines.shape[-1] < n_taps or min(lines.shape[:2]) < 3:
        return _no_edges(9 * n_taps)
    # Levels on both sides of the middle, over 3 x 3 lines: blur and noise hardly change their difference.
    smooth = torch.nn.functional.avg_pool2d(lines.permute(2, 0, 1)[:, None], 3, 1)[:, 0].permute(1, 2, 0)
    windows = smooth.unfold(-1, n_taps, 1)
    step = windows[..., half + 1 :].mean(-1) - windows[..., :half].mean(-1)
    peak = torch.nn.functional.max_pool1d(step.abs().flatten(0, 1)[:, None], 5, 1, 2)[:, 0].reshape(step.shape)
    at_border = (step.abs() == peak) & (peak > 0) & inside[1:-1, 1:-1, half : lines.shape[-1] - half]
    cut = torch.nn.functional.max_pool3d((lines == 0).float()[None], (3, 3, n_taps), 1)[0] > 0
    at_border &= ~cut
    place = at_border.nonzero()
    strongest = step[at_border].abs().argsort(descending=True, stable=True)[:_N_CANDIDATES]
    if strongest.numel() < _N_ENOUGH:
        return _no_edges(9 * n_taps)
    place = place[strongest]
    offsets = torch.stack(
        torch.meshgrid(torch.arange(-1, 2), torch.arange(-1, 2), torch.arange(-half, half + 1), indexing="ij"), -1
    ).reshape(-1, 3)
    index = (place + torch.tensor([1, 1, half]))[:, None] + offsets
    values = lines[index[..., 0], index[..., 1], index[..., 2]]
    return _fitted(values, offsets.double(), half)


def _fitted(values: Tensor, offsets: Tensor, half: int, n_steps: int = 12) -> _Edges:
    """Fit values (E, P) at offsets (P, 3: two across, one along) by damped Gauss-Newton steps; keep the better half."""
    across, along = offsets[:, :2], offsets[:, 2]
    left, right = values[:, along < 0].mean(1), values[:, along > 0].mean(1)
    zero = torch.zeros_like(left)
    p = torch.stack([left, right - left, zero, zero, zero, zero - 0.4], 1)  # level, height, place, slopes, log width
    damping = torch.full_like(left, 1e-2)
    rest, jacobian, _ = _residual(p, values, across, along)
    cost = rest.square().sum(1)
    for _ in range(n_steps):
        normal = jacobian.mT @ jacobian
        diagonal = normal.diagonal(dim1=1, dim2=2)
        matrix = normal + torch.diag_embed(damping[:, None] * diagonal + 1e-12 * diagonal.amax(1, keepdim=True) + 1e-30)
        step = torch.linalg.solve(matrix, (jacobian.mT @ rest[..., None])[..., 0])
        step[:, 2:] = step[:, 2:].clamp(-1, 1)
        trial = p + step
        trial[:, 5] = trial[:, 5].clamp(-2.5, math.log(half))
        new_rest, new_jacobian, _ = _residual(trial, values, across, along)
        new_cost = new_rest.square().sum(1)
        better = new_cost < cost
        p = torch.where(better[:, None], trial, p)
        rest = torch.where(better[:, None], new_rest, rest)
        jacobian = torch.where(better[:, None, None], new_jacobian, jacobian)
        cost = torch.where(better, new_cost, cost)
        damping = torch.where(better, damping / 5, damping * 5).clamp(1e-9, 1e6)
    height, width = p[:, 1].abs(), p[:, 5].exp()
    misfit = (cost / values.shape[1]).sqrt() / height.clamp_min(1e-30)
    # A narrower edge lies between two voxels: its width has no meaning.
    usable = (width > 0.2) & (width < 0.6 * half) & (p[:, 2].abs() < 1.5) & (p[:, 3:5].abs().amax(1) < 0.6)
    # A height far above the step that was seen is a slope, not a border.
    usable &= height < 1.5 * (right - left).abs().clamp_min(1e-30)
    chosen = usable.nonzero()[:, 0]
    chosen = chosen[misfit[chosen].argsort(stable=True)[: max(_N_ENOUGH, chosen.numel() // 2)]]
    _, _, distance = _residual(p[chosen], values[chosen], across, along)
    level = (values[chosen] - p[chosen, :1]) / p[chosen, 1:2]
    return _Edges(width[chosen].square(), p[chosen, 3:5], distance, level)


def _residual(p: Tensor, values: Tensor, across: Tensor, along: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return misfit (E, P), its Jacobian (E, P, 6) with the sign of the model's, and distance from the edge (E, P)."""
    width = p[:, 5:].exp()
    distance = along - p[:, 2:3] - p[:, 3:5] @ across.T
    z = distance / width
    share = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    slope = p[:, 1:2] * torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    by_place = -slope / width
    columns = [torch.ones_like(z), share, by_place, across[:, 0] * by_place, across[:, 1] * by_place, -slope * z]
    return values - p[:, :1] - p[:, 1:2] * share, torch.stack(columns, -1), distance


def _without_slopes(found: list[_Edges]) -> list[float]:
    """Return the variance of the line spread per axis, in voxels^2.

    Along axis a a border of slopes c has the variance v_a + sum_b c_b^2 v_b; a few rounds settle all three.
    """
    variance = [float(edges.variance.median()) if edges.variance.numel() else 0.0 for edges in found]
    for _ in range(10):
        before = list(variance)
        for axis, edges in enumerate(found):
            if edges.variance.numel():
                others = torch.tensor([before[b] for b in range(3) if b != axis], dtype=torch.float64)
                variance[axis] = max(float((edges.variance - edges.slopes.square() @ others).median()), 0.0)
    return variance


def _mean_profile(edges: _Edges, voxel_mm: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if edges.distance.numel() == 0:
        return (), ()
    index = (edges.distance / _BIN_VOXELS).round().long().reshape(-1)
    low = int(index.min())
    count = torch.bincount(index - low)
    total = torch.bincount(index - low, edges.height.reshape(-1))
    kept = (count >= _N_ENOUGH).nonzero()[:, 0]
    at = (kept + low) * _BIN_VOXELS * voxel_mm
    return tuple(at.tolist()), tuple((total[kept] / count[kept]).tolist())


def _no_edges(n_taps: int) -> _Edges:
    none = torch.zeros(0, n_taps, dtype=torch.float64)
    return _Edges(none[:, 0], none[:, :2], none, none)
