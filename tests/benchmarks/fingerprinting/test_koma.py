"""KomaMRI's raw data are what its phantom gives under the train that the benchmark describes."""

import numpy as np
import pytest
import torch
from fingerprinting.koma import koma_raw, long_pulse_model, on_grid
from scipy.io import loadmat

from mrcore.data.grid import Grid
from mrcore.signals.mrf_sequence import MrfSequence

TISSUES = np.array(
    [
        [23, 1.0, 2.569, 0.329],
        [46, 0.86, 0.833, 0.083],
        [70, 0.77, 0.5, 0.07],
        [93, 1.0, 0.35, 0.07],
        [116, 1.0, 0.9, 0.047],
        [139, 0.7, 0.569, 0.329],
        [209, 0.77, 0.5, 0.07],
        [232, 1.0, 2.569, 0.329],
        [255, 0.77, 0.5, 0.07],
    ]
)
"""Code, PD, T1 and T2 in s of the phantom `brain_phantom2D` of KomaMRI 0.7.1."""


def test_samples_are_those_of_the_phantom(shared_data):
    raw = koma_raw(shared_data)
    spins = loadmat(shared_data / "mrf" / "koma_brain2D_labels.mat")["axial"][::4, ::4]
    n_frames, middle = raw.trajectory.n_frames, [49, 50]
    k = raw.trajectory.k_cyc_per_mm.reshape(n_frames, 100, -1)[:, middle, :2].double().numpy()
    measured = raw.samples.reshape(n_frames, 100)[:, middle].numpy()
    pd, t1_s, t2_s = TISSUES[:, 1:].T
    model = long_pulse_model(raw.sequence, 1e-3)
    signals = model(*(torch.tensor(values) for values in (t1_s, t2_s, np.ones_like(t1_s)))).numpy()
    expected = np.zeros_like(measured, dtype=complex)
    for code, density, signal in zip(TISSUES[:, 0], pd, signals, strict=True):
        row, column = np.nonzero(spins == code)
        place_mm = 2.0 * np.stack([column - (spins.shape[1] - 1) / 2, row - (spins.shape[0] - 1) / 2])
        expected += density * signal[:, None] * np.exp(-2j * np.pi * (k @ place_mm)).sum(-1)
    # The sign is that of the rotation by which each side calls a pulse positive.
    assert np.linalg.norm(measured + expected) < 0.003 * np.linalg.norm(measured)


def test_long_pulses_turn_as_instants_do_but_relax_less():
    sequence = MrfSequence(
        torch.full((40,), 50.0),
        torch.tensor(0.01),
        torch.tensor(0.005),
        0.05,
        phase_deg=torch.tensor([0.0, 180.0] * 20),
    )
    tissue = (torch.tensor([0.8]).double(), torch.tensor([0.08]).double(), torch.ones(1).double())
    one, four, eight = (long_pulse_model(sequence, 1e-3, n)(*tissue) for n in (1, 4, 8))
    assert one.shape == (1, 40)
    assert float((four - one).norm() / eight.norm()) > 5 * float((eight - four).norm() / eight.norm())
    short = long_pulse_model(sequence, 1e-6)(*tissue)
    assert float((short - one).norm() / one.norm()) < 1e-4


@pytest.mark.parametrize("size", [434, 362])
def test_spins_are_centred_on_the_origin(size):
    labels = np.zeros((size, size), bool)
    origin = 216 if size == 434 else 180
    labels[origin - 4 : origin + 5, origin - 4 : origin + 5] = True
    found = on_grid(labels, Grid((100, 100, 1), np.eye(4)))
    assert np.argwhere(found).tolist() == [[50, 50, 0]]
