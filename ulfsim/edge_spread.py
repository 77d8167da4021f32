"""Edge spread: how blurred a scan is along each of its voxel axes, from the borders that it shows."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mrcore.grid import Triple
from mrcore.volume import Volume


@dataclass(frozen=True)
class EdgeSpread:
    """Full width at half maximum of the line spread along each voxel axis.

    Attributes:
        fwhm_mm: of the Gaussian whose integral fits the edges; NaN where an axis shows too few.
        n_edges: edge patches it rests on, per axis.
        voxel_mm: nominal voxel size, to compare with.
        notes: which axes have few edges.
    """

    fwhm_mm: Triple
    n_edges: tuple[int, int, int]
    voxel_mm: Triple
    notes: tuple[str, ...] = ()


def edge_spread(volume: Volume, mask: Tensor | None = None) -> EdgeSpread:
    """Measure the edge spread of `volume` (real or complex, its magnitude counts) where `mask` (X, Y, Z, bool) holds.

    Without a mask every edge counts.

    Raises:
        BadInputError: a mask of another shape or type.
    """
    raise NotImplementedError
