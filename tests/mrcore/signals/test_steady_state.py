import math
from dataclasses import replace

import pytest
import torch

from mrcore.data.acquisition import PulseSequence
from mrcore.errors import BadInputError
from mrcore.signals.steady_state import (
    Train,
    inversion_recovery,
    mprage,
    sequence_signal,
    signal_of,
    spin_echo,
    spoiled_gre,
    tissue_signals,
)
from mrcore.signals.tissue import TISSUE_TABLE, known_at, relaxation

FLAIR = PulseSequence("FLAIR", tr_s=3.5, te_s=0.162, ti_s=1.301)


def test_spoiled_gradient_echo_by_hand():
    # TR = T1 ln 2 makes E1 one half; 90 degrees leaves 1 - E1; TE = T2* leaves 1 / e.
    ln2 = math.log(2)
    assert float(spoiled_gre(2.0, 1.0, 0.05, ln2, 0.05, 90.0)) == pytest.approx(2 * 0.5 / math.e)
    # 60 degrees: sin 0.8660254, cos 0.5: 0.8660254 x 0.5 / (1 - 0.25).
    assert float(spoiled_gre(1.0, 1.0, 1.0, ln2, 0.0, 60.0)) == pytest.approx(0.8660254 * 0.5 / 0.75)


def test_spin_echo_by_hand():
    ln2 = math.log(2)
    assert float(spin_echo(0.8, 1.0, 0.1, ln2, 0.1)) == pytest.approx(0.8 * 0.5 / math.e)
    # An echo train of half TR leaves half of it for recovery.
    assert float(spin_echo(1.0, 1.0, 0.1, 2 * ln2, 0.0, train_s=ln2)) == pytest.approx(0.5)


def test_inversion_recovery_by_hand_and_at_its_null():
    # TI = T1 ln 2: 1 - 2 / 2 + exp(-TR / T1) = 1 / 8 for TR = 3 T1 ln 2.
    ln2 = math.log(2)
    assert float(inversion_recovery(1.0, 1.0, 1.0, 3 * ln2, 0.0, ln2)) == pytest.approx(0.125)
    null = 0.9 * math.log(2 / (1 + math.exp(-3 / 0.9)))
    assert float(inversion_recovery(1.0, 0.9, 0.1, 3.0, 0.0, null)) == pytest.approx(0, abs=1e-12)
    before = float(inversion_recovery(1.0, 0.9, 0.1, 3.0, 0.0, 0.5 * null))
    assert before > 0.1  # a magnitude


@pytest.mark.parametrize("t1_s", [3.7, 4.0, 4.3])
def test_flair_leaves_less_than_4_percent_of_csf(t1_s):
    assert float(inversion_recovery(1.0, t1_s, 1.9, 3.5, 0.0, 1.301)) < 0.04
    assert tissue_signals(FLAIR, 0.064, ("CSF",))[0] < 0.04


def test_a_change_of_field_changes_contrast():
    sequence = PulseSequence("T1w", tr_s=0.5, te_s=0.01)
    ratios = []
    for field_t in (0.064, 0.55, 3.0):
        white, grey = tissue_signals(sequence, field_t, ("WM", "GM"))
        ratios.append(grey / white)
    assert ratios[0] > ratios[1] + 0.05 > ratios[2] + 0.1


@pytest.mark.parametrize(
    ("changed", "value"), [("tr_s", 1.1), ("te_s", 0.03), ("ti_s", 0.41), ("flip_deg", 21.0), ("echo_train_length", 8)]
)
def test_each_parameter_changes_the_signal(changed, value):
    base = {"tr_s": 1.0, "te_s": 0.02, "flip_deg": 20.0}
    base |= {"ti_s": 0.4} if changed == "ti_s" else {}
    white = relaxation("WM", 1.5)
    before = signal_of(PulseSequence("T1w", **base), white)
    assert abs(signal_of(PulseSequence("T1w", **{**base, changed: value}), white) - before) > 1e-4


MPRAGE = PulseSequence(
    "T1w", tr_s=2.3, te_s=0.003, ti_s=0.9, flip_deg=9.0, echo_train_length=176, echo_spacing_s=0.0071
)


