"""Artefacts of static fields: receive bias, off-resonance and the concomitant field of the readout gradient.

Positions are in world mm (right, anterior, superior) from the centre of the scan's field of view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mrcore.data.grid import Grid, Triple, directions, to_world
from mrcore.errors import BadInputError
from mrcore.forward import covering_grid
from mrcore.operators.linop import LinearOp
from mrcore.operators.pointwise import DiagonalOp
from mrcore.operators.warp import WarpAxisOp
from mrcore.spatial.resampling import ResampleOp
from ulfsim.artefacts.encoding import AxisRoles, field_of_view_centre
from ulfsim.plan import ScanPlan

GAMMA_HZ_PER_T = 42.577478518e6
"""Gyromagnetic ratio of the proton over 2 pi (CODATA 2018)."""
RADIUS_MM = 100.0
"""Radius of the sphere that field strengths are stated for: it holds an adult head."""


@dataclass(frozen=True)
class ReceiveBias:
    """Smooth receive sensitivity: a positive factor on the object.

    The factor is exp(ln(ratio) p / range(p)), p = sum_i c_i u_i + sum_ij c_ij u_i u_j with u = position / 100 mm less
    its mean, so `ratio` is brightest over darkest place within 100 mm. The logarithm of a coil's sensitivity is smooth
    over a head (Sled et al., IEEE TMI 1998;17:87).

    Attributes:
        ratio: brightest over darkest, at least 1.
        coefficients: of R, A, S, RA, AS, SR, RR, AA, SS; only their proportions count.
    """

    ratio: float
    coefficients: tuple[float, ...] = (0, 0, 0, 0, 0, 0, -1, -1, -1)

    def __post_init__(self) -> None:
        if not 1 <= self.ratio <= 100:
            raise BadInputError(f"the ratio of a receive bias is brightest over darkest, 1 to 100, got {self.ratio}")
        object.__setattr__(self, "coefficients", _numbers(self.coefficients, 9, "a receive bias"))
        if not any(self.coefficients):
            raise BadInputError("a receive bias needs a coefficient that is not 0; use None for no bias")


@dataclass(frozen=True)
class B0Distortion:
    """Off-resonance: solid harmonics of first and second order, each in ppm of the main field at 100 mm.

    Attributes:
        coefficients_ppm: of R, A, S, RA, AS, SR, SS - (RR + AA) / 2, RR - AA; a field without sources inside is a sum
            of such harmonics (Romeo & Hoult, MRM 1984;1:44).
    """

    coefficients_ppm: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "coefficients_ppm", _numbers(self.coefficients_ppm, 8, "a B0 distortion"))


@dataclass(frozen=True)
class ConcomitantWarp:
    """Concomitant (Maxwell) field of the readout gradient.

    Attributes:
        field_axis: world axis (R, A or S) of the main field: A in a magnet with poles above and below the head.
        isocentre_mm: world offset of the magnet's isocentre from the centre of the field of view.
    """

    field_axis: str = "A"
    isocentre_mm: Triple = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if self.field_axis not in ("R", "A", "S"):
            raise BadInputError(f"field_axis must be R, A or S, got '{self.field_axis}'")
        object.__setattr__(self, "isocentre_mm", _numbers(self.isocentre_mm, 3, "an isocentre"))


def bias_factor(bias: ReceiveBias, position_mm: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Return the factor at positions (right, anterior, superior) from the centre; its logarithm is 0 in the mean."""
    ball = _ball()
    inside = _quadratic(bias.coefficients, ball)
    spread = (inside.max() - inside.min()).clamp_min(1e-12)
    return torch.exp(math.log(bias.ratio) * (_quadratic(bias.coefficients, position_mm) - inside.mean()) / spread)


