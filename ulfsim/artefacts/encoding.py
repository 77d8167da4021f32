"""How a scan encodes space, as far as artefacts need to know: which axis is read out, which is phase-encoded."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mrcore.data.grid import Grid, Shape3, to_world
from mrcore.errors import BadInputError


@dataclass(frozen=True)
class AxisRoles:
    """Axes of the scan's voxel grid (0, 1, 2) and the readout's bandwidth in Hz per scan voxel.

    The third axis is that of the slices or partitions. A frequency that is `bandwidth_hz` too high appears one scan
    voxel further along the readout axis.

    Raises:
        BadInputError: axes that are not two different ones of 0, 1, 2, or a bandwidth that is not positive.
    """

    readout_axis: int = 0
    phase_axis: int = 1
    bandwidth_hz: float = 250.0

    def __post_init__(self) -> None:
        axes = {self.readout_axis, self.phase_axis}
        if len(axes) != 2 or not axes <= {0, 1, 2}:
            raise BadInputError(
                f"readout and phase need two different axes of 0, 1, 2, got {self.readout_axis} and {self.phase_axis}"
            )
        if not 0 < self.bandwidth_hz < math.inf:
            raise BadInputError(f"bandwidth_hz per voxel must be positive and finite, got {self.bandwidth_hz}")

    @property
    def slice_axis(self) -> int:
        """The axis that is neither read out nor phase-encoded in plane."""
        return 3 - self.readout_axis - self.phase_axis


def field_of_view_centre(grid: Grid) -> NDArray[np.float64]:
    """Return the world position in mm of the middle of the field of view, between both middle voxels if n is even."""
    return to_world(grid, (np.array(grid.shape) - 1) / 2)


def along_axis(values: Tensor, axis: int, shape: Shape3) -> Tensor:
    """Return `values` (n,) repeated over the other axes of `shape`, n being the size of `axis`."""
    return values.reshape([-1 if a == axis else 1 for a in range(3)]).expand(shape).contiguous()
