import dataclasses
import json

import numpy as np
import pytest
import torch

from mrcore.data.acquisition import DELTA_PSF, Acquisition, PulseSequence, gaussian_psf
from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.notes import Caution
from mrcore.phantom import digital_head, head_grid
from ulfsim.calibration.gains import ABSOLUTE, NEAREST, SMALLEST_SIGNAL, calibrate, to_json
from ulfsim.calibration.response import response
from ulfsim.measurement.contrast import measure
from ulfsim.plan import plan_scan, tissues_through
from ulfsim.simulation import simulate
from ulfsim.source.source import source_of

VOXEL = (5.0, 5.0, 8.0)
ACQUISITION = Acquisition(0.064, VOXEL, PulseSequence("T1w"), psf=gaussian_psf(VOXEL))
# In voxels as coarse as these the CSF of this head cannot look much darker without being black.
TARGET = {"CSF": 18.0, "GM": 40.1, "WM": 50.8}


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(64), seed=1)


@pytest.fixture(scope="module")
def plan(head):
    return plan_scan(head.grid, ACQUISITION)


@pytest.fixture(scope="module")
def source(head):
    return source_of(head.image, head.tissues)


@pytest.fixture(scope="module")
def calibration(source, plan):
    return calibrate(source, plan, TARGET)


def test_prediction_meets_the_target_within_the_bounds(calibration):
    assert calibration.gauge == ABSOLUTE
    assert not calibration.misses_target
    for name, value in TARGET.items():
        assert calibration.predicted[name] == pytest.approx(value, rel=1e-6)
    assert min(calibration.gains.values()) >= 0
    assert max(calibration.gains.values()) == pytest.approx(1.0)
    assert calibration.background_gain == calibration.gains["WM"]
    assert "largest gain is 1" in calibration.scale


def test_closed_loop_snr_and_cnr_to_5_percent(source, head, plan, calibration):
    """The scan, noise and Rician bias included, measured again without being told the noise."""
    acquisition = dataclasses.replace(ACQUISITION, noise_sd=calibration.noise_sd)
    seen = tissues_through(plan, head.tissues)
    found = [measure(simulate(source, acquisition, calibration.gains, seed).scan, seen) for seed in range(5)]
    for i, name in enumerate(TISSUES):
        assert np.median([f.snr[i] for f in found]) == pytest.approx(TARGET[name], rel=0.05)
    for a, b in (("WM", "GM"), ("WM", "CSF"), ("GM", "CSF")):
        assert np.median([f.cnr(a, b) for f in found]) == pytest.approx(TARGET[a] - TARGET[b], rel=0.05)


def test_calibration_goes_through_the_operator(source, head, calibration):
    """On a scan as sharp as the source the gains differ: partial volume is part of the response."""
    sharp = Acquisition(0.064, head.grid.spacing_mm, PulseSequence("T1w"), psf=DELTA_PSF)
    other = calibrate(source, plan_scan(head.grid, sharp), TARGET)
    assert abs(other.gains["CSF"] / other.gains["WM"] - calibration.gains["CSF"] / calibration.gains["WM"]) > 0.005
    # Pure cores, delta PSF: gain x mean = SNR x noise.
    for name in TISSUES:
        level = float(head.image.data[head.tissues.of(name) > 0.999].mean())
        assert other.gains[name] * level == pytest.approx(TARGET[name] * other.noise_sd, rel=0.03)


def test_a_given_noise_sets_the_scale_and_nothing_else(source, plan, calibration):
    half = calibrate(source, plan, TARGET, noise_sd=calibration.noise_sd / 2)
    for name in TISSUES:
        assert half.gains[name] == pytest.approx(calibration.gains[name] / 2)
        assert half.predicted[name] == pytest.approx(TARGET[name])
    assert "given" in half.scale
    assert half.active_bounds == ()


