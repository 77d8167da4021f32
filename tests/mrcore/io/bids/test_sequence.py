import json

import pytest

from mrcore.data.acquisition import Acquisition, PulseSequence, to_json
from mrcore.errors import BadInputError
from mrcore.io.bids.sequence import field_from_sidecar, is_hyperfine, sequence_from_sidecar
from mrcore.signals.steady_state import tissue_signals

SWOOP_T2W = {
    "Manufacturer": "Hyperfine",
    "ManufacturersModelName": "Swoop",
    "MagneticFieldStrength": 0.064,
    "SeriesDescription": "T2 (AXI)",
    "RepetitionTime": 2.0,
    "EchoTime": 0.1948,
    "EchoTrainLength": 80,
}
MPRAGE = {
    "Manufacturer": "Siemens",
    "MagneticFieldStrength": 3,
    "ScanningSequence": ["GR", "IR"],
    "SequenceName": "*tfl3d1_16ns",
    "ProtocolName": "t1_mprage_sag",
    "RepetitionTime": 2.3,
    "EchoTime": 0.00298,
    "InversionTime": 0.9,
    "FlipAngle": 9,
}


def test_a_clean_sidecar_is_read_as_it_is():
    found = sequence_from_sidecar(SWOOP_T2W)
    assert found.sequence == PulseSequence("T2w", tr_s=2.0, te_s=0.1948, echo_train_length=80)
    assert found.field_t == 0.064
    assert found.notes == ()


def test_sidecars_of_mrkit_come_back_exactly():
    acquisition = Acquisition(0.064, (1.6, 1.6, 5.0), PulseSequence("FLAIR", 3.5, 0.162, 1.301, 90.0, 68, 0.0048))
    found = sequence_from_sidecar(json.loads(json.dumps(to_json(acquisition))), "T1w")
    assert found == (acquisition.sequence, 0.064, ())


@pytest.mark.parametrize("vendor", ["Philips", "GE", "Siemens", "Unknown", None, ""])
@pytest.mark.parametrize("field_t", [None, 0, 0.064, "0.064", 64, 640, 1.5, 3.0])
@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("ManufacturersModelName", "Swoop"),
        ("StationName", "HYPERFINE-12"),
        ("DeviceSerialNumber", "SWOOP0123"),
        ("InstitutionName", "Hyperfine Research"),
    ],
)
def test_mislabelled_hyperfine_scans_are_accepted(vendor, field_t, key, text):
    values = {k: v for k, v in SWOOP_T2W.items() if k != "ManufacturersModelName"}
    found = sequence_from_sidecar({**values, "Manufacturer": vendor, "MagneticFieldStrength": field_t, key: text})
    assert found.field_t == pytest.approx(0.064)
    assert found.sequence == sequence_from_sidecar(SWOOP_T2W).sequence
    assert "dcm2niix#653" in found.notes[0]
    assert len(found.notes) == (1 if field_t in (0.064, "0.064") else 2)


def test_other_scanners_keep_their_field():
    assert not is_hyperfine(MPRAGE)
    assert sequence_from_sidecar(MPRAGE).field_t == 3.0
    assert sequence_from_sidecar({k: v for k, v in MPRAGE.items() if k != "MagneticFieldStrength"}).field_t is None
    assert field_from_sidecar({"MagneticFieldStrength": 1.5}) == (1.5, ())
    with pytest.raises(BadInputError, match="mT or gauss"):
        sequence_from_sidecar({**MPRAGE, "MagneticFieldStrength": 64})


def test_a_train_of_gradient_echoes_is_assumed_and_said():
    found = sequence_from_sidecar(MPRAGE)
    assert (found.sequence.weighting, found.sequence.flip_deg) == ("T1w", 9)
    assert (found.sequence.echo_train_length, found.sequence.echo_spacing_s) == (176, 0.007)
    assert "assumed" in found.notes[0]
    known = sequence_from_sidecar({**MPRAGE, "RepetitionTimeExcitation": 0.0075, "NumberShots": 160})
    assert (known.sequence.echo_train_length, known.sequence.echo_spacing_s) == (160, 0.0075)
    assert known.notes == ()
    # A short TI leaves room for fewer; what is assumed always fits.
    short = sequence_from_sidecar({**MPRAGE, "InversionTime": 0.3})
    assert short.sequence.echo_train_length < 100
    assert tissue_signals(short.sequence, 3.0, ("GM",))[0] > 0
    for each in (found, known):
        grey, white = tissue_signals(each.sequence, 3.0, ("GM", "WM"))
        assert white > grey


def test_the_time_between_excitations_is_not_taken_for_that_between_inversions():
    philips = {**MPRAGE, "RepetitionTime": 0.0081, "Manufacturer": "Philips"}
    with pytest.raises(BadInputError, match="RepetitionTimePreparation"):
        sequence_from_sidecar(philips)
    found = sequence_from_sidecar({**philips, "RepetitionTimePreparation": 2.2})
    assert found.sequence.tr_s == 2.2


@pytest.mark.parametrize(
    ("names", "weighting"),
    [
        ({"SeriesDescription": "t2_tirm_tra_dark-fluid_4mm"}, "FLAIR"),
        ({"SeriesDescription": "Ax T2 FLAIR"}, "FLAIR"),
        ({"SeriesDescription": "Ax T1 FLAIR"}, "T1w"),
        ({"SeriesDescription": "T1 (AXI) Gray/White"}, "T1w"),
        ({"ProtocolName": "FSPGR BRAVO"}, "T1w"),
        ({"ProtocolName": "sag_3D_T2w_SPACE"}, "T2w"),
        ({"PulseSequenceName": "3D_MP-RAGE"}, "T1w"),
        ({"SequenceName": "*spcir_278ns"}, "FLAIR"),
        ({"ProtocolName": "T2_TFE"}, "T2w"),
        ({"ProtocolName": "head", "SeriesDescription": ["T2", "AXI"]}, "T2w"),
    ],
)
def test_weighting_by_name(names, weighting):
    values = {"RepetitionTime": 3.5, "EchoTime": 0.16, "InversionTime": 1.3, "FlipAngle": 90, **names}
    found = sequence_from_sidecar(values, weighting)
    assert found.sequence.weighting == weighting
    assert found.notes == ()
    other = "T2w" if weighting == "T1w" else "T1w"
    found = sequence_from_sidecar(values, other)
    assert found.sequence.weighting == weighting
    assert f"not {other}" in found.notes[0]