def off_resonance_ppm(b0: B0Distortion, position_mm: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Return the off-resonance in ppm at positions (right, anterior, superior) from the centre."""
    c = b0.coefficients_ppm
    return _quadratic((*c[:6], c[7] - c[6] / 2, -c[7] - c[6] / 2, c[6]), position_mm)


def peak_to_peak_ppm(b0: B0Distortion) -> float:
    """Return the largest minus the smallest off-resonance within 100 mm of the centre."""
    inside = off_resonance_ppm(b0, _ball())
    return float(inside.max() - inside.min())


def b0_shift_mm(
    b0: B0Distortion, encoding: AxisRoles, position_mm: tuple[Tensor, Tensor, Tensor], field_t: float, voxel_mm: float
) -> Tensor:
    """Return the displacement along the readout: delta_f / bandwidth per voxel x voxel size, delta_f = ppm x f0.

    (Jezzard & Balaban, MRM 1995;34:65, eq. 1, for the readout axis of a spin echo.)
    """
    hz_per_ppm = 1e-6 * GAMMA_HZ_PER_T * field_t
    return off_resonance_ppm(b0, position_mm) * (hz_per_ppm / encoding.bandwidth_hz * voxel_mm)


def readout_gradient_t_per_m(encoding: AxisRoles, voxel_mm: float) -> float:
    """Return the gradient under which neighbouring voxels differ by the bandwidth per voxel."""
    return encoding.bandwidth_hz / (GAMMA_HZ_PER_T * voxel_mm * 1e-3)


def concomitant_field_t(
    warp: ConcomitantWarp,
    gradient_t_per_m: tuple[float, float, float],
    position_mm: tuple[Tensor, Tensor, Tensor],
    field_t: float,
) -> Tensor:
    """Return the concomitant field of a gradient (along R, A, S) of symmetric coils, of lowest order in 1 / B0.

    B_c = (|G_t|^2 z^2 + G_z^2 |r_t|^2 / 4 - G_z z G_t . r_t) / (2 B0), z along the main field, t across it (Bernstein
    et al., MRM 1998;39:300, eq. 2).
    """
    main = "RAS".index(warp.field_axis)
    across = [a for a in range(3) if a != main]
    place = [(x - offset) * 1e-3 for x, offset in zip(position_mm, warp.isocentre_mm, strict=True)]
    g, z = gradient_t_per_m, place[main]
    transverse = sum(g[a] ** 2 for a in across)
    mixed = g[across[0]] * place[across[0]] + g[across[1]] * place[across[1]]
    around = place[across[0]].square() + place[across[1]].square()
    return (transverse * z * z + g[main] ** 2 / 4 * around - g[main] * z * mixed) / (2 * field_t)


def disturbed_object(
    plan: ScanPlan,
    encoding: AxisRoles,
    bias: ReceiveBias | None,
    b0: B0Distortion | None,
    concomitant: ConcomitantWarp | None,
) -> tuple[LinearOp | None, Grid]:
    """Return the operator of the static fields on the object, None without any, and the lattice it ends on.

    That is the object's own lattice, unless the readout is oblique to it and something is displaced: then it is one
    along the scan's axes. Both displacements act together, as both add to the readout gradient.
    """
    dtype, device = plan.operator.dtype, plan.operator.device
    operator: LinearOp | None = None
    lattice = plan.object_grid
    if bias is not None:
        factor = bias_factor(bias, _positions_mm(lattice, plan))
        operator = DiagonalOp(factor.expand(lattice.shape).to(device=device, dtype=dtype).contiguous())
    if b0 is None and concomitant is None:
        return operator, lattice
    axis, sign = _axis_along(lattice, plan.scan_grid, encoding.readout_axis)
    if sign == 0:
        lattice = covering_grid(plan.scan_grid, min(lattice.spacing_mm), 2 * max(plan.scan_grid.spacing_mm))
        turned = ResampleOp(plan.object_grid, lattice, dtype=dtype, device=device)
        operator = turned if operator is None else turned @ operator
        axis, sign = encoding.readout_axis, 1
    shift_mm = _shift_mm(plan, encoding, b0, concomitant, _positions_mm(lattice, plan, edges_of=axis))
    shift = shift_mm * (sign / lattice.spacing_mm[axis])
    warp = WarpAxisOp(shift.to(device=device, dtype=dtype), axis)
    return (warp if operator is None else warp @ operator), lattice


def _shift_mm(
    plan: ScanPlan,
    encoding: AxisRoles,
    b0: B0Distortion | None,
    concomitant: ConcomitantWarp | None,
    position_mm: tuple[Tensor, Tensor, Tensor],
) -> Tensor:
    """Return the displacement along the scan's readout axis in mm."""
    field_t, voxel_mm = plan.acquisition.field_t, plan.scan_grid.spacing_mm[encoding.readout_axis]
    total = 0 * (position_mm[0] + position_mm[1] + position_mm[2])
    if b0 is not None:
        total = total + b0_shift_mm(b0, encoding, position_mm, field_t, voxel_mm)
    if concomitant is not None:
        strength = readout_gradient_t_per_m(encoding, voxel_mm)
        r, a, s = (strength * float(d) for d in directions(plan.scan_grid)[:, encoding.readout_axis])
        # A field B appears where the gradient has it: B / G away.
        total = total + concomitant_field_t(concomitant, (r, a, s), position_mm, field_t) / strength * 1e3
    return total


def _axis_along(lattice: Grid, scan_grid: Grid, scan_axis: int) -> tuple[int, int]:
    """Return the axis of `lattice` along the scan's axis and 1 or -1 for its sense; 0 where none is within 1e-3."""
    cosine = directions(lattice).T @ directions(scan_grid)
    axis = int(np.abs(cosine[:, scan_axis]).argmax())
    shared = np.abs(cosine[axis, scan_axis]) > 1 - 1e-6
    return axis, int(np.sign(cosine[axis, scan_axis])) if shared else 0


def _positions_mm(lattice: Grid, plan: ScanPlan, edges_of: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return R, A, S of the voxels, or of the edges along one axis, from the centre of the scan's field of view.

    Each has the shape (X, Y, Z), with 1 where it does not change along an axis: fields of aligned grids stay cheap.
    """
    centre = field_of_view_centre(plan.scan_grid)
    first = np.zeros(3) if edges_of is None else np.where(np.arange(3) == edges_of, -0.5, 0.0)
    start, matrix = to_world(lattice, first) - centre, lattice.affine[:3, :3]
    place = [torch.full((1, 1, 1), value, dtype=torch.float64) for value in start]
    for axis, n in enumerate(lattice.shape):
        step = torch.arange(n + (axis == edges_of), dtype=torch.float64).reshape(
            [-1 if a == axis else 1 for a in range(3)]
        )
        for world in range(3):
            if abs(matrix[world, axis]) * n > 1e-6:
                place[world] = place[world] + matrix[world, axis] * step
    return place[0], place[1], place[2]


def _quadratic(coefficients: tuple[float, ...], position_mm: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Evaluate a polynomial in R, A, S (of 100 mm); coefficients as those of `ReceiveBias`."""
    r, a, s = (x / RADIUS_MM for x in position_mm)
    c = coefficients
    # Grouped by planes: on aligned grids only the last two sums are of full size.
    plane = (c[0] * r + c[6] * r * r) + (c[1] * a + c[7] * a * a) + c[3] * r * a
    return plane + (c[2] * s + c[8] * s * s + c[4] * a * s) + c[5] * s * r


def _ball(n: int = 41) -> tuple[Tensor, Tensor, Tensor]:
    """Return positions that fill the sphere of 100 mm."""
    ticks = torch.linspace(-RADIUS_MM, RADIUS_MM, n, dtype=torch.float64)
    r, a, s = torch.meshgrid(ticks, ticks, ticks, indexing="ij")
    inside = r * r + a * a + s * s <= RADIUS_MM**2 * (1 + 1e-9)
    return r[inside], a[inside], s[inside]


def _numbers(values: tuple[float, ...], n: int, what: str) -> tuple[float, ...]:
    """Return plain floats, so that what JSON gives back is equal."""
    if len(values) != n or not all(math.isfinite(v) for v in values):
        raise BadInputError(f"{what} needs {n} finite numbers, got {values}")
    return tuple(float(v) for v in values)
