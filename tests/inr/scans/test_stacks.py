"""Several stacks as data of one fit: likelihood, normal equations, refreshing, rejected slices, joint variation."""

import dataclasses

import numpy as np
import pytest
import torch
from operators import blob, grid

from inr.losses import data_term, total_variation
from inr.scans.alignment import AlignmentSettings, Pose, apart, posed
from inr.scans.stacks import Stack, Stacks, aligned, inside, mean_of, slice_weights, tikhonov_of
from mrcore.data.acquisition import gaussian_psf
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.forward import imaging_operator, predict
from mrcore.metrics.similarity import psnr
from mrcore.noise import add_noise
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded

SD = 0.03
SPACING = (6.0, 6.0, 12.0)
MOTION = (Pose(), Pose((2.0, -1.5, 2.5), (-2.5, 1.0, 3.0)), Pose((-1.0, 2.5, 1.5), (2.0, -3.0, 1.5)))
ORDERS = ((0, 1, 2), (1, 2, 0), (0, 2, 1))
BAD = 6


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(32, 192.0), seed=2)


def stack_of(image: Volume, order, pose: Pose, seed: int, contrast: int = 0) -> Stack:
    """Return a stack whose header knows nothing of `pose`."""
    header, psf = grid((32, 32, 16), SPACING, order=order), gaussian_psf(SPACING)
    clean = predict(imaging_operator(image.grid, posed(header, pose), psf), image.data)
    return Stack(Volume(add_noise(clean, SD, seeded(seed, "stack")), header), SD, psf, contrast)


@pytest.fixture(scope="module")
def three(head):
    """Axial, sagittal and coronal stacks of a moving head; two sagittal slices are lost and one is too bright."""
    stacks = [stack_of(head.image, order, pose, n) for n, (order, pose) in enumerate(zip(ORDERS, MOTION, strict=True))]
    data = stacks[1].scan.data.clone()
    data[:, :, BAD] *= 0.1
    stacks[1] = dataclasses.replace(stacks[1], scan=Volume(1.2 * data, stacks[1].scan.grid))
    return Stacks(tuple(stacks), head.grid, AlignmentSettings((6.0,)))


def known(data: Stacks) -> Stacks:
    pairs = zip(data.stacks, MOTION, (1.0, 1.2, 1.0), strict=True)
    return dataclasses.replace(data, stacks=tuple(dataclasses.replace(s, pose=p, scale=f) for s, p, f in pairs))


def test_misfit_of_one_stack_is_the_data_term(head, three):
    first = three.stacks[0]
    data = Stacks((first,), head.grid)
    images = head.image.data[None]
    term = data_term(data.operators[0], images[0], first.scan.data, SD)
    torch.testing.assert_close(data.misfit(images), term)
    assert data.n_values == first.scan.data.numel()


def test_hidden_voxels_say_nothing(head, three):
    """Whatever they hold: not the misfit, the start, nor the weight of their slice."""
    scan = three.stacks[0].scan
    hidden = torch.zeros(scan.grid.shape, dtype=torch.bool)
    hidden[14:18, 14:18, 8] = True
    part, other = (
        dataclasses.replace(
            three,
            stacks=(dataclasses.replace(three.stacks[0], scan=Volume(values, scan.grid), hidden=hidden),),
        )
        for values in (scan.data, scan.data + 3 * hidden)
    )
    images = head.image.data[None]
    assert other.misfit(images) == part.misfit(images)
    assert part.misfit(images) < Stacks(three.stacks[:1], head.grid).misfit(images)
    assert part.n_values == scan.data.numel() - 16
    assert torch.equal(other.right_hand_side(), part.right_hand_side())
    assert torch.equal(other.refreshed(images).stacks[0].slice_weights, part.refreshed(images).stacks[0].slice_weights)