def test_noise_beyond_the_bounds_is_said(source, plan, calibration):
    noisy = calibrate(source, plan, TARGET, noise_sd=2 * calibration.noise_sd)
    assert noisy.misses_target
    assert max(noisy.gains.values()) <= 1
    assert noisy.active_bounds
    assert any("out of reach" in warning for warning in noisy.warnings)


def test_upper_bound_moves_the_scale(source, plan, calibration):
    raised = calibrate(source, plan, TARGET, upper=3.0)
    assert max(raised.gains.values()) == pytest.approx(3.0)
    assert raised.noise_sd == pytest.approx(3 * calibration.noise_sd)


def test_null_vector_adds_the_same_snr_everywhere(source, head, plan, calibration):
    moved = {n: calibration.gains[n] - calibration.null_vector[n] for n in TISSUES}
    acquisition = dataclasses.replace(ACQUISITION, noise_sd=0.0)
    seen = tissues_through(plan, head.tissues)
    before, after = (
        measure(simulate(source, acquisition, gains, 0).scan, seen, calibration.noise_sd * 1e-6)
        for gains in (calibration.gains, moved)
    )
    shift = (np.array(after.mean) - np.array(before.mean)) / calibration.noise_sd
    assert shift == pytest.approx([-1.0] * 3, rel=0.02)


def test_feasible_interval_ends_on_a_bound(source, calibration):
    needed = np.array([TARGET[name] for name in TISSUES]) / source.levels
    least = SMALLEST_SIGNAL * calibration.noise_sd * np.minimum(needed, needed[2])
    low, high = calibration.feasible_interval
    assert low < 0 <= high + 1e-12
    for t in (low, high):
        moved = [calibration.gains[n] + t * calibration.null_vector[n] for n in TISSUES]
        assert all(m > n - 1e-9 for m, n in zip(moved, least, strict=True))
        assert max(moved) < 1 + 1e-9
        assert min(min(abs(m - n), abs(m - 1)) for m, n in zip(moved, least, strict=True)) < 1e-9


def test_prior_gauge_keeps_contrasts_and_follows_the_prior(source, plan, calibration):
    exact = calibrate(source, plan, TARGET, prior=calibration.gains)
    assert exact.gauge == NEAREST
    assert [exact.predicted[n] for n in TISSUES] == pytest.approx(list(TARGET.values()), rel=1e-3)
    bent = {**calibration.gains, "CSF": 2 * calibration.gains["CSF"]}
    other = calibrate(source, plan, TARGET, prior=bent)
    assert other.gains["CSF"] / other.gains["WM"] > 1.1 * calibration.gains["CSF"] / calibration.gains["WM"]
    for a, b in (("WM", "GM"), ("WM", "CSF")):
        assert other.predicted[a] - other.predicted[b] == pytest.approx(TARGET[a] - TARGET[b], rel=1e-3)
    assert any("not SNR" in w or "bounds" in w for w in other.warnings)


def test_more_contrast_than_the_source_is_warned_of(source, plan):
    strong = calibrate(source, plan, {"CSF": 14.0, "GM": 20.0, "WM": 60.0})
    assert any(w.startswith("WM-GM contrast") and "exceeds" in w for w in strong.warnings)
    reversed_ = calibrate(source, plan, {"CSF": 100.0, "GM": 60.0, "WM": 40.0})
    assert sum("reversed" in w for w in reversed_.warnings) == 3


@pytest.mark.parametrize("noise_sd", [None, 0.01])
def test_a_tissue_that_neighbours_outshine_stays_visible_and_what_is_missed_is_said(source, plan, noise_sd):
    """CSF of SNR 2 between tissues of 40 and 51 would need to be darker than black."""
    found = calibrate(source, plan, {**TARGET, "CSF": 2.0}, noise_sd=noise_sd)
    signal = found.gains["CSF"] * source.levels[0] / found.noise_sd
    assert signal == pytest.approx(2.0 * SMALLEST_SIGNAL, rel=1e-6)
    assert f"CSF = {found.gains['CSF']:.4g}" in found.active_bounds
    warning = next(text for text in found.warnings if "out of reach" in text)
    assert isinstance(warning, Caution)
    assert warning.rank == 0
    reached = found.predicted
    assert f"SNR of CSF {reached['CSF']:.3g} of 2" in warning
    assert f"GM-CSF {reached['GM'] - reached['CSF']:.3g} of 38.1" in warning
    assert "partial volume in the core of CSF" in warning
    assert "CSF was kept where the object has a quarter of the signal asked for" in warning


