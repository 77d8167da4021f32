import math

import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid, with_spacing
from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.noise import add_noise, complex_noise
from mrcore.noise_estimate import BACKGROUND, RESIDUAL
from mrcore.operators.fourier import FourierOp
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded
from ulfsim.measurement.air import COMPLEX_BACKGROUND
from ulfsim.measurement.contrast import (
    ContrastStats,
    mean_error,
    measure,
    pairs,
    tissue_cores,
)
from ulfsim.measurement.edge_spread import edge_spread
from ulfsim.measurement.noise import GIVEN, given_noise
from ulfsim.measurement.spectrum import noise_spectrum

LEVEL = {"CSF": 1.0, "GM": 6.0, "WM": 8.0}
SD = 0.5


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(56), seed=2)


@pytest.fixture(scope="module")
def scan(head):
    """Piecewise constant tissues of known level, with Rician noise; CSF has an SNR of 2."""
    clean = sum(LEVEL[name] * (head.tissues.prob.argmax(0) == i) for i, name in enumerate(TISSUES)) * head.mask
    return Volume(add_noise(clean.float(), SD, seeded(0, "measure")), head.grid)


def test_means_are_free_of_the_rician_bias(head, scan):
    found = measure(scan, head.tissues)
    assert found.noise_method == BACKGROUND
    assert found.noise_sd == pytest.approx(SD, rel=0.01)
    for name, level in LEVEL.items():
        assert found.mean_of(name) == pytest.approx(level, rel=0.02)
    # Without the correction CSF would read 13 % too high.
    assert float(scan.data[tissue_cores(head.tissues)[0][0]].mean()) > 1.1 * LEVEL["CSF"]


def test_snr_cnr_and_michelson_by_hand(head, scan):
    found = measure(scan, head.tissues, noise_sd=0.25)
    assert found.noise_method == GIVEN
    assert found.snr == tuple(4 * m for m in found.mean)
    assert found.cnr("WM", "GM") == pytest.approx(4 * (found.mean[2] - found.mean[1]))
    assert found.cnr("GM", "WM") == -found.cnr("WM", "GM")
    assert found.michelson("WM", "GM") == pytest.approx((8 - 6) / (8 + 6), abs=0.02)


def test_pure_noise_has_no_signal(head):
    noise = Volume(add_noise(torch.zeros(head.grid.shape), 1.0, seeded(3, "pure")), head.grid)
    assert max(measure(noise, head.tissues).snr) < 0.3


def test_anatomy_within_a_tissue_does_not_count_as_noise(head, scan):
    # A spread of 20 % in WM would lower sqrt(E[M^2]) arguments, but not a mean.
    wave = 1 + 0.2 * torch.sin(torch.arange(head.grid.shape[0]) / 2.0)[:, None, None]
    found = measure(Volume(scan.data * wave, head.grid), head.tissues, noise_sd=SD)
    core = tissue_cores(head.tissues)[0][2]
    assert found.mean_of("WM") == pytest.approx(8 * float(wave.expand(head.grid.shape)[core].mean()), rel=0.01)


def test_noise_of_a_stripped_scan_comes_from_residuals_and_is_said(head, scan):
    found = measure(Volume(scan.data * head.mask, head.grid), head.tissues)
    assert found.noise_method == RESIDUAL
    assert found.noise_sd == pytest.approx(SD, rel=0.08)
    assert any("second differences" in note for note in found.notes)


def test_no_noise_gives_infinite_snr(head):
    clean = Volume(head.image.data, head.grid)
    assert measure(clean, head.tissues, noise_sd=0.0).snr == (math.inf,) * 3


def test_cores_shrink_where_they_can_and_say_where_not(head):
    cores, notes = tissue_cores(head.tissues)
    white = head.tissues.of("WM") > 0.9
    assert bool((cores[2] & ~white).sum() == 0)
    assert int(cores[2].sum()) < int(white.sum())
    for axis in range(3):
        assert bool((cores[2] <= white.roll(1, axis)).all())
    assert not any(note.startswith("WM") for note in notes)
    large = tissue_cores(head.tissues, n_enough=10**9)
    assert torch.equal(large[0][2], white)
    assert any(note.startswith("WM: core of only") for note in large[1])


def test_a_tissue_without_core_falls_back_to_its_best_voxels(head):
    cores, notes = tissue_cores(TissueMap(head.tissues.prob * 0.6, TISSUES, head.grid))
    assert [int(core.sum()) for core in cores] == [50, 50, 50]
    assert float(head.tissues.of("GM")[cores[1]].min()) > 0.99
    assert sum("no core" in note for note in notes) == 3


def test_a_missing_tissue_is_an_error(head):
    prob = head.tissues.prob.clone()
    prob[0] = 0
    with pytest.raises(BadInputError, match="no CSF at all"):
        tissue_cores(TissueMap(prob, TISSUES, head.grid))


def test_another_grid_is_refused(head):
    other = with_spacing(head.grid, (4.0, 4.0, 4.0))
    with pytest.raises(GridMismatchError, match="same grid"):
        measure(Volume(torch.zeros(other.shape), other), head.tissues)


