import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from mrcore.data.volume import TISSUES, Volume
from mrcore.errors import BadInputError
from mrcore.noise import add_noise
from mrcore.noise_estimate import BACKGROUND, RESIDUAL
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded
from mrcore.spatial.registration import rotation
from mrcore.spatial.resampling import ResampleOp
from ulfsim.measurement.facts import (
    ColourFacts,
    ContrastFacts,
    ScanFacts,
    facts_from_json,
    facts_to_json,
    group_mean,
    scan_facts,
)
from ulfsim.measurement.fidelity import compare, errors_to_json, log_spectral_distance_db, registered_ncc

LEVEL = {"CSF": 2.0, "GM": 6.0, "WM": 8.0}
K = tuple(np.linspace(0, 0.25, 20).tolist())


def contrast(factor=1.0):
    snr = {name: 10 * factor * level for name, level in LEVEL.items()}
    return ContrastFacts(0.1, snr, {"WM-GM": 20 * factor, "WM-CSF": 60 * factor, "GM-CSF": 40 * factor})


def colour(slope=0.0):
    power = tuple(math.exp(-slope * k) for k in K)
    return ColourFacts((slope, slope, slope), (K, K, K), (power, power, power))


def facts(name="a", factor=1.0, slope=0.0, **changes):
    quantiles = tuple(np.linspace(0.2, 1.2, 200).tolist())
    made = ScanFacts(
        name,
        (1.6, 1.6, 5.0),
        BACKGROUND,
        {BACKGROUND: contrast(factor), RESIDUAL: contrast(0.5 * factor)},
        (2.0, 3.0, 7.0),
        (((-1.0, 0.0, 1.0), (0.0, 0.5, 1.0)),) * 3,
        BACKGROUND,
        {BACKGROUND: colour(slope)},
        quantiles,
    )
    return replace(made, **changes)


def test_identical_scans_have_no_errors():
    errors = compare(facts("sim"), facts("real"))
    assert errors.snr == errors.snr_log == errors.cnr == errors.spectrum_db == errors.histogram == 0
    assert errors.edge_spread == (0, 0, 0)
    assert errors.edge_spread_mean == 0
    assert errors.ncc is None


@pytest.mark.parametrize(("factor", "relative"), [(2.0, 1.0), (0.5, 0.5)])
def test_twice_and_half_the_snr_are_ln_2(factor, relative):
    errors = compare(facts(factor=factor), facts())
    assert errors.snr_log == pytest.approx(math.log(2))
    assert errors.snr == pytest.approx(relative)
    assert errors.cnr == pytest.approx(relative)


def test_cnr_counts_its_sign():
    turned = ContrastFacts(0.1, contrast().snr, {"WM-GM": -20.0, "WM-CSF": 60.0, "GM-CSF": 40.0})
    errors = compare(facts(contrast={BACKGROUND: turned}), facts())
    assert errors.cnr == pytest.approx(2 / 3)
    assert errors.snr == 0


def test_edge_spread_error_is_per_axis_and_unknown_axes_do_not_count():
    errors = compare(facts(edge_spread_mm=(2.2, math.nan, 3.5)), facts())
    assert errors.edge_spread[0] == pytest.approx(0.1)
    assert math.isnan(errors.edge_spread[1])
    assert errors.edge_spread[2] == pytest.approx(0.5)
    assert errors.edge_spread_mean == pytest.approx(0.3)


def test_histogram_distance_of_a_shift_is_the_shift():
    moved = tuple(q + 0.07 for q in facts().quantiles)
    assert compare(facts(quantiles=moved), facts()).histogram == pytest.approx(0.07)


def test_spectral_distance_sees_colour_and_not_level():
    louder = replace(colour(3.0), power=tuple(tuple(5 * p for p in axis) for axis in colour(3.0).power))
    assert log_spectral_distance_db(facts(colour={BACKGROUND: louder}), facts(slope=3.0)) == pytest.approx(0, abs=1e-9)
    # One axis 10 dB lower over half of the band: both halves are +-5 dB off around a mean level that moved as well.
    step = tuple(1.0 if k < 0.125 else 0.1 for k in K)
    one = ColourFacts((0, 0, 0), (K, K, K), (step, step, step))
    found = log_spectral_distance_db(facts(colour={BACKGROUND: one}), facts())
    lift = 10 * math.log10(1 / 0.55)
    assert found == pytest.approx(math.sqrt((lift**2 + (lift - 10) ** 2) / 2), rel=0.05)
    assert math.isnan(log_spectral_distance_db(facts(colour={}, colour_method=""), facts()))