def test_a_tissue_that_the_source_lacks_asks_for_no_more_than_the_brightest(head, plan):
    """A part of the target alone would need a gain far beyond all others where the source's CSF is all but 0."""
    dark = Volume(head.image.data * (1 - 0.999 * head.tissues.of("CSF")), head.grid)
    found = calibrate(source_of(dark, head.tissues), plan, {**TARGET, "CSF": 2.0})
    assert found.gains["WM"] > 0.5
    assert found.gains["CSF"] < found.gains["WM"]


def test_bad_requests_are_refused(source, head, plan):
    with pytest.raises(BadInputError, match="target_snr"):
        calibrate(source, plan, {"WM": 50.0, "GM": 40.0})
    with pytest.raises(BadInputError, match="target_snr"):
        calibrate(source, plan, {**TARGET, "CSF": -1.0})
    with pytest.raises(BadInputError, match="noise_sd"):
        calibrate(source, plan, TARGET, noise_sd=0.0)
    dark = Volume(torch.zeros(head.grid.shape), head.grid)
    with pytest.raises(BadInputError, match="no signal"):
        calibrate(source_of(dark, head.tissues), plan, TARGET)
    same = TissueMap(torch.stack([head.mask / 3.0] * 3), TISSUES, head.grid)
    with pytest.raises(BadInputError, match="tell the tissues apart"):
        calibrate(source_of(head.image, same), plan, TARGET)
    other = digital_head(head_grid(32), seed=1)
    with pytest.raises(GridMismatchError):
        calibrate(source_of(other.image, other.tissues), plan, TARGET)


@pytest.mark.parametrize("how", ["chosen noise", "given noise", "on a bound", "prior"])
def test_sensitivity_is_the_slope_of_the_gains(source, plan, calibration, how):
    measured = response(source, plan)

    def run(target):
        noise_sd = {"given noise": 0.5, "on a bound": 1.5}.get(how)
        noise_sd = None if noise_sd is None else noise_sd * calibration.noise_sd
        prior = {**calibration.gains, "CSF": 0.3} if how == "prior" else None
        return calibrate(source, plan, target, noise_sd=noise_sd, prior=prior, measured=measured)

    found, step = run(TARGET), 1e-3
    for name in TISSUES:
        low, high = (run({**TARGET, name: TARGET[name] + h}) for h in (-step, step))
        for tissue in TISSUES:
            slope = (high.gains[tissue] - low.gains[tissue]) / (2 * step)
            assert found.sensitivity[tissue][name] == pytest.approx(slope, rel=1e-3, abs=1e-7)
    if how != "given noise" and how != "prior":
        assert set(found.sensitivity["GM"].values()) == {0.0}
    if how == "given noise":
        # Pure cores: each gain follows its own target.
        assert found.sensitivity["WM"]["WM"] == pytest.approx(found.gains["WM"] / TARGET["WM"], rel=0.1)


def test_json_holds_the_whole_calibration_in_plain_numbers(calibration):
    found = json.loads(json.dumps(to_json(calibration)))
    assert found["Gains"] == dict(calibration.gains)
    assert found["NullVector"] == dict(calibration.null_vector)
    assert found["Sensitivity"]["WM"]["GM"] == calibration.sensitivity["WM"]["GM"] < 0
    assert found["FeasibleInterval"] == list(calibration.feasible_interval)
    assert len(found) == len(dataclasses.fields(calibration))
