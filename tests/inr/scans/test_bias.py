"""A smooth bias field: known ones are found, a flat one stays flat, and it acts in the prediction."""

import math

import pytest
import torch
from operators import grid

from inr.scans.bias import BiasField, BiasSettings, _bending, biased, estimate_bias
from mrcore.data.acquisition import gaussian_psf
from mrcore.errors import BadInputError
from mrcore.forward import covering_grid, imaging_operator
from mrcore.noise import add_noise
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded

HEAD = digital_head(head_grid(40, 200.0))
PROB = HEAD.tissues.prob * HEAD.mask
LEVELS = torch.tensor([0.4, 0.8, 1.0])[:, None, None, None]
SPACING = HEAD.grid.spacing_mm


def known(strength: float) -> torch.Tensor:
    x, y, z = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in HEAD.grid.shape], indexing="ij")
    field = (strength * (x - 1.2 * (x**2 + y**2) + 0.6 * y * z)).exp()
    return field / field[HEAD.mask].log().mean().exp()


def image(field: torch.Tensor, noise_sd: float = 0.02) -> torch.Tensor:
    return add_noise((PROB * LEVELS).sum(0) * field, noise_sd, seeded(1, "bias"))


def test_a_known_field_is_found():
    truth = known(-0.2)
    found = estimate_bias(image(truth), PROB, SPACING).field()
    white = PROB[2] > 0.5
    left = (found / truth)[white].log()
    assert float(left.std()) < 0.2 * float(truth[white].log().std())
    assert abs(float(left.mean())) < 0.02


def test_no_bias_is_found_where_there_is_none_whatever_the_tissues():
    found = estimate_bias(image(torch.ones(HEAD.grid.shape)), PROB, SPACING).field()
    assert float((found[HEAD.mask] - 1).abs().max()) < 0.02
    assert float(found[PROB.sum(0) > 0.5].log().mean()) == pytest.approx(0.0, abs=2e-3)


def test_field_of_one_cosine_has_the_phase_of_voxel_centres():
    coefficients = torch.zeros(2, 1, 1)
    coefficients[1] = 0.3
    field = BiasField(coefficients, (4, 2, 2)).field()
    expected = 0.3 * torch.cos(torch.pi * (torch.arange(4) + 0.5) / 4)
    assert torch.allclose(field[:, 0, 0].log(), expected, atol=1e-6)


def test_stiffness_and_cutoff_bound_the_field():
    truth = known(0.2)
    soft, stiff = (estimate_bias(image(truth), PROB, SPACING, BiasSettings(stiffness=s)) for s in (0.01, 100.0))
    assert float(stiff.field().log().std()) < 0.5 * float(soft.field().log().std())
    assert estimate_bias(image(truth), PROB, SPACING, BiasSettings(cutoff_mm=500.0)).coefficients.shape == (1, 1, 1)


def test_prediction_sees_the_image_times_the_field():
    lattice = grid((8, 8, 8), (2.0, 2.0, 2.0))
    scan_grid = covering_grid(lattice, 4.0)
    plain = imaging_operator(lattice, scan_grid, gaussian_psf(scan_grid.spacing_mm))
    coefficients = torch.zeros(2, 2, 1)
    coefficients[1, 1] = 0.4
    bias = BiasField(coefficients, (8, 8, 8))
    x = torch.rand(8, 8, 8, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(biased(plain, bias)(x), plain(x * bias.field()), atol=1e-6)


def test_unusable_input_is_refused():
    with pytest.raises(BadInputError, match="different lattices"):
        estimate_bias(torch.ones(3, 3, 3), PROB, SPACING)
    with pytest.raises(BadInputError, match="500 voxels"):
        estimate_bias(image(known(0.1)), torch.zeros_like(PROB), SPACING)
    with pytest.raises(BadInputError, match="positive cutoff"):
        BiasSettings(cutoff_mm=0)


def test_bending_is_that_of_a_wave_of_200_mm():
    """Second derivatives by differences: how far waves of other lengths bend, against one of 200 mm over 100 mm."""

    def bent(n, fov_mm):
        at = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
        wave = torch.cos(math.pi * n * at)
        step = fov_mm / 4000
        return float((torch.diff(wave, n=2) / step**2).square().mean())

    fov_mm = [100.0, 160.0, 230.0]
    usual = bent(1, 100.0)
    found = _bending([4, 4, 4], fov_mm).reshape(4, 4, 4)
    for n in (1, 2, 3):
        assert float(found[n, 0, 0]) == pytest.approx(bent(n, 100.0) / usual, rel=1e-3)
        assert float(found[0, n, 0]) == pytest.approx(bent(n, 160.0) / usual, rel=1e-3)
        assert float(found[0, 0, n]) == pytest.approx(bent(n, 230.0) / usual, rel=1e-3)
    assert float(found[1, 0, 0]) == pytest.approx(1)
