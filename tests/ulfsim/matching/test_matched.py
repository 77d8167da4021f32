from dataclasses import replace

import numpy as np
import pytest
import torch

from mrcore.data.acquisition import Acquisition, AxisPsf, PulseSequence
from mrcore.data.grid import Grid
from mrcore.data.volume import TissueMap, Volume
from mrcore.noise_estimate import RESIDUAL, residual_noise
from mrcore.phantom import digital_head, head_grid
from ulfsim.matching.like import preset_like
from ulfsim.matching.matched import matched
from ulfsim.measurement.contrast import measure
from ulfsim.measurement.edge_spread import edge_spread
from ulfsim.measurement.noise import noise_core
from ulfsim.plan import plan_scan, tissues_through
from ulfsim.protocols.presets import Preset
from ulfsim.simulation import calibrated_simulation
from ulfsim.source.source import source_of

# Blunt along x, sharp along y, slices blurred by more than their thickness; noise filtered along x.
REAL = Acquisition(
    0.064,
    (3.0, 3.0, 5.0),
    PulseSequence("T1w"),
    psf=(AxisPsf(4.0), AxisPsf(1.5), AxisPsf(7.0)),
    noise_fwhm_mm=(4.5, 0.0, 0.0),
)
SNR = {"CSF": 14.0, "GM": 40.0, "WM": 50.0}


@pytest.fixture(scope="module")
def source():
    head = digital_head(head_grid(96), seed=1)
    return source_of(head.image, head.tissues)


@pytest.fixture(scope="module")
def real(source):
    """A scan of known PSF, and its tissues."""
    _, made = calibrated_simulation(source, Preset("real", REAL, SNR, "test"), 5)
    return made.scan, tissues_through(plan_scan(source.volume.grid, REAL), source.tissues)


def test_point_spread_and_colour_of_a_known_scan_are_found(source, real):
    scan, tissues = real
    preset = preset_like(scan, measure(scan, tissues), "T1w")
    match = matched(preset, scan, tissues, source, seed=1)
    found = match.preset.acquisition
    widths = [axis.gaussian_fwhm_mm for axis in found.psf]
    assert widths == pytest.approx([4.0, 1.5, 7.0], abs=0.7)
    assert match.wanted_mm == edge_spread(scan, tissues.mask).fwhm_mm
    assert match.reached_mm == pytest.approx(match.wanted_mm, rel=0.05)
    assert found.noise_fwhm_mm == pytest.approx((4.5, 0.0, 0.0), abs=1.0)
    assert dict(match.preset.snr) == dict(preset.snr)  # air tells the noise
    assert match.preset.source.endswith("by the scan's edges")


def _without_air(scan, tissues):
    return Volume(torch.where(tissues.mask, scan.data, 0.0), scan.grid)


def test_without_air_residuals_of_the_simulation_are_those_of_the_scan(source, real):
    scan, tissues = real
    bare = _without_air(scan, tissues)
    stats = measure(bare, tissues)
    assert stats.noise_method == RESIDUAL
    match = matched(preset_like(bare, stats, "T1w"), bare, tissues, source, seed=1)
    # Second differences lose some of the coloured noise; matching finds colour and level again.
    assert stats.ends[0].snr[2] > 1.4 * SNR["WM"]
    low, high = stats.snr_interval("WM")
    assert low < SNR["WM"] < high
    assert dict(match.preset.snr) == pytest.approx(SNR, rel=0.2)
    found = match.preset.acquisition
    fwhm_voxels = [f / v for f, v in zip(found.noise_fwhm_mm, found.voxel_mm, strict=True)]
    assert fwhm_voxels == pytest.approx((1.5, 0.0, 0.0), abs=0.4)
    assert any("an estimate" in note for note in match.notes)
    _, made = calibrated_simulation(source, match.preset, 9)
    seen = tissues_through(plan_scan(source.volume.grid, match.preset.acquisition), source.tissues)

    def relative(volume, maps):
        return residual_noise(volume.data, noise_core(maps)).sd / measure(volume, maps, 0.0).mean_of("WM")

    assert relative(made.scan, seen) == pytest.approx(relative(bare, tissues), rel=0.08)


def test_without_air_white_noise_stays_white(source):
    white = replace(REAL, noise_fwhm_mm=(0.0, 0.0, 0.0))
    _, made = calibrated_simulation(source, Preset("real", white, SNR, "test"), 6)
    tissues = tissues_through(plan_scan(source.volume.grid, white), source.tissues)
    # In other units than the source: SNRs have none.
    bare = _without_air(Volume(7 * made.scan.data, made.scan.grid, made.scan.meta), tissues)
    match = matched(preset_like(bare, measure(bare, tissues), "T1w"), bare, tissues, source, seed=1)
    assert max(f / v for f, v in zip(match.preset.acquisition.noise_fwhm_mm, white.voxel_mm, strict=True)) < 0.6
    assert dict(match.preset.snr) == pytest.approx(SNR, rel=0.1)


def test_noise_that_is_lost_in_anatomy_stays_as_measured(source, real):
    _, tissues = real
    quiet = replace(REAL, noise_fwhm_mm=(0.0, 0.0, 0.0))
    _, made = calibrated_simulation(source, Preset("real", quiet, {k: 1e3 * v for k, v in SNR.items()}, "test"), 6)
    smooth = _without_air(made.scan, tissues)
    match = matched(preset_like(smooth, measure(smooth, tissues), "T1w"), smooth, tissues, source, seed=1)
    assert match.preset.acquisition.noise_fwhm_mm == (0.0, 0.0, 0.0)
    assert any("cannot be told from the anatomy" in note for note in match.notes)


def test_a_blunt_source_is_said(source, real):
    scan, tissues = real
    # The same voxels, said to be smaller: edges sharper than any that the source has.
    small = Grid(scan.grid.shape, scan.grid.affine @ np.diag([0.6, 0.6, 0.6, 1.0]))
    sharp, maps = Volume(scan.data, small, scan.meta), TissueMap(tissues.prob, tissues.names, small)
    match = matched(preset_like(sharp, measure(sharp, maps), "T1w"), sharp, maps, source, seed=1)
    assert match.preset.acquisition.psf[0].gaussian_fwhm_mm == 0.0
    assert any("axis 0" in note and "blunter" in note for note in match.notes)
