"""The weight of total variation is chosen by what the scan itself shows."""

import pytest
import torch
from operators import grid

from inr.fitting.choice import Choice, choose_tv_weight, choose_tv_weight_of, lowest
from inr.scans.stacks import Stack, Stacks
from mrcore.data.acquisition import gaussian_psf
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.forward import imaging_operator, predict
from mrcore.noise import add_noise
from mrcore.random import seeded

LATTICE, SCAN = grid((18, 18, 15), (2.0,) * 3), grid((18, 18, 6), (2.0, 2.0, 5.0))
OPERATOR = imaging_operator(LATTICE, SCAN, gaussian_psf(SCAN.spacing_mm))
INSIDE = torch.zeros(SCAN.shape, dtype=torch.bool)
INSIDE[3:-3, 3:-3, 1:-1] = True


def chosen(truth, noise_sd) -> Choice:
    scan = add_noise(predict(OPERATOR, truth), noise_sd, seeded(1, "test_choice"))
    return choose_tv_weight(Volume(scan, SCAN), OPERATOR, LATTICE, noise_sd, INSIDE, (0.1, 10.0), (9,))


def test_what_has_no_edges_wants_the_most_regularisation():
    rough = 1 + 0.2 * torch.randn(LATTICE.shape, generator=seeded(0, "texture"))
    of_flat, of_rough = chosen(torch.ones(LATTICE.shape), 0.05), chosen(rough, 0.01)
    assert of_flat.rms[-1] == pytest.approx(1.0, abs=0.2), "a flat image is predicted up to its noise"
    assert of_rough.weight < of_flat.weight
    assert of_flat.weight > 1
    assert min(of_rough.rms) < of_rough.rms_cubic, "a model and a prior know more than interpolation"
    assert f"{of_flat.n_voxels} held-out" in of_flat.message


def test_the_lowest_point_of_a_parabola_is_found():
    weights = (0.5, 1.0, 2.0, 4.0)
    errors = [3 + (torch.tensor(w / 1.3).log().item()) ** 2 for w in weights]
    assert lowest(weights, errors) == pytest.approx(1.3)
    assert lowest(weights, [1.0, 2.0, 3.0, 4.0]) == 0.5
    assert lowest(weights, [4.0, 3.0, 2.0, 1.0]) == 4.0


@pytest.mark.parametrize("weights", [(), (1.0, 1.0), (0.0, 1.0)])
def test_candidates_that_cannot_be(weights):
    with pytest.raises(BadInputError, match="rise"):
        choose_tv_weight(Volume(torch.ones(SCAN.shape), SCAN), OPERATOR, LATTICE, 0.1, INSIDE, weights)


def test_a_mask_without_held_out_voxels():
    with pytest.raises(BadInputError, match="no held-out voxel"):
        choose_tv_weight(Volume(torch.ones(SCAN.shape), SCAN), OPERATOR, LATTICE, 0.1, ~torch.ones_like(INSIDE))


def chosen_of(truths, noise_sd) -> Choice:
    """Of two stacks, across and along: of one contrast, or of two where there are two truths."""
    stacks = []
    for number, (shape, spacing) in enumerate((((18, 18, 6), (2.0, 2.0, 5.0)), ((6, 18, 15), (6.0, 2.0, 2.0)))):
        contrast = min(number, len(truths) - 1)
        where, psf = grid(shape, spacing), gaussian_psf(spacing)
        clean = predict(imaging_operator(LATTICE, where, psf), truths[contrast])
        scan = add_noise(clean, noise_sd, seeded(number, "test_choice:several"))
        stacks.append(Stack(Volume(300.0 * scan, where), 300.0 * noise_sd, psf, contrast, scale=300.0))
    masks = [torch.ones(stack.scan.grid.shape, dtype=torch.bool) for stack in stacks]
    return choose_tv_weight_of(Stacks(tuple(stacks), LATTICE), masks, (0.1, 10.0))


@pytest.mark.parametrize("n_contrasts", [1, 2])
def test_several_scans_choose_as_one_does(n_contrasts):
    rough = [1 + 0.2 * torch.randn(LATTICE.shape, generator=seeded(n, "texture")) for n in range(n_contrasts)]
    of_flat, of_rough = chosen_of([torch.ones(LATTICE.shape)] * n_contrasts, 0.05), chosen_of(rough, 0.01)
    assert of_flat.rms[-1] == pytest.approx(1.0, abs=0.2), "a flat image is predicted up to its noise"
    assert of_flat.weight == 10.0
    assert of_rough.weight == 0.1
    assert min(of_rough.rms) < of_rough.rms_cubic
    assert of_flat.n_voxels == pytest.approx((18 * 18 * 6 + 6 * 18 * 15) / 25, rel=0.05)


def test_scans_without_held_out_voxels_or_candidates():
    data = Stacks((Stack(Volume(torch.ones(SCAN.shape), SCAN), 0.1, gaussian_psf(SCAN.spacing_mm)),), LATTICE)
    with pytest.raises(BadInputError, match="no held-out voxel"):
        choose_tv_weight_of(data, [torch.zeros(SCAN.shape, dtype=torch.bool)])
    with pytest.raises(BadInputError, match="rise"):
        choose_tv_weight_of(data, [torch.ones(SCAN.shape, dtype=torch.bool)], (2.0, 1.0))