def test_unknown_tissues_and_noise_given_twice_are_refused(head, scan):
    with pytest.raises(BadInputError, match="'bone'"):
        measure(scan, head.tissues, noise_sd=1.0).mean_of("bone")
    with pytest.raises(BadInputError, match="not both"):
        measure(scan, head.tissues, 1.0, given_noise(1.0))
    with pytest.raises(BadInputError, match="no standard errors"):
        ContrastStats(TISSUES, (1.0,) * 3, (1.0,) * 3, (9,) * 3, 1.0, RESIDUAL).snr_interval("WM")


def test_complex_images_have_the_same_contrast_and_noise_of_both_channels(head):
    clean = sum(LEVEL[name] * (head.tissues.prob.argmax(0) == i) for i, name in enumerate(TISSUES)) * head.mask
    data = clean + complex_noise(head.grid.shape, SD, seeded(4, "complex"))
    found = measure(Volume(data * torch.exp(torch.tensor(0.8j)), head.grid), head.tissues)
    assert found.noise_method == COMPLEX_BACKGROUND
    assert found.noise_sd == pytest.approx(SD, rel=0.01)
    for name, level in LEVEL.items():
        assert found.mean_of(name) == pytest.approx(level, rel=0.02)


@pytest.mark.parametrize("fwhm_voxels", [0.0, 2.0])
def test_intervals_hold_the_truth_in_about_95_of_100_draws(head, fwhm_voxels):
    """Piecewise constant tissues of SNR 12 and 16, slow anatomy in each draw, white and coloured noise."""
    n_draws, held = 24, torch.zeros(3)
    labels = head.tissues.prob.argmax(0)
    clean = (6.0 * (labels == 1) + 8.0 * (labels == 2)) * head.mask
    for seed in range(n_draws):
        anatomy = complex_noise(head.grid.shape, 0.2, seeded(seed, "anatomy"), (2.5, 2.5, 2.5)).real
        drawn = complex_noise(head.grid.shape, SD, seeded(seed, "draw"), (fwhm_voxels,) * 3)
        found = measure(Volume(((clean * (1 + anatomy / 8)) + drawn).abs(), head.grid), head.tissues)
        low, high = found.mean_interval("WM")
        held[0] += low <= 8.0 <= high
        low, high = found.snr_interval("GM")
        held[1] += low <= 12.0 <= high
        low, high = found.cnr_interval("WM", "GM")
        held[2] += low <= 4.0 <= high
        assert high - low < 3.0
    assert float(held.min()) >= 0.85 * n_draws


def test_the_error_of_a_mean_of_white_noise_is_sd_over_root_n():
    noise = complex_noise((60, 60, 60), 1.0, seeded(0, "error")).real
    core = torch.ones(60, 60, 60, dtype=torch.bool)
    error, n_blocks = mean_error(noise, core, (2.0, 2.0, 2.0))
    assert error == pytest.approx(60**-1.5, rel=0.15)
    assert n_blocks == 6**3
    coloured = complex_noise((60, 60, 60), 1.0, seeded(0, "error"), (2.0, 2.0, 2.0)).real
    assert mean_error(coloured, core, (2.0, 2.0, 2.0))[0] > 3 * error


def test_hku_k_space_images_are_measured(shared_data):
    """One slice stack of 0.055 T, complex k-space of 4 axial slices; voxels of 1 mm stand for the unknown size."""
    k_space = torch.from_numpy(np.load(shared_data / "ulf" / "hku_0p055T_fig6A.npz")["ksp_FSE"]).permute(2, 0, 1)
    to_image = FourierOp(tuple(k_space.shape[1:])).H
    data = torch.stack([to_image(each) for each in k_space], -1)
    grid = Grid(tuple(data.shape), np.diag([1.0, 1.0, 10.0, 1.0]))
    magnitude = data.abs()
    smooth = torch.nn.functional.avg_pool2d(magnitude.permute(2, 0, 1)[:, None], 9, 1, 4)[:, 0].permute(1, 2, 0)
    inside = smooth > 0.12 * float(smooth.max())
    volume = Volume(data, grid)
    found = measure(volume, TissueMap(inside.float()[None], ("HEAD",), grid))
    assert found.noise_method == COMPLEX_BACKGROUND
    assert 5 < found.snr[0] < 500
    low, high = found.snr_interval("HEAD")
    assert low < found.snr[0] < high
    spectrum = noise_spectrum(volume, inside)
    assert spectrum.sd == pytest.approx(found.noise_sd, rel=1e-6)
    assert 0.1 < spectrum.white_fraction <= 1
    spread = edge_spread(volume)
    assert all(0.5 < width < 6 for width in spread.fwhm_voxels[:2])
    assert math.isnan(spread.fwhm_mm[2])  # four slices are too few


def test_pairs_put_the_brighter_tissue_first():
    assert pairs(TISSUES) == (("WM", "GM"), ("WM", "CSF"), ("GM", "CSF"))


def test_the_error_of_a_mean_of_three_blocks_is_right_in_the_mean():
    """Blocks of one value each: the mean of three has a third of their variance, also as estimated from three."""
    draws = torch.randn(1500, 3, generator=seeded(0, "blocks"))
    core = torch.ones(6, 2, 2, dtype=torch.bool)
    squares = [
        mean_error(row.repeat_interleave(2)[:, None, None].expand(6, 2, 2), core, (10.0,) * 3)[0] ** 2 for row in draws
    ]
    assert sum(squares) / len(squares) == pytest.approx(float(draws.mean(1).var()), rel=0.1)
