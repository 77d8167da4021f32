from dataclasses import replace

import pytest
import torch

from mrcore.errors import BadInputError
from mrcore.noise import complex_noise
from mrcore.operators.pointwise import DiagonalOp
from mrcore.random import seeded
from recon.methods.baselines import (
    LlrSettings,
    LrtvSettings,
    _low_rank_blocks,
    _tv_prox,
    coefficient_scale,
    largest_eigenvalue,
    locally_low_rank,
    lrtv,
    mean_eigenvalue,
    noise_level,
    subspace_cg,
    svd_mrf,
)

METHODS = {
    "svd": svd_mrf,
    "cg": lambda encoding, samples: subspace_cg(encoding, samples).x,
    "lrtv": lambda encoding, samples: lrtv(encoding, samples).x,
    "llr": lambda encoding, samples: locally_low_rank(encoding, samples).x,
}


def truth(small_scan):
    coefficients = small_scan.signals.to(torch.complex64) @ small_scan.dictionary.subspace.basis.to(torch.complex64)
    x = torch.zeros((5, *small_scan.mask.shape), dtype=torch.complex64)
    x[:, small_scan.mask] = coefficients.T * small_scan.pd[small_scan.mask]
    return x


def draws(*shape, sd=1.0, seed=0):
    return complex_noise(shape, sd, seeded(seed, "draws"))


def off(x, true):
    return float((x - true).norm() / true.norm())


@pytest.mark.parametrize("method", METHODS)
def test_full_sampling_without_noise_gives_the_truth(small_scan, method):
    encoding, samples = small_scan.scan(1.0)
    assert off(METHODS[method](encoding, samples), truth(small_scan)) < 2e-3


@pytest.mark.parametrize("method", METHODS)
def test_units_of_data_and_weights_do_not_matter(small_scan, method):
    encoding, samples = small_scan.scan(0.2, noise_sd=0.01)
    plain = METHODS[method](encoding, samples)
    assert off(METHODS[method](encoding, 1e3 * samples), 1e3 * plain) < 1e-3
    heavier = replace(encoding, weights=9 * encoding.weights, normal=9 * encoding.normal)
    assert off(METHODS[method](heavier, samples), plain) < 1e-3


def test_penalties_take_away_noise_that_least_squares_keeps(small_scan):
    encoding, samples = small_scan.scan(0.05, noise_sd=0.01)
    true = truth(small_scan)
    left = {name: off(method(encoding, samples), true) for name, method in METHODS.items()}
    assert left["lrtv"] < 0.7 * left["cg"]
    assert left["llr"] < 0.9 * left["cg"]
    assert left["cg"] < 0.8 * left["svd"]


def test_ridge_shrinks(small_scan):
    encoding, samples = small_scan.scan(1.0)
    halved = subspace_cg(encoding, samples, ridge=1.0).x
    assert off(2 * halved, truth(small_scan)) < 2e-2  # the normal operator is about the identity here


def test_total_variation_is_minimised():
    x = draws(3, 12, 10, 1)

    def objective(z):
        steps = torch.zeros((2, *z.shape), dtype=z.dtype)
        steps[0, :, :-1], steps[1, :, :, :-1] = z.diff(dim=1), z.diff(dim=2)
        return float(0.5 * (z - x).abs().square().sum() + 0.7 * steps.abs().square().sum((0, 1)).sqrt().sum())

    found, _ = _tv_prox(x, 0.7, 400, None)
    least = objective(found)
    assert least < 0.9 * min(objective(x), objective(x.mean((1, 2, 3), keepdim=True).expand_as(x)))
    others = [objective(found + size * draws(3, 12, 10, 1, seed=s)) for s in range(3) for size in (1e-2, 1e-1)]
    assert least < min(others)
    assert torch.allclose(found.mean((1, 2, 3)), x.mean((1, 2, 3)), atol=1e-5)


def test_blocks_shrink_their_singular_values():
    x = draws(3, 4, 4, 1, seed=1)
    u, values, v = torch.linalg.svd(x.reshape(3, -1).T, full_matrices=False)
    expected = (u * (values - 1.5).clamp_min(0)) @ v
    assert torch.allclose(_low_rank_blocks(x, [4, 4, 1], 1.5).reshape(3, -1).T, expected, atol=1e-5)
    uneven = draws(3, 7, 5, 2, seed=2)
    assert torch.allclose(_low_rank_blocks(uneven, [4, 4, 2], 0.0), uneven, atol=1e-5)
    shrunk = _low_rank_blocks(uneven, [4, 4, 2], 1.5)
    alone = _low_rank_blocks(uneven[:, :4, :4], [4, 4, 2], 1.5)
    assert torch.allclose(shrunk[:, :4, :4], alone, atol=1e-5)


def test_eigenvalues_of_a_known_operator(small_scan):
    values = torch.linspace(0.5, 2.5, 5 * 24 * 24).reshape(5, 24, 24, 1)
    values[0, 0, 0] = 7.0
    known = replace(small_scan.scan(0.03)[0], normal=DiagonalOp(values.to(torch.complex64)))
    assert 7.0 < largest_eigenvalue(known) < 1.1 * 7.0
    assert mean_eigenvalue(known) == pytest.approx(1.5, rel=0.05)


def test_noise_is_found_in_the_last_coefficient(small_scan):
    x = 3 * truth(small_scan)
    x = x + draws(*x.shape, sd=0.2)
    assert noise_level(x) == pytest.approx(0.2, rel=0.12)
    assert noise_level(5 * x) == pytest.approx(5 * noise_level(x))
    assert coefficient_scale(torch.full((4, 9, 9, 1), 2.0)) == pytest.approx(4.0)


@pytest.mark.parametrize("wrong", [{"weight": -1.0}, {"n_iter": 0}])
def test_impossible_settings_are_refused(wrong):
    for settings in (LrtvSettings, LlrSettings):
        with pytest.raises(BadInputError, match="weight from 0"):
            settings(**wrong)


@pytest.mark.parametrize("solve", [subspace_cg, lrtv, locally_low_rank])
def test_every_step_is_told(small_scan, solve):
    seen = []
    solution = solve(*small_scan.scan(0.2, noise_sd=0.01), watch=lambda: seen.append(1))
    assert len(seen) == solution.n_iter == len(solution.history)


def test_noise_alone_goes_by_locally_low_rank_at_the_weight_that_is_said(small_scan):
    """Just above the square root of 2 nothing is left of it, well below much is."""
    encoding, samples = small_scan.scan(1.0)
    noise = complex_noise(tuple(samples.shape), 1.0, seeded(3, "noise alone"))
    start = subspace_cg(encoding, noise, 8).x.abs().square().sum()
    left = [
        float(locally_low_rank(encoding, noise, LlrSettings(weight=weight, n_iter=4)).x.abs().square().sum() / start)
        for weight in (0.7, 1.55)
    ]
    assert left[0] > 0.05
    assert left[1] < 1e-3
