import numpy as np
import pytest
import torch
from scipy.optimize import Bounds, minimize

from mrcore.data.acquisition import Acquisition, PulseSequence, gaussian_psf
from mrcore.data.volume import TISSUES
from mrcore.errors import BadInputError
from mrcore.phantom import digital_head, head_grid
from ulfsim.calibration.gains import calibrate, to_json
from ulfsim.measurement.contrast import measure
from ulfsim.plan import plan_scan, tissues_through
from ulfsim.protocols.presets import Preset
from ulfsim.published import (
    CONTRAST_ONLY,
    calibrate_as_published,
    calibrate_contrasts_only,
    contrast_matrix,
    published_simulation,
    published_source,
)
from ulfsim.source.source import source_of, truth_of

VOXEL = (5.0, 5.0, 8.0)
ACQUISITION = Acquisition(0.064, VOXEL, PulseSequence("T1w"), psf=gaussian_psf(VOXEL))
TARGET = {"CSF": 14.0, "GM": 40.1, "WM": 50.8}
# Published SNRs (WM, GM, CSF) of one person at 3 T and of three at 64 mT.
SOURCE_SNR = {"WM": 366.6, "GM": 303.8, "CSF": 142.0}
ULF = [(75.6, 62.3, 40.1), (86.8, 67.2, 12.4), (50.8, 40.1, 14.0)]


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(64), seed=1)


@pytest.mark.parametrize("ulf", ULF)
def test_published_matrix_has_rank_2_and_the_direct_ratio_solves_it(ulf):
    white, grey, fluid = SOURCE_SNR["WM"], SOURCE_SNR["GM"], SOURCE_SNR["CSF"]
    matrix = contrast_matrix((white, grey, fluid))
    assert np.linalg.matrix_rank(matrix) == 2
    null = np.array([1 / white, 1 / grey, 1 / fluid])
    assert np.abs(matrix @ null).max() < 1e-12
    contrasts = np.array([ulf[0] - ulf[1], ulf[0] - ulf[2], ulf[1] - ulf[2]])
    direct = np.array(ulf) / np.array([white, grey, fluid])
    assert matrix @ direct == pytest.approx(contrasts)
    # So does the printed solution of the first: another point of the same line.
    assert matrix @ (direct + 50 * null) == pytest.approx(contrasts)


def test_the_printed_gains_lie_on_the_line_of_the_direct_ratio():
    white, grey, fluid = SOURCE_SNR["WM"], SOURCE_SNR["GM"], SOURCE_SNR["CSF"]
    printed, direct = np.array([0.341, 0.367, 0.630]), np.array(ULF[0]) / np.array([white, grey, fluid])
    assert direct == pytest.approx([0.206, 0.205, 0.282], abs=1e-3)
    steps = (printed - direct) * np.array([white, grey, fluid])
    assert steps == pytest.approx([steps.mean()] * 3, abs=1.0)  # printed to three digits


@pytest.mark.parametrize("ulf", ULF)
def test_contrast_only_mode_meets_contrasts_and_shows_its_freedom(ulf):
    contrasts = (ulf[0] - ulf[1], ulf[0] - ulf[2], ulf[1] - ulf[2])
    found = calibrate_contrasts_only(SOURCE_SNR, contrasts)
    assert found.gauge == CONTRAST_ONLY
    assert found.predicted["WM"] - found.predicted["GM"] == pytest.approx(contrasts[0], rel=1e-3)
    assert found.predicted["WM"] - found.predicted["CSF"] == pytest.approx(contrasts[1], rel=1e-3)
    # The null vector is (1 / s_W, 1 / s_G, 1 / s_C), and the true gains lie within the interval along it.
    for name, snr in SOURCE_SNR.items():
        assert found.null_vector[name] == pytest.approx(1 / snr)
    offset = ulf[0] - found.predicted["WM"]
    low, high = found.feasible_interval
    assert low <= offset <= high
    assert high - low == pytest.approx(142.0, rel=0.2)
    # The smallest gains are not the true ones: too much contrast.
    assert found.predicted["CSF"] < ulf[2]
    assert any("exceeds" in w for w in found.warnings)


def test_bounds_of_the_contrast_only_mode_hold():
    found = calibrate_contrasts_only(SOURCE_SNR, (300.0, 350.0, 50.0), upper=0.5)
    assert max(found.gains.values()) <= 0.5
    assert "WM = 0.5" in found.active_bounds


