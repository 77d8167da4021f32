"""Scans one by one, as judges see them, and scans of which a fold is hidden."""

from dataclasses import replace

import pytest
import torch
from operators import grid

from inr.losses import absolute_misfit
from inr.scans.alignment import Pose
from inr.scans.heldout import filled, held_out, hide
from inr.scans.single import OneScan
from inr.scans.stacks import Stack, Stacks, tikhonov_of, with_biases
from mrcore.data.acquisition import gaussian_psf
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.forward import imaging_operator, predict
from mrcore.noise import add_noise
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded

SD = 0.03
SPACING = (6.0, 6.0, 12.0)
PSF = gaussian_psf(SPACING)
SCAN = grid((32, 32, 16), SPACING)


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(32, 192.0), seed=2)


@pytest.fixture(scope="module")
def two(head):
    """Two contrasts; the second scan is turned and twice as bright as its image."""
    images = torch.stack([head.image.data, (1.6 - head.image.data) * head.mask])
    poses, scales = (Pose(), Pose((0.0, 3.0, 0.0), (2.0, 0.0, 0.0))), (1.0, 2.0)
    plain = tuple(
        Stack(Volume(torch.ones(SCAN.shape), SCAN), SD * s, PSF, n, pose, s)
        for n, (pose, s) in enumerate(zip(poses, scales, strict=True))
    )
    clean = Stacks(plain, head.grid).predictions(images)
    scans = (
        Volume(add_noise(c, stack.noise_sd, seeded(n, "two")), SCAN)
        for n, (c, stack) in enumerate(zip(clean, plain, strict=True))
    )
    stacks = tuple(replace(stack, scan=scan) for stack, scan in zip(plain, scans, strict=True))
    return Stacks(stacks, head.grid), images


def test_a_view_is_the_scan_relative_to_its_image(two):
    data, images = two
    first, second = data.views()
    assert (first.contrast, second.contrast) == (0, 1)
    assert second.noise_sd == pytest.approx(SD)
    assert torch.equal(second.scan, data.stacks[1].scan.data / 2)
    for view, predicted, stack in zip(data.views(), data.predictions(images), data.stacks, strict=True):
        assert torch.allclose(stack.scale * predict(view.operator, images[view.contrast]), predicted, atol=1e-6)
        assert float(((view.scan - predict(view.operator, images[view.contrast])) / view.noise_sd).std()) < 1.2


def test_the_view_of_one_scan_is_the_scan(head):
    operator = imaging_operator(head.grid, SCAN, PSF)
    (view,) = OneScan(operator(head.image.data), operator, SD).views()
    assert view.weight is None
    assert torch.equal(view.operator(head.image.data), view.scan)


def test_several_scans_have_the_likelihood_that_was_asked_for(two):
    data, images = two
    absolute = replace(data, likelihood=absolute_misfit)
    scan = data.stacks[0].scan.data.clone()
    scan[16, 16, 8] += 10
    stacks = (replace(data.stacks[0], scan=Volume(scan, SCAN)), data.stacks[1])
    cost = [float(replace(d, stacks=stacks).misfit(images) - d.misfit(images)) for d in (data, absolute)]
    # A spike of 333 sd costs about its square by half in the one, about its size in the other.
    assert cost[0] == pytest.approx(0.5 * (10 / SD) ** 2, rel=0.05)
    assert cost[1] < 0.05 * cost[0]
    assert cost[1] == pytest.approx(10 / SD, rel=0.5)


def test_receive_fields_are_in_the_prediction_and_not_in_the_images(two, head):
    data, images = two
    x = torch.linspace(0.8, 1.25, 32)[:, None, None]
    shown = tuple(
        replace(s, scan=Volume(p, SCAN)) for s, p in zip(data.stacks, data.predictions(images * x), strict=True)
    )
    found, start = with_biases(replace(data, stacks=shown), images * x, head.tissues.prob)
    inside = head.tissues.of("WM") > 0.9
    # The field has no scale of its own: its geometric mean in the brain is 1.
    ratio = (start[0] / images[0])[inside]
    assert float(ratio.std() / ratio.mean()) < 0.3 * float((x.expand(32, 32, 32)[inside]).std())
    for view, scan in zip(found.views(), found.stacks, strict=True):
        there = predict(view.operator, start[view.contrast])
        assert torch.allclose(there, scan.scan.data / scan.scale, atol=2e-3)
    with pytest.raises(BadInputError, match="receive fields"):
        replace(found, biases=found.biases[:1])


def test_a_part_knows_nothing_of_what_is_hidden(two):
    data, _ = two
    part = hide(data, SPACING, fold=3, seed=5)
    assert part.seed == 5
    for at, view in zip(part.held_out, data.views(), strict=True):
        assert torch.equal(at, held_out(SCAN.shape, 3))
        assert tuple(at.shape) == tuple(view.scan.shape)
    spoilt = [torch.where(at, 7.0, stack.scan.data) for at, stack in zip(part.held_out, data.stacks, strict=True)]
    stacks = tuple(replace(s, scan=Volume(values, SCAN)) for s, values in zip(data.stacks, spoilt, strict=True))
    again = hide(replace(data, stacks=stacks), SPACING, fold=3, seed=5)
    assert torch.equal(tikhonov_of(part.data).x, tikhonov_of(again.data).x)
    for ours, theirs, view, at in zip(part.filled, again.filled, data.views(), part.held_out, strict=True):
        assert torch.equal(ours, theirs)
        assert torch.equal(ours[~at], view.scan[~at])
        assert torch.allclose(ours, filled(view.scan, at, SPACING))


def test_what_was_hidden_before_stays_hidden(two):
    data, _ = two
    before = torch.zeros(SCAN.shape, dtype=torch.bool)
    before[:, :, 7] = True
    stacks = tuple(replace(stack, hidden=before) for stack in data.stacks)
    part = hide(replace(data, stacks=stacks), SPACING, fold=0, seed=0)
    for weight, at in zip(part.data.weights, part.held_out, strict=True):
        assert not bool(weight[:, :, 7].any())
        assert not bool(weight[at].any())
