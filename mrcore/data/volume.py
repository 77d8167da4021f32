"""Volume and TissueMap: data on a grid."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor

from mrcore.data.grid import Grid
from mrcore.errors import BadInputError, GridMismatchError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3-D image: `data` (X, Y, Z), a real or complex floating tensor, on `grid`.

    `meta` holds what the sidecar of the file said (BIDS keys) and where the data came from.

    Raises:
        BadInputError: data that are not a 3-D floating tensor, or hold NaN or infinity.
        GridMismatchError: data whose shape is not that of the grid.
    """

    data: Tensor
    grid: Grid
    meta: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_data(self.data, self.grid, n_dim=3, what="a volume")
        object.__setattr__(self, "meta", MappingProxyType(dict(self.meta)))

    def __repr__(self) -> str:
        return f"Volume({self.grid.summary}, {str(self.data.dtype).removeprefix('torch.')} on {self.data.device})"

    def __reduce__(self) -> tuple[type[Volume], tuple[Tensor, Grid, dict[str, object]]]:
        # A read-only mapping does not pickle; worker processes need volumes.
        return Volume, (self.data, self.grid, dict(self.meta))

    def to(self, device: torch.device | str) -> Volume:
        """Return the image on `device`."""
        return Volume(self.data.to(device), self.grid, self.meta)


@dataclass(frozen=True, eq=False)
class TissueMap:
    """Tissue probabilities: `prob` (T, X, Y, Z), real, in [0, 1], one `names` entry per tissue.

    They sum to one inside the brain and to less where a voxel holds something else; what is missing to one is
    background. 1e-3 is allowed for rounding.

    Raises:
        BadInputError: values outside [0, 1], sums above one, or names that do not match.
        GridMismatchError: maps whose shape is not that of the grid.
    """

    prob: Tensor
    names: tuple[str, ...]
    grid: Grid

    def __post_init__(self) -> None:
        _check_data(self.prob, self.grid, n_dim=4, what="a tissue map")
        if self.prob.is_complex():
            raise BadInputError(f"tissue probabilities must be real, got {self.prob.dtype}")
        if not self.names or len(self.names) != self.prob.shape[0] or len(set(self.names)) != len(self.names):
            raise BadInputError(
                f"expected {self.prob.shape[0]} different tissue names, one per map, got {list(self.names)}"
            )
        low, high = float(self.prob.min()), float(self.prob.sum(0).max())
        if low < -1e-3 or high > 1 + 1e-3:
            raise BadInputError(
                "tissue probabilities must be at least 0 and sum to at most 1; "
                f"the lowest is {low:.4g}, the highest sum {high:.4g}"
            )

    def __repr__(self) -> str:
        return f"TissueMap({', '.join(self.names)}; {self.grid.summary})"

    def to(self, device: torch.device | str) -> TissueMap:
        """Return the maps on `device`."""
        return TissueMap(self.prob.to(device), self.names, self.grid)

    @property
    def mask(self) -> Tensor:
        """Voxels (X, Y, Z) that belong to any tissue."""
        return self.prob.sum(0) > 0.5

    def of(self, name: str) -> Tensor:
        """Return the map (X, Y, Z) of one tissue."""
        if name not in self.names:
            raise BadInputError(f"no tissue '{name}' in this map; it has {list(self.names)}")
        return self.prob[self.names.index(name)]


TISSUES = ("CSF", "GM", "WM")
"""Order of the three brain tissues wherever none is stated: that of their T1w intensity."""


_ROUNDING_VOXELS = 0.1
"""Part of the smallest voxel within which two grids are one: more than any program's rounding."""


def require_same_grid(a: Grid, b: Grid, what: str) -> None:
    """Raise GridMismatchError unless both grids are the same to a tenth of the smallest voxel; `what` names the pair.

    Programs round positions to some digits. A distance above 1e-3 mm is logged as a warning.
    """
    distance_mm, allowed_mm = a.distance_mm(b), _ROUNDING_VOXELS * min(a.spacing_mm)
    if distance_mm <= 1e-3:
        return
    if distance_mm <= allowed_mm:
        logger.warning("%s lie %.2g mm apart, less than a tenth of a voxel: taken as one grid", what, distance_mm)
        return
    far = (
        "" if math.isinf(distance_mm) else f", a voxel lies {distance_mm:.3g} mm off (up to {allowed_mm:.2g} is taken)"
    )
    raise GridMismatchError(
        f"{what} are not on the same grid: {a.summary} against {b.summary}{far}; resample one onto the other first"
    )


def _check_data(data: Tensor, grid: Grid, n_dim: int, what: str) -> None:
    if data.ndim != n_dim or not (data.is_floating_point() or data.is_complex()):
        raise BadInputError(f"{what} needs {n_dim}-D floating data, got {data.ndim}-D {data.dtype}")
    if tuple(data.shape[-3:]) != grid.shape:
        raise GridMismatchError(f"{what} has shape {tuple(data.shape[-3:])} but its grid {grid.shape}")
    # One pass without temporaries: a sum is finite only where every value is.
    if not bool(torch.isfinite(data.sum())) and not bool(torch.isfinite(data).all()):
        n_bad = int((~torch.isfinite(data)).sum())
        raise BadInputError(f"{what} holds {n_bad} values that are NaN or infinite; replace them first")
