import numpy as np
import pytest
import torch
from scipy.optimize import Bounds, minimize

from mrcore.data.acquisition import Acquisition, PulseSequence, gaussian_psf
from mrcore.data.volume import TISSUES, Volume
from mrcore.errors import BadInputError
from mrcore.phantom import digital_head, head_grid
from ulfsim.calibration.gains import calibrate, to_json
from ulfsim.measurement.contrast import measure
from ulfsim.plan import plan_scan, tissues_through
from ulfsim.protocols.presets import Preset
from ulfsim.published import (
    CONTRAST_ONLY,
    calibrate_as_published,
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


def head_with(head, snr):
    """A source whose tissues have the given SNRs at noise 1, its plan, and the SNRs that its cores show."""
    levels = torch.tensor([snr[name] for name in TISSUES])[:, None, None, None]
    image = Volume((head.tissues.prob * levels).sum(0), head.grid)
    shown = measure(image, head.tissues, 1.0)
    return published_source(image, head.tissues), plan_scan(head.grid, ACQUISITION), np.array(shown.snr)


def matched(source, plan, target, **options):
    """Gains in the order of TISSUES, and the calibration, for the contrasts of `target`."""
    found = calibrate_as_published(source, plan, target, noise_sd=1.0, **options)
    return np.array([found.gains[name] for name in TISSUES]), found


def test_the_printed_gains_lie_on_the_line_of_the_direct_ratio():
    white, grey, fluid = SOURCE_SNR["WM"], SOURCE_SNR["GM"], SOURCE_SNR["CSF"]
    printed, direct = np.array([0.341, 0.367, 0.630]), np.array(ULF[0]) / np.array([white, grey, fluid])
    assert direct == pytest.approx([0.206, 0.205, 0.282], abs=1e-3)
    steps = (printed - direct) * np.array([white, grey, fluid])
    assert steps == pytest.approx([steps.mean()] * 3, abs=1.0)  # printed to three digits


@pytest.mark.parametrize("ulf", ULF)
def test_contrasts_leave_one_direction_free(head, ulf):
    """The published matrix has rank 2: row 2 is row 1 + row 3, and the smallest gains are not the true ones."""
    source, plan, snr = head_with(head, SOURCE_SNR)
    target = dict(zip(("WM", "GM", "CSF"), ulf, strict=True))
    gains, found = matched(source, plan, target)
    assert found.gauge == CONTRAST_ONLY
    fluid, grey, white = gains * snr
    assert white - grey == pytest.approx(ulf[0] - ulf[1], rel=1e-3)
    assert white - fluid == pytest.approx(ulf[0] - ulf[2], rel=1e-3)
    # The null vector is (1 / s_W, 1 / s_G, 1 / s_C), and the true gains lie within the interval along it.
    for name, value in zip(TISSUES, snr, strict=True):
        assert found.null_vector[name] == pytest.approx(1 / value)
    low, high = found.feasible_interval
    assert low <= ulf[0] - white <= high
    assert high - low == pytest.approx(snr[0], rel=0.2)
    assert fluid < ulf[2]
    assert any("exceeds" in w for w in found.warnings)


def test_bounds_hold(head):
    source, plan, _ = head_with(head, SOURCE_SNR)
    gains, found = matched(source, plan, {"WM": 360.0, "GM": 60.0, "CSF": 10.0}, upper=0.5)
    assert gains.max() <= 0.5
    assert "WM = 0.5" in found.active_bounds


def test_solution_is_never_worse_than_the_published_solver(head):
    """64 starts of trust-constr there; four here."""
    source, plan, snr = head_with(head, SOURCE_SNR)
    fluid, grey, white = snr
    matrix = np.array([[0, -grey, white], [-fluid, 0, white], [-fluid, grey, 0]])
    assert np.linalg.matrix_rank(matrix) == 2
    contrasts = np.array([ULF[0][0] - ULF[0][1], ULF[0][0] - ULF[0][2], ULF[0][1] - ULF[0][2]])

    def cost(m):
        return float(0.5 * np.square(matrix @ m - contrasts).sum() + 1e-6 * m @ m)

    gains, _ = matched(source, plan, dict(zip(("WM", "GM", "CSF"), ULF[0], strict=True)))
    for start in np.random.default_rng(0).uniform(size=(4, 3)):
        found = minimize(
            cost,
            start,
            jac=lambda m: matrix.T @ (matrix @ m - contrasts) + 2e-6 * m,
            hess=lambda _: matrix.T @ matrix + 2e-6 * np.eye(3),
            method="trust-constr",
            bounds=Bounds(0, 1),
        )
        assert cost(gains) <= found.fun * (1 + 1e-9)


def test_published_sensitivity_is_the_slope_of_the_gains(head):
    source, plan, _ = head_with(head, SOURCE_SNR)
    target = dict(zip(("WM", "GM", "CSF"), ULF[0], strict=True))
    gains, found = matched(source, plan, target)
    moves = {"WM": {"WM-GM": 1, "WM-CSF": 1}, "GM": {"WM-GM": -1, "GM-CSF": 1}, "CSF": {"WM-CSF": -1, "GM-CSF": -1}}
    for moved, effect in moves.items():
        other, _ = matched(source, plan, {**target, moved: target[moved] + 0.01})
        for i, name in enumerate(TISSUES):
            slope = sum(sign * found.sensitivity[name][pair] for pair, sign in effect.items())
            assert (other[i] - gains[i]) / 0.01 == pytest.approx(slope, abs=1e-6)
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
    ours = calibrate(source_of(head.image, head.tissues), plan, {**TARGET, "CSF": 18.0}, noise_sd=sd)
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