def _brute_force_mprage(t1_s, sequence, n_cycles=60):
    """Follow the longitudinal magnetisation of unit PD pulse by pulse; return the signal of the middle excitation."""
    n, spacing_s, angle = sequence.echo_train_length, sequence.echo_spacing_s, math.radians(sequence.flip_deg)

    def recover(m, duration_s):
        return 1 + (m - 1) * math.exp(-duration_s / t1_s)

    start_s = sequence.ti_s - (n // 2) * spacing_s
    m, signal = 1.0, 0.0
    for _ in range(n_cycles):
        m = recover(-m, start_s)
        for i in range(n):
            if i == n // 2:
                signal = abs(m) * math.sin(angle)
            m = recover(m * math.cos(angle), spacing_s)
        m = recover(m, sequence.tr_s - start_s - n * spacing_s)
    return signal


@pytest.mark.parametrize("t1_s", [0.3, 0.86, 1.31, 4.2])
@pytest.mark.parametrize("n", [1, 100, 175])
def test_mprage_is_the_steady_state_of_the_pulse_train(t1_s, n):
    sequence = replace(MPRAGE, echo_train_length=n)
    found = sequence_signal(sequence, 0.8, torch.tensor(t1_s, dtype=torch.float64), 0.05)
    assert float(found) == pytest.approx(0.8 * math.exp(-0.003 / 0.05) * _brute_force_mprage(t1_s, sequence), rel=1e-9)


def test_mprage_of_one_right_angle_is_saturation_and_inversion():
    # The 90 degree pulse at TI leaves nothing, so TR - TI of recovery are inverted: 1 - 2 e^-TI + e^-TR.
    found = float(mprage(1.0, 1.0, 1.0, Train(2.0, 0.0, 0.7, 0.01, 1), 90.0))
    assert found == pytest.approx(1 - 2 * math.exp(-0.7) + math.exp(-2.0))


def test_the_train_of_mprage_matters_and_must_fit():
    grey, white = tissue_signals(MPRAGE, 3.0, ("GM", "WM"))
    alone_grey, alone_white = tissue_signals(replace(MPRAGE, echo_spacing_s=None), 3.0, ("GM", "WM"))
    assert 0.55 < grey / white < 0.75
    assert abs(alone_grey / alone_white - grey / white) > 0.05
    with pytest.raises(BadInputError, match="do not fit"):
        tissue_signals(replace(MPRAGE, ti_s=0.6), 3.0, ("GM",))
    with pytest.raises(BadInputError, match="do not fit"):
        tissue_signals(replace(MPRAGE, tr_s=1.5), 3.0, ("GM",))


def test_an_echo_train_takes_time_from_recovery():
    fse = PulseSequence("T2w", tr_s=2.0, te_s=0.1, echo_train_length=80, echo_spacing_s=0.005)
    assert float(sequence_signal(fse, 1.0, 1.0, 0.1)) == pytest.approx((1 - math.exp(-1.6)) / math.e)
    flair = replace(fse, ti_s=0.6)
    expected = abs(1 - 2 * math.exp(-0.6) + math.exp(-1.6))
    assert float(sequence_signal(flair, 1.0, 1.0, 0.1)) == pytest.approx(expected / math.e)
    with pytest.raises(BadInputError, match=r"0\.4 s does not fit"):
        sequence_signal(replace(fse, tr_s=0.4), 1.0, 1.0, 0.1)


def test_order_of_grey_and_white_matter():
    grey, white, fluid = tissue_signals(MPRAGE, 3.0, ("GM", "WM", "CSF"))
    assert white > grey > fluid
    ir_fse = PulseSequence("T1w", tr_s=1.5, te_s=0.005, ti_s=0.3)
    grey, white = tissue_signals(ir_fse, 0.064, ("GM", "WM"))
    assert white > grey
    grey, white, fluid = tissue_signals(PulseSequence("T2w", tr_s=2.0, te_s=0.1948), 0.064, ("GM", "WM", "CSF"))
    assert fluid > grey > white


def test_a_table_of_the_user_is_used():
    table = {**TISSUE_TABLE, "WM": known_at(0.064, 0.6, 0.08, 0.7, "own")}
    sequence = PulseSequence("T1w", tr_s=0.5, te_s=0.01)
    own, default = (tissue_signals(sequence, 0.064, ("WM",), t)[0] for t in (table, TISSUE_TABLE))
    assert own == pytest.approx(0.7 * (1 - math.exp(-0.5 / 0.6)) * math.exp(-0.01 / 0.08))
    assert own < 0.9 * default


def test_maps_keep_shape_and_dtype():
    t1 = torch.full((2, 3, 4), 0.9)
    out = sequence_signal(FLAIR, 1.0, t1, 0.1)
    assert out.shape == t1.shape
    assert out.dtype == torch.float32


@pytest.mark.parametrize(
    "sequence",
    [
        PulseSequence("T1w", tr_s=1.0),
        PulseSequence("T1w", te_s=0.01),
        PulseSequence("T1w", tr_s=1.0, te_s=0.01, ti_s=1.5),
    ],
)
def test_incomplete_or_impossible_sequences_are_refused(sequence):
    with pytest.raises(BadInputError):
        sequence_signal(sequence, 1.0, 1.0, 0.1)


@pytest.mark.parametrize("spacing_s", [0.0, -0.005, 7.1])
def test_an_echo_spacing_is_in_seconds(spacing_s):
    with pytest.raises(BadInputError, match=r"echo_spacing_s is in seconds.*milliseconds"):
        replace(MPRAGE, echo_spacing_s=spacing_s)
