import math

import numpy as np
import pytest
import torch

from mrcore.acquisition import Acquisition, AxisPsf, Sequence
from mrcore.grid import Grid
from mrcore.noise_estimate import RESIDUAL, residual_noise
from mrcore.phantom import digital_head, head_grid
from mrcore.volume import TissueMap, Volume
from ulfsim.edge_spread import edge_spread
from ulfsim.like import preset_like
from ulfsim.matched import match_widths, matched
from ulfsim.measure import measure, tissue_cores
from ulfsim.plan import plan_scan, tissues_through
from ulfsim.presets import Preset
from ulfsim.simulate import calibrated_simulation
from ulfsim.source import source_of

# Blunt along x, sharp along y, slices blurred by more than their thickness; noise filtered along x.
REAL = Acquisition(
    0.064,
    (3.0, 3.0, 5.0),
    Sequence("T1w"),
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


def test_without_air_residuals_of_the_simulation_are_those_of_the_scan(source, real):
    scan, tissues = real
    bare = Volume(torch.where(tissues.mask, scan.data, 0.0), scan.grid)
    stats = measure(bare, tissues)
    assert stats.noise_method == RESIDUAL
    match = matched(preset_like(bare, stats, "T1w"), bare, tissues, source, seed=1)
    assert match.preset.acquisition.noise_fwhm_mm == (0.0, 0.0, 0.0)
    assert any("taken as white" in note for note in match.notes)
    _, made = calibrated_simulation(source, match.preset, 9)
    seen = tissues_through(plan_scan(source.volume.grid, match.preset.acquisition), source.tissues)

    def relative(volume, maps):
        core = max(tissue_cores(maps)[0], key=lambda each: int(each.sum()))
        return residual_noise(volume.data, core).sd / measure(volume, maps, 0.0).mean_of("WM")

    assert relative(made.scan, seen) == pytest.approx(relative(bare, tissues), rel=0.1)


def test_a_blunt_source_is_said(source, real):
    scan, tissues = real
    # The same voxels, said to be smaller: edges sharper than any that the source has.
    small = Grid(scan.grid.shape, scan.grid.affine @ np.diag([0.6, 0.6, 0.6, 1.0]))
    sharp, maps = Volume(scan.data, small, scan.meta), TissueMap(tissues.prob, tissues.names, small)
    match = matched(preset_like(sharp, measure(sharp, maps), "T1w"), sharp, maps, source, seed=1)
    assert match.preset.acquisition.psf[0].gaussian_fwhm_mm == 0.0
    assert any("axis 0" in note and "blunter" in note for note in match.notes)


def _spread(rest, gain=1.0):
    """Edges of width `rest` per axis, blurred; `gain` bends the law that the search assumes."""
    return lambda fwhm: tuple(math.sqrt(r**2 + (gain * f) ** 2) for r, f in zip(rest, fwhm, strict=True))


@pytest.mark.parametrize("gain", [0.6, 1.0, 1.4])
def test_widths_are_found_on_all_axes_at_once(gain):
    wanted = (2.5, 3.0, 8.0)
    width, reached = match_widths(_spread((2.0, 1.0, 3.0), gain), wanted, (1.5, 1.5, 5.0), (9.0, 9.0, 20.0))
    assert reached == pytest.approx(wanted, rel=0.03)
    for w, goal, rest in zip(width, wanted, (2.0, 1.0, 3.0), strict=True):
        assert gain * w == pytest.approx(math.sqrt(goal**2 - rest**2), rel=0.15)


def test_a_blunt_source_gets_no_blur_and_other_axes_are_not_disturbed():
    width, reached = match_widths(_spread((4.0, 1.0, 3.0)), (2.0, 3.0, 2.0), (1.5, 1.5, 5.0), (9.0, 9.0, 20.0))
    assert (width[0], width[2]) == (0.0, 0.0)
    assert (reached[0], reached[2]) == (4.0, 3.0)
    assert reached[1] == pytest.approx(3.0, rel=0.03)


def test_an_axis_without_edges_keeps_its_width():
    def spread(fwhm):
        return (math.nan, *_spread((1.0, 1.0, 3.0))(fwhm)[1:])

    width, reached = match_widths(spread, (2.0, 3.0, math.nan), (1.5, 1.5, 5.0), (9.0, 9.0, 20.0))
    assert (width[0], width[2]) == (1.5, 5.0)
    assert math.isnan(reached[0])
    assert reached[1] == pytest.approx(3.0, rel=0.03)


def test_a_wish_beyond_the_limit_ends_there():
    width, _ = match_widths(_spread((1.0, 1.0, 1.0)), (50.0, 3.0, 3.0), (1.0, 1.0, 1.0), (6.0, 6.0, 6.0))
    assert width[0] == pytest.approx(6.0)
