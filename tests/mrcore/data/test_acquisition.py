"""Acquisitions: exact JSON round trip, refusals."""

import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest

from mrcore.data.acquisition import Acquisition, AxisPsf, PulseSequence, from_json, fse_decay, gaussian_psf, to_json
from mrcore.errors import BadInputError

FULL = Acquisition(
    field_t=0.064,
    voxel_mm=(1.6, 1.7, 5.123456789012345),
    sequence=PulseSequence("FLAIR", tr_s=3.5, te_s=0.1623, ti_s=1.301, flip_deg=89.5, echo_train_length=68),
    noise_sd=math.pi,
    psf=(AxisPsf(1.1, 2.2, False, decay_at_edge=0.7), AxisPsf(0.1 + 0.2, taper=1 / 3), AxisPsf(box_mm=5.0)),
    slice_axis="A",
    tilt_deg=(10.1, -1 / 3, 180.0),
    noise_fwhm_mm=(0.0, 2.2, 0.1 + 0.2),
    n_channels=8,
)
OTHERS = {
    "field_t": 0.055,
    "voxel_mm": (1.6, 1.7, 5.0),
    "sequence": replace(FULL.sequence, ti_s=1.3),
    "noise_sd": 3.0,
    "psf": gaussian_psf((1.6, 1.7, 5.0), 0.9),
    "slice_axis": "R",
    "tilt_deg": (10.1, 0.0, 180.0),
    "noise_fwhm_mm": (0.0, 2.2, 0.3),
    "n_channels": 4,
}


@pytest.mark.parametrize("acquisition", [FULL, Acquisition(3, (1, 1, 1), PulseSequence("T1w"))])
def test_json_round_trip_is_exact(acquisition):
    back = from_json(json.loads(json.dumps(to_json(acquisition))))
    assert back == acquisition
    assert hash(back) == hash(acquisition)


def test_every_field_is_kept():
    assert set(OTHERS) == {f.name for f in fields(Acquisition)}
    for name, value in OTHERS.items():
        other = replace(FULL, **{name: value})
        assert other != FULL
        assert from_json(json.loads(json.dumps(to_json(other)))) == other
    for f in fields(PulseSequence):
        sequence = replace(FULL.sequence, **{f.name: "T2w" if f.name == "weighting" else 1})
        assert to_json(replace(FULL, sequence=sequence)) != to_json(FULL)


def test_json_without_the_newer_fields_still_reads():
    """Older versions wrote no window, decay, tilt, colour or channels."""
    values = json.loads(json.dumps(to_json(FULL)))
    for name in ("tilt_deg", "noise_fwhm_mm", "n_channels"):
        del values["Acquisition"][name]
    for axis in values["Acquisition"]["psf"]:
        del axis["taper"], axis["decay_at_edge"]
    psf = (AxisPsf(1.1, 2.2, False), AxisPsf(0.1 + 0.2), AxisPsf(box_mm=5.0))
    plain = replace(FULL, psf=psf, tilt_deg=(0.0,) * 3, noise_fwhm_mm=(0.0,) * 3, n_channels=1)
    assert from_json(values) == plain


def test_decay_of_an_echo_train():
    """80 ms from the centre to the edge at a T2 of 100 ms leaves exp(-0.8)."""
    assert fse_decay(0.08, 0.1) == pytest.approx(0.8)
    assert fse_decay(0.0, 0.1) == 0
    with pytest.raises(BadInputError, match="train_s"):
        fse_decay(-0.1, 0.1)
    with pytest.raises(BadInputError, match="t2_s"):
        fse_decay(0.1, 0.0)


def test_bids_keys_in_bids_units():
    values = to_json(FULL)
    assert values["MagneticFieldStrength"] == 0.064
    assert (values["RepetitionTime"], values["EchoTime"], values["InversionTime"]) == (3.5, 0.1623, 1.301)
    assert (values["FlipAngle"], values["EchoTrainLength"]) == (89.5, 68)
    assert "InversionTime" not in to_json(replace(FULL, sequence=PulseSequence("T2w", tr_s=2.0)))


