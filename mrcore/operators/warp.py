"""Operator that displaces an image along one of its axes and keeps its sum."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from mrcore.errors import BadInputError
from mrcore.operators.linop import LinearOp

_SLAB_VOXELS = 100_000


@final
class WarpAxisOp(LinearOp):
    """Displacement along `axis` of the data (X, Y, Z): each voxel is a box whose two edges move.

    `edge_shift` holds the shift of all voxel edges in voxels: one more than voxels along `axis`, edge i lying at
    i - 1/2. What a box holds is spread evenly between its moved edges, so that the sum is kept and intensity follows
    the Jacobian, folds included; what leaves the lattice is lost. Weights are the overlaps of moved boxes and voxels:
    conservative remapping of first order (Jones, Mon Weather Rev 1999;127:2204).

    Raises:
        BadInputError: shifts that are not finite, a wrong number of axes, or an axis other than 0, 1, 2.
    """

    def __init__(self, edge_shift: Tensor, axis: int) -> None:
        if edge_shift.ndim != 3 or axis not in (0, 1, 2) or edge_shift.shape[axis] < 2:
            raise BadInputError(
                f"a warp needs shifts (X, Y, Z) with one more than voxels along axis 0, 1 or 2, got "
                f"{tuple(edge_shift.shape)} and axis {axis}"
            )
        if not edge_shift.is_floating_point() or not bool(edge_shift.isfinite().all()):
            raise BadInputError("the shifts of a warp are finite real numbers, in voxels")
        self.edge_shift, self.axis = edge_shift, axis
        n = edge_shift.shape[axis] - 1
        self.shape_in = self.shape_out = tuple(n if a == axis else s for a, s in enumerate(edge_shift.shape))
        self.dtype, self.device = edge_shift.dtype, edge_shift.device
        self._parts = _overlaps(edge_shift, axis)

    def _apply(self, x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for index, weight in self._parts:
            out.scatter_add_(self.axis - 3, index.expand(x.shape), weight * x)
        return out

    def _adjoint(self, y: Tensor) -> Tensor:
        out = torch.zeros_like(y)
        for index, weight in self._parts:
            out += weight * y.gather(self.axis - 3, index.expand(y.shape))
        return out

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> WarpAxisOp:
        return WarpAxisOp(self.edge_shift.to(device, (dtype or self.dtype).to_real()), self.axis)


def _overlaps(edge_shift: Tensor, axis: int) -> list[tuple[Tensor, Tensor]]:
    """Return, for the first, second, ... voxel that each moved box meets, its index and the share of the box in it."""
    across = 1 if axis == 0 else 0
    # A few planes at a time: temporaries stay small.
    n_slabs = 1 + edge_shift.numel() // _SLAB_VOXELS
    slabs = [_overlaps_in(part.double(), axis, edge_shift.dtype) for part in edge_shift.chunk(n_slabs, across)]
    nothing = [(torch.zeros_like(slab[0][0]), torch.zeros_like(slab[0][1])) for slab in slabs]
    out = []
    for i in range(max(map(len, slabs))):
        parts = [slab[i] if i < len(slab) else empty for slab, empty in zip(slabs, nothing, strict=True)]
        out.append((torch.cat([p[0] for p in parts], across), torch.cat([p[1] for p in parts], across)))
    return out


def _overlaps_in(edge_shift: Tensor, axis: int, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    n = edge_shift.shape[axis] - 1
    across = [-1 if a == axis else 1 for a in range(3)]
    # Voxel i lies between i and i + 1 here.
    edge = edge_shift + torch.arange(n + 1, dtype=torch.float64, device=edge_shift.device).reshape(across)
    whole = edge.round()
    edge = torch.where((edge - whole).abs() < 1e-9, whole, edge)  # no shift is then exactly the identity
    ends = edge.narrow(axis, 0, n), edge.narrow(axis, 1, n)
    low, high = torch.minimum(*ends), torch.maximum(*ends)
    first, width = low.floor(), high - low
    is_point = width < 1e-12
    parts = []
    for step in range(max(1, int((high.ceil() - first).max()))):
        voxel = first + step
        share = (torch.minimum(high, voxel + 1) - torch.maximum(low, voxel)).clamp_min(0) / width
        share = torch.where(is_point, float(step == 0), share)
        share = torch.where((voxel >= 0) & (voxel < n), share, 0.0)
        parts.append((voxel.clamp(0, n - 1).long(), share.to(dtype)))
    return parts