def test_noise_is_measured_in_one_way_on_both_sides():
    # The simulated scan has no air: both fall back on residuals, where the two agree.
    errors = compare(facts(contrast={RESIDUAL: contrast(0.5)}, noise_method=RESIDUAL), facts())
    assert errors.noise_method == RESIDUAL
    assert errors.snr == 0
    with pytest.raises(BadInputError, match="cannot be measured in the same way"):
        compare(facts(contrast={RESIDUAL: contrast()}, noise_method=RESIDUAL), facts(contrast={BACKGROUND: contrast()}))


def test_group_mean_is_over_scans():
    group = group_mean([facts("a", 1.0), facts("b", 2.0, edge_spread_mm=(4.0, math.nan, 7.0))], "both")
    assert group.n_scans == 2
    assert group.contrast[BACKGROUND].snr["WM"] == pytest.approx(120)
    assert group.edge_spread_mm == (3.0, 3.0, 7.0)
    assert compare(group, facts(factor=1.5)).snr == pytest.approx(0)
    coloured = group_mean([facts(slope=2.0), facts(slope=4.0)], "coloured")
    assert log_spectral_distance_db(coloured, facts(slope=3.0)) == pytest.approx(0, abs=1e-9)
    with pytest.raises(BadInputError, match="no scans"):
        group_mean([], "none")


def test_facts_survive_json():
    first = facts(edge_spread_mm=(2.0, math.nan, 7.0), notes=("air",))
    again = facts_from_json(facts_to_json(first))
    assert math.isnan(again.edge_spread_mm[1])
    assert facts_to_json(again) == facts_to_json(first)
    assert replace(again, edge_spread_mm=(1, 1, 1)) == replace(first, edge_spread_mm=(1, 1, 1))
    with pytest.raises(BadInputError, match="not the facts of a scan"):
        facts_from_json({"name": "x"})
    assert errors_to_json(compare(first, facts()))["edge_spread_mean"] == 0


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(64), seed=2)


def scan_of(head, seed, sd=0.4, blur_voxels=0.0):
    clean = sum(LEVEL[name] * head.tissues.prob[i] for i, name in enumerate(TISSUES)).numpy()
    blurred = ndimage.gaussian_filter(clean, blur_voxels) if blur_voxels else clean
    noisy = add_noise(torch.from_numpy(blurred).float(), sd, seeded(seed, "fidelity"))
    return scan_facts(Volume(noisy, head.grid), head.tissues, f"scan {seed}")


def test_measured_scans_of_other_noise_agree_and_blur_shows_in_the_edges(head):
    real, again, soft = scan_of(head, 1), scan_of(head, 2), scan_of(head, 3, blur_voxels=1.2)
    same, blurred = compare(again, real), compare(soft, real)
    assert same.snr < 0.03
    assert same.cnr < 0.05
    assert same.histogram < 0.02
    assert same.edge_spread_mean < 0.1
    assert blurred.edge_spread_mean > 0.3
    assert blurred.edge_spread_mean > 3 * same.edge_spread_mean


def test_measured_snr_of_half_the_noise(head):
    errors = compare(scan_of(head, 1, sd=0.2), scan_of(head, 2, sd=0.4))
    assert errors.snr_log == pytest.approx(math.log(2), abs=0.05)


def test_correlation_of_one_person_moved_is_high_and_of_noise_low(head):
    scan = Volume(sum(LEVEL[n] * head.tissues.prob[i] for i, n in enumerate(TISSUES)).float(), head.grid)
    motion = rotation((0.05, -0.04, 0.06))
    motion[:3, 3] = (4, -3, 5)
    moved = Volume(ResampleOp(head.grid, head.grid, motion)(scan.data), head.grid)
    mask = head.tissues.mask
    plain = float(torch.corrcoef(torch.stack([moved.data[mask], scan.data[mask]]))[0, 1])
    found = registered_ncc(moved, scan, mask)
    assert found > 0.9
    assert found > plain + 0.1