def test_misfit_uses_scale_weights_and_contrast(head, three):
    weights = torch.linspace(0, 1, 16)
    second = dataclasses.replace(three.stacks[1], contrast=1, scale=1.2, slice_weights=weights)
    data = Stacks((three.stacks[0], second), head.grid)
    images = torch.stack([head.image.data, 0.5 * head.image.data])
    rest = Stacks((three.stacks[0],), head.grid).misfit(images[:1])
    predicted = 1.2 * predict(data.operators[1], images[1])
    z = (second.scan.data * predicted / SD**2).double()
    square = 0.5 * ((second.scan.data - predicted) / SD).square()
    nll = square - torch.special.i0e(z).log().float()
    torch.testing.assert_close(data.misfit(images) - rest, (nll * weights).sum(), rtol=1e-3, atol=1.0)


def test_normal_equations_are_the_gradient_of_the_gaussian_misfit(head):
    generator = seeded(0, "normal")
    where = grid((8, 9, 10), (2.0, 2.0, 2.0))
    stacks = []
    for contrast, degrees in enumerate(((0, 0, 0), (5, -4, 8), (0, 0, 0))):
        header = grid((4, 5, 3), (3.0, 3.0, 5.0), degrees=degrees)
        scan = Volume(torch.rand(header.shape, generator=generator, dtype=torch.float64), header)
        weights = torch.rand(3, generator=generator, dtype=torch.float64)
        stacks.append(Stack(scan, 0.2 + contrast, gaussian_psf((3.0, 3.0, 5.0)), contrast % 2, Pose(), 1.5, weights))
    data = Stacks(tuple(stacks), where)
    x = torch.rand((2, *where.shape), generator=generator, dtype=torch.float64, requires_grad=True)
    misfit = torch.zeros((), dtype=torch.float64)
    for stack, operator, weight in zip(data.stacks, data.operators, data.weights, strict=True):
        residual = stack.scan.data - stack.scale * operator(x[stack.contrast])
        misfit = misfit + (weight * residual.square()).sum() / (2 * stack.noise_sd**2)
    misfit.backward()
    torch.testing.assert_close(data.normal(x.detach()) - data.right_hand_side(), x.grad)


def test_voxels_that_leave_the_lattice_do_not_count():
    lattice = grid((10, 10, 10), (1.0, 1.0, 1.0))
    seen = inside(grid((10, 10, 4), (1.0, 1.0, 2.5), centre_mm=(0.0, 0.0, 2.0)), lattice)
    assert seen.all((0, 1)).tolist() == [True, True, True, False]
    assert not seen[:, :, 3].any()
    # Turned by 45 degrees about S a square's corners leave it; a voxel's own corners count.
    turned = inside(grid((10, 10, 1), (1.0, 1.0, 10.0), degrees=(0, 0, 45)), lattice)
    assert turned[:, :, 0].diagonal().tolist() == [False, False, *[True] * 6, False, False]


def test_mean_of_stacks_is_in_units_of_the_image(head, three):
    flat = [
        dataclasses.replace(stack, scan=Volume(torch.full(stack.grid.shape, stack.scale), stack.scan.grid))
        for stack in known(three).stacks
    ]
    mean = mean_of(dataclasses.replace(three, stacks=tuple(flat)))
    torch.testing.assert_close(mean, torch.ones(1, 32, 32, 32))
    # Where one stack ends the others count alone.
    less = dataclasses.replace(flat[1], pose=Pose(shift_mm=(40.0, 0.0, 0.0)))
    torch.testing.assert_close(mean_of(Stacks((flat[0], less), head.grid)), torch.ones(1, 32, 32, 32))