def test_solution_is_never_worse_than_the_published_solver(head):
    """64 starts of trust-constr there; four here, the rest in the benchmark."""
    white, grey, fluid = SOURCE_SNR["WM"], SOURCE_SNR["GM"], SOURCE_SNR["CSF"]
    matrix = contrast_matrix((white, grey, fluid))
    contrasts = np.array([ULF[0][0] - ULF[0][1], ULF[0][0] - ULF[0][2], ULF[0][1] - ULF[0][2]])

    def cost(m):
        return float(0.5 * np.square(matrix @ m - contrasts).sum() + 1e-6 * m @ m)

    gains = calibrate_contrasts_only(SOURCE_SNR, tuple(contrasts)).gains
    ours = cost(np.array([gains["WM"], gains["GM"], gains["CSF"]]))
    for start in np.random.default_rng(0).uniform(size=(4, 3)):
        found = minimize(
            cost,
            start,
            jac=lambda m: matrix.T @ (matrix @ m - contrasts) + 2e-6 * m,
            hess=lambda _: matrix.T @ matrix + 2e-6 * np.eye(3),
            method="trust-constr",
            bounds=Bounds(0, 1),
        )
        assert ours <= found.fun * (1 + 1e-9)


def test_published_sensitivity_is_the_slope_of_the_gains():
    base = (13.3, 35.5, 22.2)
    found = calibrate_contrasts_only(SOURCE_SNR, base)
    for i, pair in enumerate(("WM-GM", "WM-CSF", "GM-CSF")):
        moved = tuple(c + 0.01 * (i == j) for j, c in enumerate(base))
        other = calibrate_contrasts_only(SOURCE_SNR, moved)
        for name in TISSUES:
            slope = (other.gains[name] - found.gains[name]) / 0.01
            assert found.sensitivity[name][pair] == pytest.approx(slope, abs=1e-6)
    assert set(found.sensitivity["CSF"].values()) == {0.0}  # on its bound


def test_published_run_on_a_source_meets_contrasts_of_the_source_alone(head):
    """Contrasts hold for the unblurred source; SNR and, through the blur, contrasts of the scan are off."""
    source, plan = published_source(head.image, head.tissues), plan_scan(head.grid, ACQUISITION)
    sd = source.levels[2] / 366.6
    found = calibrate_as_published(source, plan, TARGET, noise_sd=sd)
    assert (found.gauge, found.noise_sd, found.background_gain) == (CONTRAST_ONLY, sd, 1.0)
    snr = dict(zip(TISSUES, measure(head.image, head.tissues, sd).snr, strict=True))
    for a, b in (("WM", "GM"), ("WM", "CSF")):
        contrast = found.gains[a] * snr[a] - found.gains[b] * snr[b]
        assert contrast == pytest.approx(TARGET[a] - TARGET[b], rel=1e-3)
    assert found.misses_target
    assert any("contrasts were matched" in w or "out of reach" in w for w in found.warnings)
    ours = calibrate(source_of(head.image, head.tissues), plan, TARGET, noise_sd=sd)
    assert not ours.misses_target


def test_published_prediction_is_what_the_scan_shows(head):
    preset = Preset("test", ACQUISITION, TARGET, "test")
    sd = published_source(head.image, head.tissues).levels[2] / 366.6
    found, made = published_simulation(head.image, head.tissues, preset, 0, sd)
    assert made.background_gain == 1.0
    assert made.acquisition.noise_sd == sd
    plan = plan_scan(head.grid, ACQUISITION)
    seen = measure(made.scan, tissues_through(plan, head.tissues), sd)
    for name, snr in zip(seen.names, seen.snr, strict=True):
        assert snr == pytest.approx(found.predicted[name], abs=0.6)
    again, same = published_simulation(head.image, head.tissues, preset, 0, sd)
    assert to_json(again) == to_json(found)
    assert same.scan.data.equal(made.scan.data)


def test_published_parts_are_image_times_probability(head):
    source = published_source(head.image, head.tissues)
    expected = head.image.data.clamp_min(0) * head.tissues.of("GM")
    assert torch.equal(source.basis[1], expected)
    whole = truth_of(source, dict.fromkeys(TISSUES, 1.0), 1.0).data
    assert torch.allclose(whole, head.image.data.clamp_min(0), atol=1e-5)


def test_bad_requests_are_refused(head):
    with pytest.raises(BadInputError, match="positive SNRs"):
        calibrate_contrasts_only({"WM": 1.0}, (1.0, 1.0, 1.0))
    source, plan = published_source(head.image, head.tissues), plan_scan(head.grid, ACQUISITION)
    with pytest.raises(BadInputError, match="target_snr"):
        calibrate_as_published(source, plan, {"WM": 50.0})
    with pytest.raises(BadInputError, match="noise_sd"):
        calibrate_as_published(source, plan, TARGET, noise_sd=0.0)


def test_a_source_without_enough_snr_is_given_it_and_that_is_said(head):
    source, plan = published_source(head.image, head.tissues), plan_scan(head.grid, ACQUISITION)
    free = calibrate_as_published(source, plan, TARGET)  # the phantom has no noise
    assert "assumed" in free.scale
    means = measure(head.image, head.tissues, 0.0).mean
    assert free.noise_sd == pytest.approx(min(m / TARGET[n] for n, m in zip(TISSUES, means, strict=True)))
    assert max(free.gains.values()) < 1.0
    kept = calibrate_as_published(source, plan, TARGET, noise_sd=0.9 * free.noise_sd)
    assert "kept" in kept.scale
