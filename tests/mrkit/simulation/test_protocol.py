"""What of a protocol a user may change, and protocols from sidecars."""

import json

import pytest

from mrcore.data.acquisition import AxisPsf
from mrcore.errors import BadInputError
from mrkit.simulation.protocol import NO_CHANGES, Changes, bloch_protocol, changed, preset_named
from ulfsim.protocols.presets import PRESETS

SWOOP = PRESETS["hyperfine-t1w"]
T2W = {"MagneticFieldStrength": 0.064, "RepetitionTime": 2.0, "EchoTime": 0.19, "SeriesDescription": "T2 axial"}


def write(folder, values, name="scan.json"):
    path = folder / name
    path.write_text(json.dumps(values))
    return path


def test_without_changes_the_preset_is_the_same():
    assert changed(SWOOP, NO_CHANGES) is SWOOP


def test_another_voxel_takes_its_point_spread_along():
    new = changed(SWOOP, Changes(voxel_mm=(3.2, 0.8, 7.5))).acquisition
    assert new.voxel_mm == (3.2, 0.8, 7.5)
    ratio = [a.gaussian_fwhm_mm / b.gaussian_fwhm_mm for a, b in zip(new.psf, SWOOP.acquisition.psf, strict=True)]
    assert ratio == pytest.approx([2.0, 0.5, 1.5])


def test_slices_with_gaps_are_as_wide_as_they_are_thick_and_not_band_limited():
    new = changed(SWOOP, Changes(voxel_mm=(1.5, 1.5, 6.0), slice_thickness_mm=4.5)).acquisition
    assert new.voxel_mm == (1.5, 1.5, 6.0)
    assert new.psf[2] == AxisPsf(gaussian_fwhm_mm=4.5, truncate=False)
    assert new.psf[:2] == changed(SWOOP, Changes(voxel_mm=(1.5, 1.5, 6.0))).acquisition.psf[:2]
    same = changed(SWOOP, Changes(slice_thickness_mm=SWOOP.acquisition.voxel_mm[2]))
    assert same.acquisition == SWOOP.acquisition
    with pytest.raises(BadInputError, match=r"slices of 0\.5 mm do not go with a distance of 5 mm"):
        changed(SWOOP, Changes(slice_thickness_mm=0.5))


def test_each_change_arrives_and_is_named():
    changes = Changes(slice_axis="A", tilt_deg=(1.0, 2.0, 3.0), noise_fwhm_mm=(2.0, 0.0, 0.0), n_channels=4)
    new = changed(SWOOP, changes)
    scan = new.acquisition
    assert (scan.slice_axis, scan.tilt_deg, scan.noise_fwhm_mm, scan.n_channels) == (
        "A",
        (1.0, 2.0, 3.0),
        (2.0, 0.0, 0.0),
        4,
    )
    assert new.snr == SWOOP.snr
    for text in (SWOOP.source, "slice_axis A", "n_channels 4"):
        assert text in new.source


def test_snr_of_one_tissue_leaves_the_others():
    new = changed(SWOOP, Changes(snr={"CSF": 3.5}))
    assert new.snr == {**SWOOP.snr, "CSF": 3.5}
    with pytest.raises(BadInputError, match=r"no tissue FAT .* CSF"):
        changed(SWOOP, Changes(snr={"FAT": 1.0}))


def test_unknown_preset_is_refused():
    assert preset_named("hyperfine-flair").acquisition.sequence.weighting == "FLAIR"
    with pytest.raises(BadInputError, match=r"no preset 'swoop'.*hyperfine-t1w"):
        preset_named("swoop")


def test_sidecar_becomes_a_protocol_by_the_bloch_equations(tmp_path):
    preset = bloch_protocol(write(tmp_path, T2W), None, (2.0, 2.0, 6.0), 40.0)
    assert preset.acquisition.voxel_mm == (2.0, 2.0, 6.0)
    assert preset.snr["WM"] == pytest.approx(40.0)
    assert preset.snr["CSF"] > preset.snr["GM"] > preset.snr["WM"]
    assert "scan.json" in preset.source
    at_high_field = bloch_protocol(write(tmp_path, T2W), 3.0, (2.0, 2.0, 6.0), 40.0)
    assert at_high_field.acquisition.field_t == 3.0
    assert at_high_field.snr["CSF"] / at_high_field.snr["WM"] != pytest.approx(preset.snr["CSF"] / 40.0, rel=0.05)


def test_table_of_the_user_changes_the_contrast(tmp_path):
    table = tmp_path / "own.toml"
    table.write_text('[GM]\nt1_s = 0.33\nt2_s = 0.2\npd = 0.8\nfield_t = 0.064\nsource = "own scans"\n')
    sidecar = write(tmp_path, T2W)
    own = bloch_protocol(sidecar, None, (2.0, 2.0, 6.0), 40.0, table)
    assert own.snr["GM"] > 1.5 * bloch_protocol(sidecar, None, (2.0, 2.0, 6.0), 40.0).snr["GM"]
    assert "own scans" in own.source


def test_sidecar_without_field_or_times_is_refused(tmp_path):
    no_field = {key: value for key, value in T2W.items() if key != "MagneticFieldStrength"}
    with pytest.raises(BadInputError, match="--field"):
        bloch_protocol(write(tmp_path, no_field), None, (2.0, 2.0, 6.0), 40.0)
    with pytest.raises(BadInputError, match="EchoTime"):
        bloch_protocol(write(tmp_path, {**T2W, "EchoTime": None}), None, (2.0, 2.0, 6.0), 40.0)
    with pytest.raises(BadInputError, match="no such file"):
        bloch_protocol(tmp_path / "none.json", None, (2.0, 2.0, 6.0), 40.0)
