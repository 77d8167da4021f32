"""Terms of the fit: hand values, units, gradients."""

import math

import pytest
import torch
from operators import blob, grid, imaging, numbers

from inr.losses import absolute_misfit, data_term, dice_cross_entropy, total_variation
from mrcore.forward import predict
from mrcore.noise import rician_nll

F64 = torch.float64
ONE_MM = (1.0, 1.0, 1.0)


def test_total_variation_of_one_step_is_height_times_area():
    """A step of 2 between two half spaces of 4 x 5 voxels: its area in mm^2 times 2, whatever the voxel."""
    image = torch.zeros(6, 4, 5, dtype=F64)
    image[3:] = 2.0
    for spacing in (ONE_MM, (1.6, 1.0, 1.0), (1.0, 2.0, 5.0), (0.5, 3.0, 0.7)):
        assert total_variation(image, spacing, 0.0).item() == pytest.approx(2 * 4 * 5 * spacing[1] * spacing[2])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_total_variation_of_a_ramp_is_slope_times_volume(axis):
    shape, spacing = (6, 7, 8), (1.6, 0.9, 5.0)
    view = [1, 1, 1]
    view[axis] = -1
    image = (0.3 * spacing[axis] * torch.arange(shape[axis], dtype=F64)).reshape(view).expand(shape)
    # The far face has no step: one voxel less along the axis.
    volume = math.prod(spacing) * math.prod(shape) * (shape[axis] - 1) / shape[axis]
    assert total_variation(image, spacing, 0.0).item() == pytest.approx(0.3 * volume)


def test_total_variation_is_isotropic():
    """A ramp in a diagonal plane: sqrt(3^2 + 4^2) = 5 per mm in every voxel inside, 3 or 4 at the far faces."""
    x, y = torch.arange(4, dtype=F64)[:, None, None], torch.arange(6, dtype=F64)[:, None]
    image = (3 * x + 4 * y).expand(4, 6, 2)
    assert total_variation(image, ONE_MM, 0.0).item() == pytest.approx(2 * (3 * 5 * 5 + 3 * 3 + 5 * 4))


def test_total_variation_does_not_depend_on_the_lattice():
    def of(spacing, smoothing):
        shape = tuple(round(48 / s) for s in spacing)
        where = grid(shape, spacing)
        return total_variation(blob(where, (0.3, -0.2, 0.1), 6.0), spacing, smoothing).item()

    # The integral of |grad| of a Gaussian of sd s in space is 8 pi s^2.
    for smoothing in (0.0, 0.01):
        fine = of(ONE_MM, smoothing)
        if smoothing == 0:
            assert fine == pytest.approx(8 * math.pi * 6.0**2, rel=0.01)
        assert of((2.0, 2.0, 2.0), smoothing) == pytest.approx(fine, rel=0.04)
        assert of((1.0, 1.0, 3.0), smoothing) == pytest.approx(fine, rel=0.04)


def test_smoothing_rounds_the_corner_and_counts_a_flat_image():
    flat = torch.full((3, 4, 5), 7.0, dtype=F64)
    assert total_variation(flat, (1, 2, 3), 0.01).item() == pytest.approx(0.01 * 60 * 6)
    step = flat.clone()
    step[2] += 0.3
    # 20 voxels hold a step of 0.3 per mm, 40 none.
    expected = 20 * math.hypot(0.3, 0.4) + 40 * 0.4
    assert total_variation(step, ONE_MM, 0.4).item() == pytest.approx(expected)


def test_gradient_of_total_variation():
    image = numbers(3, 4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: total_variation(x, (1.0, 1.6, 5.0), 0.1), image)


