"""The table of all linear operators: a name and a builder of a small instance in float64 for each.

Every concrete LinearOp of every package must appear here (tests/mrcore/test_linop.py checks that by introspection),
in the geometries in which it is used. Builders are functions, so that importing the table costs nothing.
"""

from collections.abc import Callable

import numpy as np
import torch

from mrcore.data.acquisition import DELTA_PSF, Acquisition, AxisPsf, PulseSequence, gaussian_psf
from mrcore.data.grid import Grid, to_world
from mrcore.forward import imaging_operator
from mrcore.operators.fourier import FourierOp
from mrcore.operators.indexing import CropOp, PermuteOp
from mrcore.operators.linop import LinearOp
from mrcore.operators.nufft import NufftOp
from mrcore.operators.pointwise import CoilOp, ComplexOp, DiagonalOp
from mrcore.operators.separable import SeparableOp
from mrcore.operators.stacked import StackedOp
from mrcore.operators.warp import WarpAxisOp
from mrcore.spatial.resampling import ResampleOp, resample_within
from recon.encoding.operators import FusedNormalOp, PickOp, SubspaceOp
from recon.encoding.toeplitz import KernelNormalOp, cartesian_normal, toeplitz_normal
from ulfsim.artefacts.artefacts import Artefacts, disturbed_operator
from ulfsim.artefacts.fields import B0Distortion, ConcomitantWarp, ReceiveBias
from ulfsim.artefacts.kspace import IntensityDrift, NyquistGhost, ShotMotion, ShotPose, Wrap
from ulfsim.plan import plan_scan

F64, C128 = torch.float64, torch.complex128


