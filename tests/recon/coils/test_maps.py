import math
import sys

import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid, cropped
from mrcore.errors import BadInputError, MissingExtraError
from mrcore.phantom import digital_head, head_grid
from mrcore.signals.mrf_sequence import MrfSequence
from recon.coils.channels import compressed, noise_covariance, whitened
from recon.coils.loops import loop_coil_maps
from recon.coils.maps import coil_maps_from_data, espirit_maps, low_resolution_images
from recon.rawdata import RawData
from recon.simulation import simulate_raw
from recon.trajectories.builders import radial
from recon.trajectories.density import density_compensation

FLIPS = 10 + 30 * torch.sin(torch.linspace(0, math.pi, 200)) ** 2
SEQUENCE = MrfSequence(FLIPS, torch.tensor(0.012), torch.tensor(0.002), ti_s=0.02)


@pytest.fixture(scope="module")
def scan():
    head = digital_head(head_grid(48, 220.0))
    grid = cropped(head.grid, (0, 0, 26), (48, 48, 1))
    t1_s, t2_s, pd = (maps[..., 26:27].contiguous() for maps in (head.t1_s, head.t2_s, head.pd))
    coils = loop_coil_maps(grid)
    raw = simulate_raw(t1_s, t2_s, pd.to(torch.complex64), SEQUENCE, radial(grid, 200), coils, snr=20.0, n_noise=500)
    return raw, pd > 0.3, coils / coils.abs().square().sum(0).sqrt()


@pytest.fixture(scope="module")
def weights(scan):
    return density_compensation(scan[0].trajectory)


def angle(maps, true, mask):
    """Return the sine of the angle between the directions of the coils, and the phase between them."""
    product = (maps.conj() * true).sum(0)[mask]
    return (1 - product.abs().square()).clamp_min(0).sqrt(), product.angle()


def test_maps_from_the_data_are_those_of_the_simulation(scan, weights):
    raw, mask, true = scan
    maps = coil_maps_from_data(raw, weights)
    torch.testing.assert_close(maps.abs().square().sum(0), torch.ones(raw.grid.shape), rtol=0, atol=1e-4)
    error, phase = angle(maps, true, mask)
    assert error.quantile(0.5) < 0.03
    assert error.quantile(0.95) < 0.08
    # The phase of the maps is smooth: against the true ones it turns by less than half a radian over the head.
    assert (phase - phase.median()).abs().quantile(0.99) < 0.5


def test_maps_turn_with_the_channels(scan, weights):
    raw, mask, true = scan
    swapped = RawData(raw.samples.flip(0), raw.trajectory)
    assert angle(coil_maps_from_data(swapped, weights).flip(0), true, mask)[0].quantile(0.95) < 0.08


def test_low_resolution_images_are_those_of_the_window():
    grid = Grid((32, 32, 1), np.eye(4))
    one = torch.zeros(grid.shape, dtype=torch.complex64)
    one[16, 16] = 1.0  # a point at the origin: the image is the transform of the window
    times = torch.ones(grid.shape)
    coil = torch.ones((1, *grid.shape), dtype=torch.complex64)
    raw = simulate_raw(times, 0.1 * times, one, SEQUENCE, radial(grid, 200), coil)
    images = low_resolution_images(raw, density_compensation(raw.trajectory), radius=8.0)
    assert images.shape == (5, 1, 32, 32, 1)
    assert images[:, 0].abs().reshape(5, -1).argmax(1).tolist() == [16 * 32 + 16] * 5
    with pytest.raises(BadInputError, match="no samples lie within"):
        low_resolution_images(raw, torch.zeros(raw.n_samples))
    with pytest.raises(BadInputError, match="one for each of"):
        low_resolution_images(raw, torch.ones(5))


def test_espirit_needs_its_library(scan, weights, monkeypatch):
    monkeypatch.setitem(sys.modules, "sigpy.mri.app", None)
    with pytest.raises(MissingExtraError, match=r"mrkit\[sigpy\]"):
        espirit_maps(scan[0], weights)


