from dataclasses import replace

import pytest

from mrcore.data.acquisition import PulseSequence
from mrcore.data.volume import TISSUES
from mrcore.errors import BadInputError
from mrcore.signals.steady_state import tissue_signals
from mrcore.signals.tissue import TISSUE_TABLE, known_at
from ulfsim.protocols.bloch import bloch_preset, bloch_spread
from ulfsim.protocols.presets import PRESETS

T2W = PulseSequence("T2w", tr_s=2.0, te_s=0.1948, echo_train_length=80)
FLAIR = PulseSequence("FLAIR", tr_s=3.5, te_s=0.162, ti_s=1.301)
VOXEL_MM = (1.5, 1.5, 5.0)


def test_a_preset_has_the_bloch_ratios_and_says_where_they_are_from():
    preset = bloch_preset(T2W, 0.064, VOXEL_MM, 40.0, slice_axis="A")
    signals = dict(zip(TISSUES, tissue_signals(T2W, 0.064, TISSUES), strict=True))
    for name in TISSUES:
        assert preset.snr[name] == pytest.approx(40 * signals[name] / signals["WM"])
    assert preset.acquisition.sequence == T2W
    assert (preset.acquisition.field_t, preset.acquisition.slice_axis) == (0.064, "A")
    assert [axis.gaussian_fwhm_mm for axis in preset.acquisition.psf] == list(VOXEL_MM)
    assert preset.name == "bloch-t2w-0.064t"
    for text in ("Bloch", "O'Reilly", "PSF: assumed", "WM 40"):
        assert text in preset.source


def test_the_shipped_t2w_preset_is_the_same_contrast():
    shipped = PRESETS["hyperfine-t2w"]
    own = bloch_preset(shipped.acquisition.sequence, 0.064, VOXEL_MM, shipped.snr["WM"])
    assert dict(own.snr) == pytest.approx(dict(shipped.snr))


def test_field_and_table_change_the_contrast():
    low, high = (bloch_preset(T2W, field_t, VOXEL_MM, 40.0).snr["GM"] for field_t in (0.064, 3.0))
    assert low > 1.1 * high
    table = {**TISSUE_TABLE, "GM": known_at(0.064, 0.327, 0.077, 0.70, "own")}
    assert bloch_preset(T2W, 0.064, VOXEL_MM, 40.0, table=table).snr["GM"] == pytest.approx(40, rel=0.05)
    assert "own" in bloch_preset(T2W, 0.064, VOXEL_MM, 40.0, table=table).source


def test_a_nulled_tissue_gets_a_target_that_can_be_aimed_at():
    # TI of the null: T1 ln(2 / (1 + exp(-TR / T1))), at T1 4 s and TR 3.5 s.
    table = {**TISSUE_TABLE, "CSF": known_at(0.064, 4.0, 1.9, 1.0, "test")}
    nulling = replace(FLAIR, ti_s=1.3788103982)
    preset = bloch_preset(nulling, 0.064, VOXEL_MM, 50.0, table=table)
    assert preset.snr["CSF"] == pytest.approx(0.05)
    assert "CSF nulled" in preset.source
    assert "nulled" not in bloch_preset(FLAIR, 0.064, VOXEL_MM, 50.0).source


@pytest.mark.parametrize("wm_snr", [0.0, -1.0, float("inf"), float("nan")])
def test_an_snr_that_is_not_positive_is_refused(wm_snr):
    with pytest.raises(BadInputError, match="wm_snr"):
        bloch_preset(T2W, 0.064, VOXEL_MM, wm_snr)


def test_sequences_and_fields_that_are_not_known_are_refused():
    with pytest.raises(BadInputError, match="te_s"):
        bloch_preset(PulseSequence("T1w", tr_s=1.0), 0.064, VOXEL_MM, 40.0)
    with pytest.raises(BadInputError, match="not extrapolated"):
        bloch_preset(T2W, 7.0, VOXEL_MM, 40.0)
    with pytest.raises(BadInputError, match="WM"):
        bloch_preset(T2W, 0.064, VOXEL_MM, 40.0, names=("CSF", "GM"))


def test_spread_by_hand_where_only_density_is_uncertain():
    """GM / WM is then PD_GM / PD_WM, uniform between 0.9 and 1.1: percentiles at 0.91 and 1.09."""
    exact = {name: known_at(0.064, 0.3, 0.1, 0.8, "test") for name in ("GM", "WM")}
    grey = exact["GM"]
    table = {**exact, "GM": replace(grey, pd=(replace(grey.pd[0], spread=0.08),))}
    found = bloch_spread(T2W, 0.064, ("WM", "GM"), table)
    assert found.relative == pytest.approx((1.0, 1.0))
    assert (found.low[1], found.high[1]) == pytest.approx((0.91, 1.09), abs=0.003)
    assert (found.low[0], found.high[0]) == (1.0, 1.0)
    assert found.wm_gm == pytest.approx((0.0, -0.09 / 2.09, 0.09 / 1.91), abs=0.002)


def test_spread_of_the_built_in_table():
    found = bloch_spread(T2W, 0.064)
    assert found.names == TISSUES
    for low, value, high in zip(found.low, found.relative, found.high, strict=True):
        assert low <= value <= high
    # Published T2s leave it certain that GM is brighter than WM in T2w, but hardly by how much.
    assert found.wm_gm[2] < 0
    assert found.high[1] / found.low[1] > 1.5
    assert bloch_spread(T2W, 0.064) == found
    assert bloch_spread(T2W, 0.064, seed=1) != found
    assert bloch_spread(T2W, 0.064, seed=1).high == pytest.approx(found.high, rel=0.03)
    with pytest.raises(BadInputError, match="WM"):
        bloch_spread(T2W, 0.064, ("WM", "CSF"))


def beside(preset):
    """Signal relative to WM that a preset delivers, and low, middle and high of what its sequence predicts."""
    found = bloch_spread(preset.acquisition.sequence, preset.acquisition.field_t, tuple(preset.snr))
    rows = zip(found.names, found.low, found.relative, found.high, strict=True)
    return {name: (preset.snr[name] / preset.snr["WM"], *row) for name, *row in rows}


def test_delivered_beside_predicted():
    for delivered, _, predicted, _ in beside(PRESETS["hyperfine-flair"]).values():
        assert delivered == pytest.approx(predicted)
    # The times of the T1w protocol are from memory; they do not explain how dark CSF is.
    first = beside(PRESETS["hyperfine-t1w"])
    delivered, low, _, high = first["GM"]
    assert delivered == pytest.approx(40.1 / 50.8)
    assert low < delivered < high
    delivered, low, predicted, _ = first["CSF"]
    assert predicted == pytest.approx(0.87, abs=0.01)
    assert delivered < low
