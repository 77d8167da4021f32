"""The speed part of the fingerprinting benchmark: how it compares, not what it measures."""

import math

import pytest
import torch
from fingerprinting import speed

from mrcore.signals.epg import fisp_signals
from recon.files.sequences import delics_sequence


def test_rates_are_compared_at_no_larger_error():
    ours = [(1e-2, 8.0), (1e-3, 6.0), (1e-4, 3.0)]
    gain = speed._least_gain({"mrkit": ours, "blochsim": [(2e-2, 2.0), (2e-3, 1.0)]})
    assert gain == 4.0  # 8 / 2 at 2e-2, 6 / 1 at 2e-3
    assert speed._least_gain({"mrkit": ours, "blochsim": [(1e-9, 1.0), (5e-4, 1.0)]}) == 3.0  # none of ours at 1e-9
    assert math.isnan(speed._least_gain({"mrkit": ours}))


def test_signals_are_compared_up_to_a_factor():
    t1_s, t2_s = torch.tensor([1.0, 2.0]).double(), torch.tensor([0.1, 0.3]).double()
    exact = fisp_signals(delics_sequence(), t1_s, t2_s)
    assert speed._worst(exact * torch.tensor([[1j], [-0.5]]), exact) < 1e-12
    wrong = exact.clone()
    wrong[1] = fisp_signals(delics_sequence(), t1_s[1:] * 1.02, t2_s[1:])[0]
    assert 1e-3 < speed._worst(wrong, exact) < 2e-2


def test_volumes_have_four_samples_a_voxel():
    trajectory = speed._volume(32)
    assert trajectory.n_samples == pytest.approx(4 * 32**3, rel=0.05)
    assert trajectory.n_frames == speed.N_FRAMES
