import pytest

from mrcore.data.acquisition import PulseSequence
from mrcore.data.volume import TISSUES
from mrcore.errors import BadInputError
from mrcore.signals.steady_state import tissue_signals
from ulfsim.protocols.presets import PRESETS, Preset, bloch_snr, with_wm_snr


@pytest.mark.parametrize(
    ("name", "voxel_mm", "weighting"),
    [
        ("hyperfine-t1w", (1.6, 1.6, 5.0), "T1w"),
        ("hyperfine-t2w", (1.5, 1.5, 5.0), "T2w"),
        ("hyperfine-flair", (1.7, 1.7, 5.0), "FLAIR"),
    ],
)
def test_presets_state_what_they_are(name, voxel_mm, weighting):
    preset = PRESETS[name]
    assert preset.name == name
    assert preset.acquisition.voxel_mm == voxel_mm
    assert preset.acquisition.sequence.weighting == weighting
    assert preset.acquisition.field_t == 0.064
    assert preset.acquisition.noise_sd == 0
    assert [axis.gaussian_fwhm_mm for axis in preset.acquisition.psf] == list(voxel_mm)
    assert set(preset.snr) == set(TISSUES)
    assert "SNR" in preset.source
    assert "PSF" in preset.source


def test_t1w_has_the_delivered_snr_of_the_third_subject():
    assert dict(PRESETS["hyperfine-t1w"].snr) == {"WM": 50.8, "GM": 40.1, "CSF": 14.0}
    assert "from memory" in PRESETS["hyperfine-t1w"].source


@pytest.mark.parametrize("name", ["hyperfine-t2w", "hyperfine-flair"])
def test_other_weightings_follow_bloch_from_the_wm_anchor(name):
    preset = PRESETS[name]
    signals = dict(zip(TISSUES, tissue_signals(preset.acquisition.sequence, 0.064, TISSUES), strict=True))
    assert preset.snr["WM"] == pytest.approx(50.8)
    assert preset.snr["GM"] / preset.snr["WM"] == pytest.approx(signals["GM"] / signals["WM"])
    assert preset.snr["CSF"] / preset.snr["WM"] == pytest.approx(signals["CSF"] / signals["WM"])
    assert "Bloch" in preset.source


def test_contrast_orders_of_the_weightings():
    t2w, flair = PRESETS["hyperfine-t2w"].snr, PRESETS["hyperfine-flair"].snr
    assert t2w["CSF"] > t2w["GM"] > t2w["WM"]
    assert flair["GM"] > flair["WM"] > flair["CSF"]


def test_field_changes_bloch_targets():
    sequence = PulseSequence("T2w", tr_s=2.0, te_s=0.1)
    assert bloch_snr(sequence, 0.064, 50)["GM"] - bloch_snr(sequence, 3.0, 50)["GM"] > 5


def test_scaling_keeps_the_contrast():
    scaled = with_wm_snr(PRESETS["hyperfine-t1w"], 25.4)
    assert scaled.snr["WM"] == pytest.approx(25.4)
    assert scaled.snr["GM"] == pytest.approx(40.1 / 2)
    assert "25.4" in scaled.source
    with pytest.raises(BadInputError, match="positive"):
        with_wm_snr(scaled, 0.0)


def test_a_preset_needs_positive_snr():
    with pytest.raises(BadInputError, match="positive SNR"):
        Preset("x", PRESETS["hyperfine-t1w"].acquisition, {"WM": 0.0}, "test")