def numbers(*shape: int, dtype: torch.dtype = F64, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    """Rotation about x, then y, then z, as a 4 x 4 matrix."""
    out = np.eye(4)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        i, j = [a for a in range(3) if a != axis]
        turn = np.eye(4)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        out = turn @ out
    return out


def grid(shape, spacing_mm, centre_mm=(0, 0, 0), degrees=(0, 0, 0), flips=(), order=(0, 1, 2)) -> Grid:
    """Grid whose field of view is centred at `centre_mm`; `order` names the world axis of each voxel axis."""
    axes = np.zeros((4, 4))
    axes[3, 3] = 1
    for a in range(3):
        axes[order[a], a] = spacing_mm[a] * (-1 if a in flips else 1)
    affine = rotation(degrees) @ axes
    affine[:3, 3] = np.asarray(centre_mm) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


OBJECT = grid((9, 10, 12), (1.0, 1.0, 1.0))
DISTURBED = Acquisition(0.064, (9.0, 10.0, 20.0), PulseSequence("T1w"), psf=gaussian_psf((9.0, 10.0, 20.0)))
SCAN_PSF = gaussian_psf((1.6, 1.7, 3.0))


def imaging(scan: Grid, psf=SCAN_PSF, source: Grid = OBJECT) -> LinearOp:
    return imaging_operator(source, scan, psf, F64)


def disturbed_scan() -> LinearOp:
    """A scan with all artefacts that are linear, the readout along an axis that the object has reversed."""
    plan = plan_scan(grid((9, 10, 12), (8.0, 7.0, 9.0), flips=(0,)), DISTURBED, F64)
    artefacts = Artefacts(
        bias=ReceiveBias(2.0),
        b0=B0Distortion((50, 10, 0, 0, 0, 0, 300, -100)),
        concomitant=ConcomitantWarp(),
        motion=ShotMotion((ShotPose(), ShotPose((1, -2, 3)), ShotPose((0, 0, 4), (3, 5, -7)))),
        ghost=NyquistGhost(40, 0.1),
        drift=IntensityDrift(0.3),
        wrap=Wrap(0.8),
    )
    return disturbed_operator(plan, artefacts)


def separable(n_in: tuple[int, int, int], n_out: tuple[int, int, int]) -> SeparableOp:
    a, b, c = (numbers(m, n, seed=i) for i, (m, n) in enumerate(zip(n_out, n_in, strict=True)))
    return SeparableOp((a, b, c))


def positions(n: int, seed: int = 7) -> torch.Tensor:
    """Positions (n, 3) in k-space that voxels of 2 mm can hold, in cycles/mm."""
    return 0.5 * torch.rand(n, 3, generator=torch.Generator().manual_seed(seed), dtype=F64) - 0.25


def nufft(*shape: int, n_samples: int = 30) -> NufftOp:
    return NufftOp(positions(n_samples), shape, (2.0, 2.0, 2.0), C128)


def subspace_op(fourier: LinearOp, dtype: torch.dtype, n_coils: int = 2) -> SubspaceOp:
    """Three coefficients of a train of five frames, the samples in any order of frames."""
    frame = torch.arange(fourier.shape_out[0]) * 3 % 5
    return SubspaceOp(fourier, numbers(5, 3, dtype=dtype), frame, numbers(n_coils, *fourier.shape_in, dtype=C128))


def pick() -> PickOp:
    return PickOp((4, 3, 5), torch.tensor([7, 0, 59, 7, 31, 12, 12, 40]), C128)


def cartesian_samples() -> LinearOp:
    return pick() @ FourierOp((4, 3, 5), C128)


def toeplitz(fourier: LinearOp, dtype: torch.dtype) -> KernelNormalOp:
    return toeplitz_normal(subspace_op(fourier, dtype), numbers(*fourier.shape_out).abs())


OPERATORS: dict[str, Callable[[], LinearOp]] = {
    "fourier even": lambda: FourierOp((4, 6, 2), C128),
    "fourier odd": lambda: FourierOp((5, 3, 7), C128),
    "fourier of coils": lambda: FourierOp((2, 4, 5, 3), C128, n_axes=3),
    "fourier 1d": lambda: FourierOp((6,), C128),
    "crop even to odd": lambda: CropOp((6, 8, 4), (3, 5, 3), F64),
    "crop odd to even": lambda: CropOp((7, 5, 9), (4, 2, 6), F64),
    "crop nothing": lambda: CropOp((3, 4, 5), (3, 4, 5), F64),
    "permute cyclic": lambda: PermuteOp((3, 4, 5), (1, 2, 0), F64),
    "permute swap": lambda: PermuteOp((3, 4, 5), (0, 2, 1), F64),
    "diagonal real": lambda: DiagonalOp(numbers(3, 4, 5)),
    "diagonal complex": lambda: DiagonalOp(numbers(3, 4, 5, dtype=C128)),
    "coils": lambda: CoilOp(numbers(3, 4, 2, 5, dtype=C128)),
    "one coil": lambda: CoilOp(numbers(1, 4, 2, 5, dtype=C128)),
    "separable shrink": lambda: separable((5, 6, 7), (4, 3, 2)),
    "separable grow": lambda: separable((2, 3, 4), (7, 6, 5)),
    "separable mixed": lambda: separable((7, 2, 4), (3, 6, 1)),
    "resample identity": lambda: ResampleOp(OBJECT, OBJECT, dtype=F64),
    "resample oblique": lambda: ResampleOp(
        OBJECT, grid((7, 6, 5), (1.3, 1.7, 2.1), (0.3, -1, 0), (10, -20, 30)), dtype=F64
    ),
    "resample motion": lambda: ResampleOp(OBJECT, OBJECT, rotation((4, 3, -5)), dtype=F64),
    "resample outside": lambda: ResampleOp(OBJECT, grid((4, 5, 3), (2, 2, 2), (40, 0, 0)), dtype=F64),
    "sparse resample": lambda: resample_within(
        ResampleOp(OBJECT, grid((7, 6, 5), (1.3, 1.7, 2.1), (0.3, -1, 0), (10, -20, 30)), dtype=F64),
        blob(OBJECT, (0.5, 0.0, -0.5), 3.0) > 0.3,
    ),
    "imaging integer ratio": lambda: imaging(grid((4, 5, 3), (2, 2, 4)), source=grid((8, 10, 12), (1, 1, 1))),
    "imaging non-integer": lambda: imaging(grid((5, 6, 4), (1.6, 1.7, 3.0))),
    "imaging odd, delta": lambda: imaging(grid((9, 5, 3), (1, 2, 4)), DELTA_PSF),
    "imaging box": lambda: imaging(grid((5, 6, 4), (1.6, 1.7, 3.0)), (AxisPsf(1.0), AxisPsf(), AxisPsf(0, 3.0, False))),
    "imaging windowed": lambda: imaging(
        grid((5, 6, 4), (1.6, 1.7, 3.0)), (AxisPsf(taper=0.5), AxisPsf(decay_at_edge=1.2), AxisPsf(1.0, taper=1.0))
    ),
    "imaging flipped": lambda: imaging(grid((5, 6, 4), (1.6, 1.7, 3.0), flips=(0, 2))),
    "imaging permuted": lambda: imaging(grid((4, 5, 6), (3.0, 1.6, 1.7), flips=(1,), order=(2, 0, 1))),
    "imaging oblique": lambda: imaging(grid((5, 6, 4), (1.6, 1.7, 3.0), degrees=(12, -7, 20))),
    "real to complex": lambda: ComplexOp((3, 4, 5), F64),
    "nufft even": lambda: nufft(6, 4, 8),
    "nufft odd": lambda: nufft(5, 3, 7),
    "nufft of a slice": lambda: nufft(6, 5, 1),
    "pick": lambda: PickOp((3, 4), torch.tensor([7, 0, 11, 7]), F64),
    "subspace real": lambda: subspace_op(nufft(6, 5, 1), F64),
    "subspace complex": lambda: subspace_op(nufft(4, 5, 6), C128),
    "subspace of one coil": lambda: subspace_op(nufft(5, 4, 1), C128, n_coils=1),
    "subspace cartesian": lambda: subspace_op(cartesian_samples(), C128),
    "fused normal real": lambda: FusedNormalOp(subspace_op(nufft(6, 5, 1), F64), numbers(30).abs()),
    "fused normal complex": lambda: FusedNormalOp(subspace_op(nufft(4, 5, 6), C128), numbers(30).abs()),
    "toeplitz normal real": lambda: toeplitz(nufft(6, 5, 1), F64),
    "toeplitz normal complex": lambda: toeplitz(nufft(4, 5, 6), C128),
    "cartesian normal": lambda: cartesian_normal(subspace_op(cartesian_samples(), C128), pick(), numbers(8).abs()),
    "warp folding": lambda: WarpAxisOp(1.7 * numbers(4, 6, 3), 1),
    "warp smooth": lambda: WarpAxisOp(0.2 * numbers(5, 4, 6).cumsum(2), 2),
    "disturbed scan": disturbed_scan,
    "adjoint": lambda: separable((2, 3, 4), (5, 3, 2)).H,
    "product real": lambda: separable((4, 3, 2), (2, 3, 4)) @ separable((5, 6, 7), (4, 3, 2)),
    "product complex": lambda: CropOp((4, 3, 6), (3, 2, 4), F64) @ FourierOp((4, 3, 6), C128),
    "sum": lambda: separable((3, 4, 5), (3, 4, 5)) + DiagonalOp(numbers(3, 4, 5)),
    "stacked scans": lambda: StackedOp((imaging(grid((4, 5, 3), (2, 2, 4))), imaging(grid((5, 3, 4), (2, 4, 2))))),
    "stacked complex": lambda: StackedOp((nufft(6, 5, 1), nufft(6, 5, 1, n_samples=12))),
    "scaled": lambda: -2.5 * separable((3, 4, 5), (2, 4, 6)),
}


def positions_mm(where: Grid) -> torch.Tensor:
    """World positions (X, Y, Z, 3) of the voxels of a grid."""
    voxels = np.stack(np.meshgrid(*(np.arange(n) for n in where.shape), indexing="ij"), -1)
    return torch.from_numpy(to_world(where, voxels))


def blob(where: Grid, centre_mm, sd_mm: float) -> torch.Tensor:
    """Gaussian of height 1 at a world position."""
    squared = (positions_mm(where) - torch.tensor(centre_mm, dtype=F64)).square().sum(-1)
    return torch.exp(-0.5 * squared / sd_mm**2)


def centroid_mm(image: torch.Tensor, where: Grid) -> np.ndarray:
    return ((positions_mm(where) * image[..., None]).sum((0, 1, 2)) / image.sum()).numpy()
