import math

import numpy as np
import pytest
import torch
from operators import numbers

from mrcore.data.grid import Grid
from mrcore.errors import BadInputError
from mrcore.operators.linop import LinearOp
from mrcore.solvers import conjugate_gradient
from recon.encoding.encoding import Encoding, subspace_encoding
from recon.encoding.operators import FusedNormalOp, PickOp, SubspaceOp
from recon.encoding.subspace import Subspace
from recon.encoding.toeplitz import KernelNormalOp, toeplitz_normal
from recon.trajectories.builders import cartesian, radial, spiral_projection
from recon.trajectories.trajectory import Trajectory

F64, C128 = torch.float64, torch.complex128
N_FRAMES, RANK, N_COILS = 9, 3, 2
SLICE = Grid((10, 7, 1), np.diag([2.0, 2.5, 4.0, 1.0]))
VOLUME = Grid((6, 5, 4), np.diag([2.0, 2.5, 4.0, 1.0]))


def subspace(dtype: torch.dtype = C128) -> Subspace:
    basis = torch.linalg.qr(numbers(N_FRAMES, RANK, dtype=dtype, seed=4)).Q
    return Subspace(basis, torch.full((N_FRAMES,), 1 / N_FRAMES))


def coil_maps(grid: Grid) -> torch.Tensor:
    return numbers(N_COILS, *grid.shape, dtype=C128, seed=5)


def mask(grid: Grid, share: float = 0.4) -> torch.Tensor:
    return torch.rand(N_FRAMES, *grid.shape, generator=torch.Generator().manual_seed(6)) < share


def trajectories() -> dict[str, Trajectory]:
    return {
        "few lines": radial(SLICE, N_FRAMES, n_samples=7),
        "many lines": radial(SLICE, N_FRAMES, lines_per_frame=2, n_samples=20),
        "few arms": spiral_projection(VOLUME, N_FRAMES, 4, 1, n_samples=7),
        "many arms": spiral_projection(VOLUME, N_FRAMES, 4, 2, n_samples=20),
        "mask of a slice": cartesian(mask(SLICE), SLICE),
        "mask of a volume": cartesian(mask(VOLUME), VOLUME),
    }


def encoding(name: str, dtype: torch.dtype = C128, weights: torch.Tensor | None = None) -> Encoding:
    trajectory = trajectories()[name]
    return subspace_encoding(trajectory, subspace(dtype), coil_maps(trajectory.grid), weights)