def test_data_term_is_the_rician_likelihood_of_the_prediction():
    operator = imaging(grid((5, 6, 4), (1.6, 1.7, 3.0)))
    image, scan = numbers(9, 10, 12).abs(), numbers(5, 6, 4, seed=1).abs()
    expected = rician_nll(predict(operator, image), scan, 0.3).sum()
    assert data_term(operator, image, scan, 0.3).item() == pytest.approx(expected.item(), rel=1e-12)
    # At high SNR: half the squared residual in units of sd, plus log sqrt(A M) that varies slowly.
    truth = torch.full_like(image, 50.0)
    gap = data_term(operator, truth, operator(truth) + 1.0, 0.5) - data_term(operator, truth, operator(truth), 0.5)
    assert gap.item() / scan.numel() == pytest.approx(0.5 / 0.25, rel=0.02)


def test_gradient_of_the_data_term():
    operator = imaging(grid((3, 3, 2), (3.0, 3.0, 6.0)))
    scan = numbers(3, 3, 2, seed=1).abs() + 1
    image = (numbers(9, 10, 12).abs() + 0.5).requires_grad_()
    gradient = torch.autograd.grad(data_term(operator, image, scan, 0.7), image)[0]
    direction = numbers(9, 10, 12, seed=4)
    ends = [data_term(operator, image.detach() + h * direction, scan, 0.7).item() for h in (1e-5, -1e-5)]
    assert (gradient * direction).sum().item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)


def test_dice_and_cross_entropy_hand_values():
    """Logits 0 give 1/2 everywhere; target: tissue 0 in one voxel of four."""
    target = torch.tensor([[1.0, 0, 0, 0], [0, 1, 1, 1]], dtype=F64)
    dice = [2 * 0.5 / (2 + 1), 2 * 1.5 / (2 + 3)]
    expected = math.log(2) + 1 - sum(dice) / 2
    assert dice_cross_entropy(torch.zeros(2, 4, dtype=F64), target).item() == pytest.approx(expected)


def test_certain_and_right_costs_nothing_certain_and_wrong_a_lot():
    target = torch.tensor([[1.0, 0, 0], [0, 1, 1]], dtype=F64)
    assert dice_cross_entropy(60 * target, target).item() == pytest.approx(0, abs=1e-12)
    assert dice_cross_entropy(60 * (1 - target), target).item() == pytest.approx(60 + 1, rel=1e-9)


def test_soft_targets_are_met_by_their_own_logarithm():
    target = torch.softmax(numbers(3, 20), 0)
    logits = target.log().requires_grad_()
    entropy = -(target * target.log()).sum(0).mean()
    loss = dice_cross_entropy(logits, target)
    overlap = (target.square().sum(1) / target.sum(1)).mean()
    assert loss.item() == pytest.approx((entropy + 1 - overlap).item())


def test_absent_tissue_is_not_a_division_by_zero():
    target = torch.tensor([[1.0, 1], [0, 0]], dtype=F64)
    logits = torch.tensor([[90.0, 90], [-90, -90]], dtype=F64, requires_grad=True)
    loss = dice_cross_entropy(logits, target)
    loss.backward()
    assert math.isfinite(loss.item())
    assert bool(torch.isfinite(logits.grad).all())


def test_gradient_of_dice_and_cross_entropy():
    target = torch.softmax(numbers(3, 6), 0)
    logits = numbers(3, 6, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: dice_cross_entropy(x, target), logits)


def test_absolute_misfit_is_the_likelihood_of_laplace_noise_of_the_same_sd():
    scan, sd = torch.tensor([1.0, 2.0, 4.0], dtype=F64), 0.3
    predictions = torch.tensor([[1.2, 2.5, 3.0], [0.9, 2.1, 4.4]], dtype=F64)
    of_sd = torch.distributions.Laplace(predictions, sd / math.sqrt(2))
    assert of_sd.stddev[0, 0].item() == pytest.approx(sd)
    one, two = (-of_sd.log_prob(scan)).sum(1).tolist()
    found = [absolute_misfit(row, scan, sd).item() for row in predictions]
    assert found[0] - found[1] == pytest.approx(one - two)
    weighted = absolute_misfit(predictions[0], scan, sd, torch.tensor([2.0, 2.0, 2.0], dtype=F64))
    assert weighted.item() == pytest.approx(2 * found[0])
