import math

import pytest
import torch

from mrcore.acquisition import Sequence
from mrcore.errors import BadInputError
from mrcore.signal import (
    ernst_angle_deg,
    inversion_recovery,
    sequence_signal,
    signal_of,
    spin_echo,
    spoiled_gre,
    tissue_signals,
)
from mrcore.tissue import TISSUE_TABLE, known_at, relaxation

FLAIR = Sequence("FLAIR", tr_s=3.5, te_s=0.162, ti_s=1.301)


def test_spoiled_gradient_echo_by_hand():
    # TR = T1 ln 2 makes E1 one half; 90 degrees leaves 1 - E1; TE = T2* leaves 1 / e.
    ln2 = math.log(2)
    assert float(spoiled_gre(2.0, 1.0, 0.05, ln2, 0.05, 90.0)) == pytest.approx(2 * 0.5 / math.e)
    # 60 degrees: sin 0.8660254, cos 0.5: 0.8660254 x 0.5 / (1 - 0.25).
    assert float(spoiled_gre(1.0, 1.0, 1.0, ln2, 0.0, 60.0)) == pytest.approx(0.8660254 * 0.5 / 0.75)


def test_ernst_angle_is_the_maximum():
    best = ernst_angle_deg(0.9, 0.02)
    assert best == pytest.approx(math.degrees(math.acos(math.exp(-0.02 / 0.9))))
    signal = [float(spoiled_gre(1.0, 0.9, 1.0, 0.02, 0.0, a)) for a in (best - 1, best, best + 1)]
    assert signal[1] == max(signal)


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
    sequence = Sequence("T1w", tr_s=0.5, te_s=0.01)
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
    before = signal_of(Sequence("T1w", **base), white)
    assert abs(signal_of(Sequence("T1w", **{**base, changed: value}), white) - before) > 1e-4


def test_a_table_of_the_user_is_used():
    table = {**TISSUE_TABLE, "WM": known_at(0.064, 0.6, 0.08, 0.7, "own")}
    sequence = Sequence("T1w", tr_s=0.5, te_s=0.01)
    own, default = (tissue_signals(sequence, 0.064, ("WM",), t)[0] for t in (table, TISSUE_TABLE))
    assert own == pytest.approx(0.7 * (1 - math.exp(-0.5 / 0.6)) * math.exp(-0.01 / 0.08))
    assert own < 0.9 * default


def test_maps_keep_shape_and_dtype():
    t1 = torch.full((2, 3, 4), 0.9)
    out = sequence_signal(FLAIR, 1.0, t1, 0.1)
    assert out.shape == t1.shape
    assert out.dtype == torch.float32


@pytest.mark.parametrize(
    "sequence", [Sequence("T1w", tr_s=1.0), Sequence("T1w", te_s=0.01), Sequence("T1w", tr_s=1.0, te_s=0.01, ti_s=1.5)]
)
def test_incomplete_or_impossible_sequences_are_refused(sequence):
    with pytest.raises(BadInputError):
        sequence_signal(sequence, 1.0, 1.0, 0.1)