def test_numbers_of_arrays_become_plain():
    acquisition = replace(FULL, voxel_mm=tuple(np.array([1.5, 1.5, 5], np.float32)))
    assert from_json(json.loads(json.dumps(to_json(acquisition)))) == acquisition


def test_gaussian_psf_is_in_voxels():
    assert [axis.gaussian_fwhm_mm for axis in gaussian_psf((1.6, 2.0, 5.0), 0.5)] == pytest.approx([0.8, 1.0, 2.5])
    assert all(axis.truncate for axis in gaussian_psf((1, 1, 1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"field_t": 64}, "in tesla and between 0.001 and 20, got 64"),
        ({"field_t": math.nan}, "field_t"),
        ({"voxel_mm": (1, 1)}, "three sizes"),
        ({"voxel_mm": (1, 1, 0)}, "three sizes between 0.05 and 50 mm"),
        ({"noise_sd": -1}, "noise_sd must be finite and not negative"),
        ({"noise_sd": math.nan}, "noise_sd"),
        ({"slice_axis": "Z"}, "R, A or S, got 'Z'"),
        ({"psf": (AxisPsf(),) * 2}, "one AxisPsf per voxel axis"),
        ({"psf": (1.0, 1.0, 1.0)}, "one AxisPsf per voxel axis"),
        ({"tilt_deg": (0, 0)}, "three angles"),
        ({"tilt_deg": (0, 181, 0)}, "between -180 and 180 degrees"),
        ({"tilt_deg": (0, math.nan, 0)}, "three angles"),
        ({"noise_fwhm_mm": (0, -1, 0)}, "noise_fwhm_mm needs three widths"),
        ({"noise_fwhm_mm": (0, math.inf, 0)}, "noise_fwhm_mm needs three widths"),
        ({"n_channels": 0}, "n_channels is a whole number"),
        ({"n_channels": 1.5}, "n_channels is a whole number"),
    ],
)
def test_refuses(change, message):
    with pytest.raises(BadInputError, match=message):
        replace(FULL, **change)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AxisPsf(gaussian_fwhm_mm=-1), "not negative"),
        (lambda: AxisPsf(box_mm=math.nan), "finite"),
        (lambda: AxisPsf(taper=1.1), "between 0 and 1, got 1.1"),
        (lambda: AxisPsf(taper=math.nan), "between 0 and 1"),
        (lambda: AxisPsf(taper=0.5, truncate=False), "truncated band; set truncate=True"),
        (lambda: AxisPsf(decay_at_edge=-0.1), "decay_at_edge"),
        (lambda: AxisPsf(decay_at_edge=math.inf), "decay_at_edge"),
        (lambda: PulseSequence("T1w", tr_s=2000), "tr_s is in seconds .* got 2000; were milliseconds meant"),
        (lambda: PulseSequence("T1w", te_s=-0.1), "te_s is in seconds"),
        (lambda: PulseSequence("T1w", flip_deg=400), "flip_deg is in degrees"),
        (lambda: PulseSequence("T1w", echo_train_length=0), "at least 1"),
    ],
)
def test_parts_refuse(build, message):
    with pytest.raises(BadInputError, match=message):
        build()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "no 'Acquisition' block"),
        ({"Acquisition": {"field_t": 3.0}}, "not complete or not of this version: 'psf'"),
        ({"Acquisition": to_json(FULL)["Acquisition"] | {"colour": "red"}}, "not of this version.*colour"),
        ({"Acquisition": to_json(FULL)["Acquisition"] | {"field_t": "strong"}}, "not of this version"),
        ({"Acquisition": to_json(FULL)["Acquisition"] | {"psf": 3}}, "not of this version"),
    ],
)
def test_from_json_refuses(values, message):
    with pytest.raises(BadInputError, match=message):
        from_json(values)