@pytest.mark.parametrize("dtype", [F64, C128])
@pytest.mark.parametrize("name", trajectories())
def test_samples_are_the_sum_of_the_definition(name, dtype):
    trajectory, x = trajectories()[name], numbers(RANK, *trajectories()[name].grid.shape, dtype=C128)
    grid, basis, maps = trajectory.grid, subspace(dtype).basis, coil_maps(trajectory.grid)
    axes = [(torch.arange(n, dtype=F64) - n // 2) * s for n, s in zip(grid.shape, grid.spacing_mm, strict=True)]
    place_mm = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    wave = torch.exp(-2j * math.pi * (trajectory.k_cyc_per_mm.double() @ place_mm.T)) / math.sqrt(len(place_mm))
    series = torch.einsum("tk,kxyz->txyz", basis.to(C128), x)  # all frames, then the samples of each
    y = torch.einsum("nr,cr,nr->cn", wave, maps.reshape(N_COILS, -1), series.reshape(N_FRAMES, -1)[trajectory.frame])
    torch.testing.assert_close(encoding(name, dtype).operator(x), y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [F64, C128])
@pytest.mark.parametrize("name", trajectories())
def test_every_normal_operator_is_adjoint_weight_forward(name, dtype):
    trajectory = trajectories()[name]
    weights = torch.rand(trajectory.n_samples, generator=torch.Generator().manual_seed(7), dtype=F64)
    built = encoding(name, dtype, weights)
    x = numbers(2, RANK, *trajectory.grid.shape, dtype=C128)
    wanted = built.operator.H(weights * built.operator(x))
    candidates: list[LinearOp] = [built.normal, FusedNormalOp(built.operator, weights)]
    if "mask" not in name:
        candidates.append(toeplitz_normal(built.operator, weights))
    for normal in candidates:
        torch.testing.assert_close(normal(x), wanted, rtol=1e-9, atol=1e-9 * float(wanted.abs().max()))
    torch.testing.assert_close(built.right_hand_side(built.operator(x[0])), wanted[0])


def test_the_faster_normal_operator_is_chosen():
    chosen = {name: type(encoding(name).normal) for name in trajectories()}
    assert chosen == {name: FusedNormalOp if "few" in name else KernelNormalOp for name in trajectories()}
    trajectory = trajectories()["many arms"]
    for limit, wanted in ((6 * 8 * 120 * 16, KernelNormalOp), (6 * 8 * 120 * 16 - 1, FusedNormalOp)):
        built = subspace_encoding(trajectory, subspace(), coil_maps(VOLUME), max_kernel_bytes=limit)
        assert type(built.normal) is wanted


def test_kernels_of_real_bases_are_real():
    assert encoding("many lines", F64).normal.kernel.dtype == F64
    assert encoding("mask of a slice", F64).normal.kernel.dtype == F64


def test_full_sampling_of_every_frame_is_the_identity():
    trajectory = cartesian(torch.ones(N_FRAMES, *VOLUME.shape, dtype=torch.bool), VOLUME)
    maps = coil_maps(VOLUME)
    maps = maps / maps.abs().square().sum(0).sqrt()
    x = numbers(RANK, *VOLUME.shape, dtype=C128)
    torch.testing.assert_close(subspace_encoding(trajectory, subspace(), maps).normal(x), x)


@pytest.mark.parametrize("name", ["many lines", "many arms", "mask of a volume"])
def test_conjugate_gradients_explain_the_samples(name):
    built = encoding(name, F64)
    x = numbers(*built.operator.shape_in, dtype=C128)
    y = built.operator(x)
    solution = conjugate_gradient(built.normal, built.right_hand_side(y), max_iter=100)
    assert (built.operator(solution.x) - y).norm() < 1e-2 * y.norm()


def test_precision_follows_the_coil_maps():
    trajectory = trajectories()["many lines"]
    single = subspace_encoding(trajectory, subspace(F64), coil_maps(SLICE).to(torch.complex64))
    x = numbers(RANK, *SLICE.shape, dtype=C128)
    error = single.normal(x.to(torch.complex64)) - encoding("many lines", F64).normal(x)
    assert error.norm() < 1e-3 * encoding("many lines", F64).normal(x).norm()
    assert (single.n_coils, single.rank, single.weights.dtype) == (N_COILS, RANK, torch.float32)


def test_repeated_samples_add_up_in_the_adjoint():
    op = PickOp((2, 2), torch.tensor([3, 0, 3]), F64)
    assert op(torch.arange(4.0, dtype=F64).reshape(2, 2)).tolist() == [3, 0, 3]
    assert op.H(torch.tensor([1.0, 2.0, 4.0], dtype=F64)).tolist() == [[2, 0], [0, 5]]


def short_basis() -> Subspace:
    return Subspace(subspace().basis[:5] @ torch.linalg.inv(torch.linalg.qr(subspace().basis[:5]).R), torch.ones(5))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda t: subspace_encoding(t, short_basis(), coil_maps(SLICE)), "of 5 frames, the trajectory has 9"),
        (lambda t: subspace_encoding(t, subspace(), coil_maps(VOLUME)), r"complex \(C, 10, 7, 1\)"),
        (lambda t: subspace_encoding(t, subspace(), coil_maps(SLICE).real), r"coil maps must be complex"),
        (lambda t: subspace_encoding(t, subspace(), coil_maps(SLICE), -torch.ones(t.n_samples)), "numbers from 0"),
        (lambda t: subspace_encoding(t, subspace(), coil_maps(SLICE), torch.ones(3)), r"got torch.float32 .*\[3\]"),
        (lambda t: PickOp((2, 2), torch.tensor([4])), "stay below that, got 4"),
        (lambda t: PickOp((2, 2), torch.tensor([-1])), "indices from 0"),
        (lambda t: KernelNormalOp(numbers(5, 20, 14, 1), coil_maps(SLICE)), r"K \(K \+ 1\) / 2"),
        (lambda t: KernelNormalOp(numbers(6, 9, 14, 1), coil_maps(SLICE)), "none smaller"),
        (lambda t: toeplitz_normal(encoding("mask of a slice").operator, torch.ones(3)), "cartesian_normal"),
    ],
)
def test_what_does_not_fit_is_refused(build, message):
    with pytest.raises(BadInputError, match=message):
        build(trajectories()["many lines"])


def test_operator_keeps_one_coil_at_a_time():
    built = encoding("many lines")
    assert isinstance(built.operator, SubspaceOp)
    x = numbers(RANK, *SLICE.shape, dtype=C128)
    y = torch.stack([built.operator.samples_of_coil(x, c) for c in range(N_COILS)])
    torch.testing.assert_close(built.operator(x), y)
