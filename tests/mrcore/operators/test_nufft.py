import math

import pytest
import torch
from operators import numbers, positions

from mrcore.errors import BadInputError, MissingExtraError
from mrcore.operators.fourier import FourierOp
from mrcore.operators.nufft import NufftOp

F64, C128 = torch.float64, torch.complex128
SPACING = (1.5, 2.0, 3.0)


def frequencies(shape: tuple[int, int, int]) -> torch.Tensor:
    """Frequencies (N, 3) of the centred DFT in cycles/mm."""
    axes = [(torch.arange(n, dtype=F64) - n // 2) / (n * s) for n, s in zip(shape, SPACING, strict=True)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


@pytest.mark.parametrize("shape", [(6, 4, 8), (5, 3, 7), (6, 5, 4), (8, 7, 1), (1, 6, 1), (4, 1, 5)])
def test_a_cartesian_trajectory_is_the_dft(shape):
    x = numbers(2, *shape, dtype=C128)
    op = NufftOp(frequencies(shape), shape, SPACING, C128)
    torch.testing.assert_close(op(x).reshape(x.shape), FourierOp(shape, C128)(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("voxel", [(0, 0, 0), (3, 2, 4), (5, 3, 1)])
def test_a_point_is_a_wave_of_known_phase(voxel):
    shape, k = (6, 5, 8), positions(20) / 2
    x = torch.zeros(shape, dtype=C128)
    x[voxel] = 2.0
    place_mm = torch.tensor([(v - n // 2) * s for v, n, s in zip(voxel, shape, SPACING, strict=True)], dtype=F64)
    wave = torch.exp(-2j * math.pi * (k @ place_mm)) * 2 / math.sqrt(math.prod(shape))
    torch.testing.assert_close(NufftOp(k, shape, SPACING, C128)(x), wave, rtol=1e-10, atol=1e-10)


def test_one_slice_takes_two_columns_or_any_kz():
    x, k = numbers(6, 5, 1, dtype=C128), positions(20)
    op = NufftOp(k, (6, 5, 1), SPACING, C128)
    torch.testing.assert_close(NufftOp(k[:, :2].contiguous(), (6, 5, 1), SPACING, C128)(x), op(x))


def test_single_precision_is_as_exact_as_it_says():
    shape, k = (32, 24, 1), positions(400)
    x = numbers(*shape, dtype=C128)
    exact = NufftOp(k, shape, SPACING, C128)(x)
    for tolerance in (1e-2, 1e-4, 1e-6):
        error = NufftOp(k, shape, SPACING, tolerance=tolerance)(x.to(torch.complex64)) - exact
        assert error.norm() < 3 * tolerance * exact.norm()


def test_plans_serve_batches_of_any_size():
    op = NufftOp(positions(20), (6, 5, 4), SPACING, C128)
    x = numbers(3, 6, 5, 4, dtype=C128)
    for n in (3, 1, 2, 0, 3):
        torch.testing.assert_close(op(x[:n]), torch.stack([op(image) for image in x])[:n])
        assert op.H(op(x[:n])).shape == (n, 6, 5, 4)


def test_many_samples_give_the_same_with_threads():
    n_threads = torch.get_num_threads()
    op = NufftOp(positions(30_000), (16, 16, 1), SPACING, C128)
    y = numbers(30_000, dtype=C128)
    try:
        torch.set_num_threads(1)
        alone = op.H(y)
        torch.set_num_threads(2)
        torch.testing.assert_close(op.to("cpu").H(y), alone, rtol=1e-9, atol=1e-9)
    finally:
        torch.set_num_threads(n_threads)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: NufftOp(positions(5)[:, :2], (4, 4, 4), SPACING), r"shape \(N, 3\), got \(5, 2\)"),
        (lambda: NufftOp(positions(5), (4, 4), SPACING[:2]), r"shape \(N, 2\), got \(5, 3\)"),
        (lambda: NufftOp(positions(5), (4, 4, 4), (1.0, 0.0, 1.0)), "a spacing in mm each"),
        (lambda: NufftOp(positions(5) / 0, (4, 4, 4), SPACING), "finite"),
        (lambda: NufftOp(positions(5).requires_grad_(), (4, 4, 4), SPACING), "constants"),
    ],
)
def test_refuses_what_does_not_fit(build, message):
    with pytest.raises(BadInputError, match=message):
        build()


def test_a_gpu_without_its_library_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cufinufft", None)
    op = NufftOp(positions(5), (4, 4, 4), SPACING, device="meta")
    with pytest.raises(MissingExtraError, match=r"mrkit\[gpu\]"):
        op(torch.zeros(4, 4, 4, dtype=torch.complex64, device="meta"))
