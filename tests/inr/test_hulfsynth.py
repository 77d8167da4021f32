"""The published configuration: its numbers, its network, its loss, a fit of a small object."""

import dataclasses

import pytest
import torch
from operators import grid

from inr.hulfsynth import HulfSynthField, HulfSynthSettings, _loss, _nearest, fit_hulfsynth
from mrcore.data.grid import to_world
from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.errors import BadInputError, GridMismatchError

SCAN = grid((12, 12, 6), (2.0, 2.0, 4.0), (3, 4, 5), (10, 5, 0))
LATTICE = grid((12, 12, 12), (2.0, 2.0, 2.0), (3, 4, 5), (10, 5, 0))
QUICK = HulfSynthSettings(HulfSynthField(24, 2, 5.0, 2.0), n_steps=60, n_points=768, learning_rate=5e-3)


def scanned() -> tuple[Volume, TissueMap]:
    data = torch.zeros(SCAN.shape)
    data[:6] = 0.5
    data[6:] = 1.0
    prob = torch.zeros(3, *SCAN.shape)
    prob[1, :6], prob[2, 6:] = 1, 1
    prob[:, :, :2] = 0
    return Volume(data, SCAN), TissueMap(prob, TISSUES, SCAN)


def test_published_numbers():
    settings = HulfSynthSettings()
    assert (settings.n_steps, settings.n_points, settings.learning_rate) == (15000, 36864, 5e-5)
    assert (settings.intensity_weight, settings.late_factor, settings.tissue_weight) == (1e3, 0.1, 1e2)
    assert settings.field == HulfSynthField(128, 5, 20.0, 10.0)
    net = settings.field.build(LATTICE, 5, torch.Generator().manual_seed(0))
    assert sum(p.numel() for p in net.parameters()) == 2 * 128 * (4 + 4 * 129) + 5 * 129


def test_coordinates_run_from_minus_one_to_one():
    net = HulfSynthField(8, 1).build(SCAN, 2, torch.Generator().manual_seed(0))
    assert torch.allclose(net.per_mm[:, 0] * torch.tensor(SCAN.fov_mm), torch.full((3,), 2.0).double())


def test_loss_by_hand():
    settings = HulfSynthSettings(image_tv_weight=2.0, tissue_tv_weight=0.0, n_steps=10)
    n = 384
    outputs = torch.zeros(3, n)
    outputs[0] = torch.tensor([1.0, -1.0, 1.0, -1.0]).repeat(96)
    values, prob = torch.full((n,), 0.25), torch.tensor([[1.0], [0.0]]).expand(2, n)
    # ReLU leaves 1 and 0, both wrong by .75 and .25; even shares: overlaps 2 * .5 / 1.25 and 0; CE log 2.
    tissue = 1 - 0.4 + torch.tensor(2.0).log().item()
    # Along the last axis all differ by 2, along the other none.
    early, late = (_loss(outputs, values, prob, step, settings).item() for step in (4, 5))
    assert early == pytest.approx(1e3 * 0.5 + 1e2 * tissue + 2 * 2, rel=1e-5)
    assert late == pytest.approx(1e2 * 0.5 + 1e2 * tissue + 2 * 2, rel=1e-5)


def test_points_take_the_voxel_in_which_they_lie():
    voxels = torch.tensor([[0.4, 3.0, 2.4], [11.3, 0.0, -0.4], [40.0, 2.0, 5.0]]).numpy()
    found = _nearest(SCAN, to_world(SCAN, voxels))
    assert found.tolist() == [(0 * 12 + 3) * 6 + 2, (11 * 12 + 0) * 6 + 0, (11 * 12 + 2) * 6 + 5]


def test_it_learns_a_small_object_and_says_how_long_a_step_takes():
    scan, tissues = scanned()
    done = fit_hulfsynth(scan, tissues, LATTICE, 0, QUICK)
    assert done.image.grid.matches(LATTICE)
    assert done.image.data[:4].median() == pytest.approx(0.5, abs=0.15)
    assert done.image.data[8:].median() == pytest.approx(1.0, abs=0.15)
    inside = done.tissues.prob[:, :, 4:]
    assert inside[1, :4].mean() > 0.8
    assert inside[2, 8:].mean() > 0.8
    assert done.tissues.prob[:, :, 0].sum(0).mean() < 0.5, "the rest is background"
    assert len(done.solution.history) == 60
    assert 0 < done.seconds_per_step < 1


def test_same_seed_same_bytes():
    scan, tissues = scanned()
    quick = dataclasses.replace(QUICK, n_steps=3)
    one, same, other = (fit_hulfsynth(scan, tissues, LATTICE, seed, quick).image.data for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    "bad", [{"n_points": 1000}, {"n_steps": 0}, {"tissue_weight": -1.0}, {"learning_rate": 0.0}, {"late_at": -1.0}]
)
def test_settings_that_make_no_fit(bad):
    with pytest.raises(BadInputError, match="HULFSynth needs"):
        HulfSynthSettings(**bad)


def test_what_cannot_be_fitted():
    _, tissues = scanned()
    with pytest.raises(GridMismatchError):
        fit_hulfsynth(Volume(torch.zeros(LATTICE.shape), LATTICE), tissues, LATTICE, 0, QUICK)
    with pytest.raises(BadInputError, match="HULFSynth needs"):
        HulfSynthField(n_layers=0)