def test_stacks_find_one_another(head, three):
    found = aligned(three, 6.0)
    for stack, true in zip(found.stacks[1:], MOTION[1:], strict=True):
        left = apart(stack.pose, true, stack.scan.grid)
        assert left.angle_deg < 0.9
        assert left.distance_mm < 0.6
    assert found.stacks[0].pose == Pose()
    assert found.stacks[0].scale == 1
    assert found.stacks[1].scale == pytest.approx(1.2, abs=0.04)
    weights = found.stacks[1].slice_weights
    assert float(weights[BAD]) < 0.1
    assert float(weights.sum()) > 14
    best = psnr(head.image.data, tikhonov_of(known(found)).x[0], head.mask)
    score = psnr(head.image.data, tikhonov_of(found).x[0], head.mask)
    assert score > best - 0.4
    assert score > psnr(head.image.data, tikhonov_of(three).x[0], head.mask) + 1


def test_refreshing_moves_all_but_the_first_of_each_contrast(head, three):
    other = stack_of(head.image, ORDERS[2], MOTION[2], 5, contrast=1)
    data = Stacks((three.stacks[0], three.stacks[1], other), head.grid, AlignmentSettings((6.0,)))
    images = torch.stack([head.image.data, head.image.data])
    found = data.refreshed(images)
    assert found.stacks[0].pose == Pose()
    assert found.stacks[2].pose == Pose()
    left = apart(found.stacks[1].pose, MOTION[1], data.stacks[1].scan.grid)
    assert left.angle_deg < 0.5
    assert left.distance_mm < 0.2
    # The third stack's contrast has no other: where its pose is wrong, its image has to be.
    assert float(found.misfit(images)) < 0.6 * float(data.misfit(images))
    assert found.stacks[1].scale == pytest.approx(1.2, abs=0.03)
    # An image that is too dark everywhere leaves scales as they are.
    assert data.refreshed(0.9 * images).stacks[1].scale == pytest.approx(found.stacks[1].scale, abs=0.01)


def test_weight_of_a_slice_is_the_inverse_of_its_power_beyond_the_usual(head):
    header = grid((32, 32, 16), SPACING)
    signal = torch.full(header.shape, 1.0)
    noise = torch.randn(header.shape, generator=seeded(4, "slices"))
    data = signal + SD * noise
    data[:, :, 3] = 1.0 + 4 * SD * noise[:, :, 3]
    stack = Stack(Volume(data, header), SD, gaussian_psf(SPACING))
    found = slice_weights(stack, signal, torch.ones(header.shape, dtype=torch.bool))
    assert float(found[3]) == pytest.approx(3 / 16, rel=0.1)
    assert (found[torch.arange(16) != 3] == 1).all()


def test_joint_variation_counts_a_shared_edge_once():
    where = grid((12, 12, 12), (2.0, 2.0, 2.0))
    a = blob(where, (-3.0, 0.0, 0.0), 4.0)
    b = blob(where, (6.0, 0.0, -4.0), 4.0)
    spacing = where.spacing_mm
    torch.testing.assert_close(total_variation(a[None], spacing, 0.01), total_variation(a, spacing, 0.01))
    shared = float(total_variation(torch.stack([a, a]), spacing, 1e-6))
    assert shared == pytest.approx(np.sqrt(2) * float(total_variation(a, spacing, 1e-6)), rel=1e-4)
    elsewhere = float(total_variation(torch.stack([a, b]), spacing, 1e-6))
    assert elsewhere > 1.1 * shared


def test_bad_stacks_are_refused(head, three):
    first = three.stacks[0]
    with pytest.raises(BadInputError, match="without gaps"):
        Stacks((dataclasses.replace(first, contrast=1),), head.grid)
    with pytest.raises(BadInputError, match="16 slices along its axis 2"):
        dataclasses.replace(first, slice_weights=torch.ones(5))
    with pytest.raises(BadInputError, match="positive, finite noise_sd"):
        dataclasses.replace(first, noise_sd=0.0)
    with pytest.raises(BadInputError, match=r"shape \(1, 32, 32, 32\)"):
        three.misfit(torch.zeros(2, 32, 32, 32))
    with pytest.raises(BadInputError, match="no voxel of the stack"):
        Stacks((first,), grid((8, 8, 8), (2.0, 2.0, 2.0), centre_mm=(200.0, 0.0, 0.0)))