def test_espirit_agrees(scan, weights):
    pytest.importorskip("sigpy")
    raw, mask, true = scan
    maps = espirit_maps(raw, weights)
    seen = mask & (maps.abs().sum(0) > 0)
    assert seen.sum() > 0.9 * mask.sum()
    assert angle(maps, true, seen)[0].quantile(0.5) < 0.08


def test_whitening_leaves_noise_of_sd_one_in_every_channel():
    grid = Grid((8, 8, 1), np.eye(4))
    trajectory = radial(grid, 500)
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn((3, 3), dtype=torch.complex128, generator=generator)
    noise = 5 * mixing @ torch.randn((3, 20_000), dtype=torch.complex128, generator=generator)
    samples = 5 * mixing @ torch.randn((3, trajectory.n_samples), dtype=torch.complex128, generator=generator)
    white = whitened(RawData(samples, trajectory, noise))
    for values in (white.samples, white.noise):
        torch.testing.assert_close(
            noise_covariance(values), 2 * torch.eye(3, dtype=torch.complex128), rtol=0, atol=0.15
        )
        assert values.real.std().item() == pytest.approx(1, abs=0.03)
    torch.testing.assert_close(whitened(RawData(samples, trajectory), noise_covariance(noise)).samples, white.samples)
    with pytest.raises(BadInputError, match="no noise scan"):
        whitened(RawData(samples, trajectory))
    with pytest.raises(BadInputError, match="singular"):
        whitened(RawData(samples, trajectory, noise * torch.tensor([1, 0, 1])[:, None]))
    twice = noise.to(torch.complex64)[[0, 1, 1]]
    with pytest.raises(BadInputError, match="given twice"):
        whitened(RawData(samples, trajectory, twice))
    with pytest.raises(BadInputError, match="needs 6 samples"):
        whitened(RawData(samples, trajectory, noise[:, :5]))


def test_compression_keeps_the_energy_and_the_noise(scan):
    raw = scan[0]
    fewer = compressed(raw, energy=0.95)
    assert fewer.n_coils < raw.n_coils
    energy = [data.samples.abs().square().sum().item() for data in (raw, fewer, compressed(raw, fewer.n_coils - 1))]
    assert energy[2] / energy[0] < 0.95 <= energy[1] / energy[0]
    assert fewer.noise.real.std().item() == pytest.approx(raw.noise.real.std().item(), rel=0.1)
    assert compressed(raw, energy=1.0).n_coils == raw.n_coils
    with pytest.raises(BadInputError, match="1 to 8 coils"):
        compressed(raw, n_coils=9)


def test_a_loop_has_the_field_of_the_closed_form():
    # On the axis of a loop of radius a the field falls as (a^2 + z^2)^(-3/2).
    grid = Grid((81, 1, 1), np.diag([2.0, 2.0, 2.0, 1.0]))
    maps = loop_coil_maps(grid, n_coils=1, distance=1.0)[0, :, 0, 0]
    ring, radius = 162.0, 1.1 * 162 * math.sin(math.pi / 3)
    distance = ring - (torch.arange(81) - 40) * 2.0
    expected = ((radius**2 + ring**2) / (radius**2 + distance**2)) ** 1.5
    torch.testing.assert_close(maps.abs(), expected, rtol=0.01, atol=0)


def test_loops_stand_in_a_ring():
    maps = loop_coil_maps(Grid((33, 33, 1), np.diag([6.0, 6.0, 6.0, 1.0])), n_coils=4)
    assert maps.abs().square().sum(0).sqrt()[16, 16, 0].item() == pytest.approx(1, rel=1e-3)
    brightest = [divmod(int(coil.abs().argmax()), 33) for coil in maps]
    assert [b[0] for b in brightest[::2]] == [32, 0]  # the first at +x, the third at -x
    assert [b[1] for b in brightest[1::2]] == [32, 0]
    torch.testing.assert_close(maps[1].abs(), maps[0].abs().transpose(0, 1), rtol=0, atol=1e-5)
    with pytest.raises(BadInputError, match=r"above 0\.5"):
        loop_coil_maps(Grid((8, 8, 1), np.eye(4)), distance=0.4)
