"""What a simulation gives beside the magnitude: channels, coloured noise, k-space, artefacts."""

import dataclasses

import numpy as np
import pytest
import torch

from mrcore.data.acquisition import Acquisition, PulseSequence, gaussian_psf
from mrcore.forward import predict
from mrcore.phantom import digital_head, head_grid
from ulfsim.artefacts.artefacts import NO_ARTEFACTS, Artefacts
from ulfsim.artefacts.artefacts import from_json as artefacts_from_json
from ulfsim.artefacts.interference import Spike, Spikes
from ulfsim.artefacts.kspace import NyquistGhost
from ulfsim.simulation import k_space, redrawn, simulate
from ulfsim.source.source import source_of

VOXEL = (4.5, 4.0, 8.5)
ACQUISITION = Acquisition(0.064, VOXEL, PulseSequence("T1w"), noise_sd=0.02, psf=gaussian_psf(VOXEL))
CLEAN = dataclasses.replace(ACQUISITION, noise_sd=0.0)
GAINS = {"CSF": 0.9, "GM": 0.8, "WM": 0.7}


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(48), seed=4)


@pytest.fixture(scope="module")
def source(head):
    return source_of(head.image, head.tissues)


@pytest.mark.parametrize("n_channels", [1, 4])
def test_channels_carry_the_signal_and_noise_of_the_sd(source, n_channels):
    acquisition = dataclasses.replace(ACQUISITION, n_channels=n_channels)
    done = simulate(source, acquisition, GAINS, seed=0)
    assert done.channels.shape == (n_channels, *done.scan.grid.shape)
    assert done.channels.dtype == torch.complex64
    noise = done.channels - done.signal / np.sqrt(n_channels)
    for part in (noise.real, noise.imag):
        assert part.std(dim=(1, 2, 3)).tolist() == pytest.approx([0.02] * n_channels, rel=0.03)
        assert float(part.mean()) == pytest.approx(0, abs=0.001)
    assert torch.allclose(done.scan.data, done.channels.abs().square().sum(0).sqrt(), atol=1e-6)
    # E[M^2] = A^2 + 2 C sd^2
    excess = float((done.scan.data.double().square() - done.signal.double().square()).mean())
    assert excess == pytest.approx(2 * n_channels * 0.02**2, rel=0.05)
    if n_channels > 1:
        a, b = noise[0].flatten(), noise[1].flatten()
        assert abs(float(torch.corrcoef(torch.stack([a.real, b.real]))[0, 1])) < 0.03


def test_noise_is_coloured_along_the_axis_asked_for_and_keeps_its_sd(source):
    coloured = dataclasses.replace(ACQUISITION, noise_fwhm_mm=(0.0, 2 * VOXEL[1], 0.0))
    done = simulate(source, coloured, GAINS, seed=0)
    noise = (done.channels[0] - done.signal).real
    assert float(noise.std()) == pytest.approx(0.02, rel=0.05)
    neighbours = [float((noise * noise.roll(1, axis)).mean() / noise.square().mean()) for axis in range(3)]
    # Gaussian filter of 2 voxels FWHM: exp(-1 / (4 sigma^2)), sigma = 2 / 2.3548 voxels.
    assert neighbours == pytest.approx([0, np.exp(-(2.3548**2) / 16), 0], abs=0.04)


def test_k_space_is_that_of_the_channels(source):
    done = simulate(source, dataclasses.replace(ACQUISITION, n_channels=2), GAINS, seed=0)
    samples = k_space(done)
    image = torch.fft.ifftn(torch.fft.ifftshift(samples, dim=(1, 2, 3)), dim=(1, 2, 3), norm="ortho")
    image = torch.fft.fftshift(image, dim=(1, 2, 3))
    assert torch.allclose(image.abs().square().sum(0).sqrt(), done.scan.data, atol=1e-5)
    middle = tuple(n // 2 for n in done.scan.grid.shape)
    largest = np.unravel_index(int(samples[0].abs().argmax()), done.scan.grid.shape)
    assert tuple(int(i) for i in largest) == middle


def test_other_draws_of_a_scan_are_what_their_seeds_give(source):
    acquisition = dataclasses.replace(ACQUISITION, n_channels=2, noise_fwhm_mm=(6.0, 0.0, 0.0))
    done = simulate(source, acquisition, GAINS, seed=0)
    scans = redrawn(done, [0, 5])
    assert torch.equal(scans[0], done.scan.data)
    assert torch.equal(scans[1], simulate(source, acquisition, GAINS, seed=5).scan.data)


def test_artefacts_disturb_the_signal_and_are_told(source):
    ghost = Artefacts(ghost=NyquistGhost(20.0))
    clean, done = (simulate(source, CLEAN, GAINS, 0, artefacts=a) for a in (NO_ARTEFACTS, ghost))
    assert done.signal.is_complex()
    assert not clean.signal.is_complex()
    assert "Artefacts" not in clean.scan.meta["Simulation"]
    assert done.artefacts == ghost
    assert artefacts_from_json(done.scan.meta["Simulation"]["Artefacts"]) == ghost
    assert float((done.scan.data - clean.scan.data).abs().max()) > 0.02
    assert torch.equal(done.scan.data, predict(done.operator, done.truth.data))
    still = simulate(source, CLEAN, GAINS, 0, artefacts=Artefacts(ghost=NyquistGhost(0.0)))
    assert torch.allclose(still.scan.data, clean.scan.data, atol=1e-5)


def test_interference_comes_in_units_of_the_noise(source):
    spiked = Artefacts(spikes=Spikes((Spike((0.3, -0.2, 0.1), 5.0),)))
    quiet, loud = (
        simulate(source, dataclasses.replace(ACQUISITION, noise_sd=sd), GAINS, 0, artefacts=spiked)
        for sd in (0.01, 0.02)
    )
    clean = simulate(source, CLEAN, GAINS, seed=0).signal
    added = [(done.signal - clean).abs() for done in (quiet, loud)]
    assert float(added[0].mean()) == pytest.approx(5 * 0.01, rel=0.01)
    assert torch.allclose(2 * added[0], added[1], atol=1e-4)