@pytest.mark.parametrize(
    ("times", "weighting"),
    [((0.5, 0.01, None), "T1w"), ((3.0, 0.1, None), "T2w"), ((3.5, 0.16, 1.3), "FLAIR"), ((1.5, 0.005, 0.3), "T1w")],
)
def test_weighting_by_times_alone_is_said(times, weighting):
    values = dict(zip(("RepetitionTime", "EchoTime", "InversionTime"), times, strict=True))
    found = sequence_from_sidecar(values)
    assert found.sequence.weighting == weighting
    assert "times alone" in found.notes[0]
    assert sequence_from_sidecar(values, weighting).notes == ()


@pytest.mark.parametrize("name", ["T2* GRE", "t2_star", "T1_T2_map", "localizer", "t10"])
def test_names_that_say_no_weighting(name):
    values = {"RepetitionTime": 2.0, "EchoTime": 0.1, "SeriesDescription": name}
    assert sequence_from_sidecar(values, "T2w").sequence.weighting == "T2w"
    with pytest.raises(BadInputError, match="says the weighting"):
        sequence_from_sidecar({**values, "EchoTime": 0.045})


@pytest.mark.parametrize(("key", "value"), [("RepetitionTime", 2000), ("EchoTime", 194.8), ("InversionTime", 1301.0)])
def test_milliseconds_are_refused_with_the_right_value(key, value):
    with pytest.raises(BadInputError, match=rf"{key} .*milliseconds, write {value / 1000:g}"):
        sequence_from_sidecar({**SWOOP_T2W, key: value})


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ("2 s", "without unit"),
        (-2.0, "not negative"),
        (True, "finite number"),
        (float("nan"), "finite number"),
        ({"a": 1}, "finite number"),
        ([2.0, 3.0], "several values"),
    ],
)
def test_values_that_are_no_numbers_are_refused(value, match):
    with pytest.raises(BadInputError, match=f"RepetitionTime .*{match}"):
        sequence_from_sidecar({**SWOOP_T2W, "RepetitionTime": value})


@pytest.mark.parametrize("value", ["2.0", [2.0], [2, 2], 2])
def test_odd_spellings_of_a_number_are_read(value):
    assert sequence_from_sidecar({**SWOOP_T2W, "RepetitionTime": value}).sequence.tr_s == 2.0


@pytest.mark.parametrize("value", [None, 0, "", [], 0.0])
def test_what_is_missing_is_listed_with_a_remedy(value):
    values = {"RepetitionTime": value, "EchoTime": value, "SeriesDescription": "FLAIR"}
    with pytest.raises(BadInputError, match=r"FLAIR.*RepetitionTime, EchoTime, InversionTime; add .*preset"):
        sequence_from_sidecar(values)
    with pytest.raises(BadInputError, match="RepetitionTime, EchoTime"):
        sequence_from_sidecar({}, "T2w")
    with pytest.raises(BadInputError, match="InversionTime"):
        sequence_from_sidecar({k: v for k, v in MPRAGE.items() if k != "InversionTime"})
    with pytest.raises(BadInputError, match="FlipAngle"):
        sequence_from_sidecar({**MPRAGE, "FlipAngle": value})


def test_times_that_contradict_each_other_are_refused():
    with pytest.raises(BadInputError, match="EchoTime"):
        sequence_from_sidecar({**SWOOP_T2W, "RepetitionTime": 0.1})
    with pytest.raises(BadInputError, match=r"InversionTime 2\.5 s is not below"):
        sequence_from_sidecar({**SWOOP_T2W, "InversionTime": 2.5})
    with pytest.raises(BadInputError, match="whole number"):
        sequence_from_sidecar({**SWOOP_T2W, "EchoTrainLength": 8.5})


def test_a_spin_echo_of_a_small_angle_stays_a_spin_echo():
    values = {"RepetitionTime": 0.5, "EchoTime": 0.01, "FlipAngle": 70, "ScanningSequence": "SE"}
    assert sequence_from_sidecar(values, "T1w").sequence.flip_deg is None
    gradient = sequence_from_sidecar({**values, "ScanningSequence": "GR", "EchoTrainLength": 1}, "T1w").sequence
    assert (gradient.flip_deg, gradient.echo_train_length) == (70, None)


@pytest.mark.parametrize(
    "base", [SWOOP_T2W, MPRAGE, to_json(Acquisition(3.0, (1, 1, 1), PulseSequence("T1w", 1.0, 0.01)))]
)
def test_nothing_in_a_sidecar_ends_in_another_error(base):
    odd = [None, True, 0, -1, 1e-9, 5, 10**400, 1e308, float("inf"), "", "x", "3", "nan", [], [1, 2], [None], [[1]], {}]
    for key in {*SWOOP_T2W, *MPRAGE, "NumberShots", "RepetitionTimeExcitation", "RepetitionTimePreparation"}:
        for value in odd:
            try:
                found = sequence_from_sidecar({**base, key: value}, "T1w")
            except BadInputError:
                continue
            assert found.sequence.tr_s > found.sequence.te_s > 0
