import math

import numpy as np
import pytest
import torch

from mrcore.errors import BadInputError
from mrcore.signals.bssfp import bssfp_signals
from mrcore.signals.epg import SliceProfile, fisp_signals, orders_needed
from mrcore.signals.mrf_sequence import MrfSequence


def train(n_frames=60, largest_deg=80.0, tr_s=0.012, seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)
    flips = torch.rand(n_frames, generator=generator, dtype=torch.float64) * largest_deg
    times = tr_s * (1 + 0.3 * torch.rand(n_frames, generator=generator, dtype=torch.float64))
    return MrfSequence(flips, times, torch.tensor(0.002), **({"ti_s": 0.02, "inversion_efficiency": 0.95} | changes))


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def isochromats(sequence, t1_s, t2_s, n, gradient=True, off_resonance_hz=0.0, b1=1.0, phases_deg=None):
    """Signal of n spins that each repetition turns by as many fractions of a turn, by rotation matrices; left-handed
    pulses about x as in mrcore.signals.epg; the receiver follows the RF phase."""
    dephasing = np.exp(2j * np.pi * (np.arange(n) + 0.5) / n) if gradient else np.ones(1)
    spins = np.zeros((len(dephasing), 3))
    spins[:, 2] = 1.0
    if sequence.ti_s is not None:
        spins[:, 2] -= (1 + sequence.inversion_efficiency) * math.exp(-sequence.ti_s / t1_s)
    phases = np.zeros(sequence.n_frames) if phases_deg is None else np.deg2rad(phases_deg)
    echoes = []
    flips = np.deg2rad(sequence.flip_deg.numpy()) * b1
    for flip, tr_s, te_s, phase in zip(flips, sequence.tr_s.numpy(), sequence.te_s.numpy(), phases, strict=True):
        c, s = math.cos(phase), math.sin(phase)
        about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        c, s = math.cos(flip), math.sin(flip)
        pulse = about_z @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ about_z.T
        spins = spins @ pulse.T
        flat = spins[:, 0] + 1j * spins[:, 1]
        turn = 2j * np.pi * off_resonance_hz
        echoes.append(flat.mean() * np.exp((turn - 1 / t2_s) * te_s) * np.exp(-1j * phase))
        flat = flat * dephasing * np.exp((turn - 1 / t2_s) * tr_s)
        along = 1 + (spins[:, 2] - 1) * math.exp(-tr_s / t1_s)
        spins = np.stack([flat.real, flat.imag, along], 1)
    return torch.from_numpy(np.array(echoes))


def test_fisp_agrees_with_the_reference_vectors(shared_data):
    reference = np.load(shared_data / "reference" / "snapmrf_epg_reference_atoms.npz")["epg_fisp"][0]
    sequence = MrfSequence(torch.full((3,), 30.0), torch.tensor(0.01), torch.tensor(0.005))
    signal = fisp_signals(sequence, double(1.0), double(0.1))[0]
    assert torch.allclose(1j * signal, torch.from_numpy(reference).to(torch.complex128), atol=1e-6)


def test_the_first_echo_by_hand():
    sequence = MrfSequence(double(30.0), double(0.01), double(0.005), ti_s=0.5, inversion_efficiency=0.9)
    expected = -(1 - 1.9 * math.exp(-0.5)) * 0.5 * math.exp(-0.05)
    assert fisp_signals(sequence, double(1.0), double(0.1)).item() == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize(("t1_s", "t2_s"), [(1.0, 0.1), (4.0, 2.0), (0.3, 0.3), (0.8, 5e-4)])
def test_all_orders_are_exact_against_isochromats(t1_s, t2_s):
    sequence = train(n_frames=150, largest_deg=179.0)  # flips beyond 115 degrees are done in parts
    spins = isochromats(sequence, t1_s, t2_s, n=2 * sequence.n_frames + 2, b1=1.1)
    signal = fisp_signals(sequence, double(t1_s), double(t2_s), double(1.1))[0]
    assert (1j * signal - spins).abs().max() < 1e-12


def test_a_phase_of_180_degrees_turns_pulse_and_receiver():
    phases = double(*[0.0, 180.0] * 30)
    sequence = train(phase_deg=phases)
    spins = isochromats(sequence, 1.0, 0.1, n=122, phases_deg=phases.numpy())
    assert (1j * fisp_signals(sequence, double(1.0), double(0.1))[0] - spins).abs().max() < 1e-12
    with pytest.raises(BadInputError, match="0 and 180"):
        fisp_signals(train(phase_deg=torch.tensor(90.0)), double(1.0), double(0.1))


def many_atoms(n=900):
    generator = torch.Generator().manual_seed(3)
    t2_s = 0.01 * 25 ** torch.rand(n, generator=generator)
    return t2_s * (1 + 9 * torch.rand(n, generator=generator)), t2_s, 0.8 + 0.4 * torch.rand(n, generator=generator)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 1e-4])
def test_truncation_stays_below_the_tolerance(tolerance):
    t1_s, t2_s, b1 = many_atoms()
    sequence = train(n_frames=300, largest_deg=70.0)
    exact = fisp_signals(sequence, t1_s.double(), t2_s.double(), b1.double(), tolerance=0)
    error = (fisp_signals(sequence, t1_s, t2_s, b1, tolerance=tolerance) - exact).norm(dim=1) / exact.norm(dim=1)
    assert error.max() < tolerance
    assert error.max() > tolerance / 100  # neither are orders wasted


def test_orders_grow_with_t2():
    t1_s, t2_s, b1 = many_atoms()
    by_t2 = torch.argsort(t2_s)
    needed = orders_needed(train(n_frames=300), t1_s, t2_s, b1, 1e-3)[by_t2]
    assert (needed.diff() >= 0).all()
    assert needed[0] < 20 < needed[-1]


def test_single_precision_and_a_train_beyond_the_slack():
    sequence = train(n_frames=300)
    exact = fisp_signals(sequence, double(1.0, 0.2), double(0.3, 0.01))
    assert (fisp_signals(sequence, torch.tensor([1.0, 0.2]), torch.tensor([0.3, 0.01])) - exact).abs().max() < 1e-6


def test_gradients_by_differences():
    sequence = train(n_frames=12)
    atoms = [double(1.0, 0.5), double(0.1, 0.05), double(1.0, 0.9)]
    for values in atoms:
        values.requires_grad_()
    assert torch.autograd.gradcheck(lambda t1, t2, b1: fisp_signals(sequence, t1, t2, b1), atoms)


def test_b1_scales_the_flip_angles_and_the_profile_averages_them():
    sequence = train()
    t1_s, t2_s = double(1.0), double(0.1)
    weak = MrfSequence(0.5 * sequence.flip_deg, sequence.tr_s, sequence.te_s, 0.02, 0.95)
    half, whole = fisp_signals(weak, t1_s, t2_s), fisp_signals(sequence, t1_s, t2_s)
    assert torch.allclose(fisp_signals(sequence, t1_s, t2_s, double(0.5)), half)
    mixed = fisp_signals(sequence, t1_s, t2_s, profile=SliceProfile((1.0, 0.5), (0.75, 0.25)))
    assert torch.allclose(mixed, 0.75 * whole + 0.25 * half)
    with pytest.raises(BadInputError, match="sum to 1"):
        SliceProfile((1.0, 0.5), (1.0, 1.0))


@pytest.mark.parametrize("phases_deg", [None, 117.0])
def test_balanced_ssfp_against_a_spin(phases_deg):
    sequence = train(n_frames=40)
    phases = 180.0 * (np.arange(40) % 2)
    if phases_deg is not None:
        phases = phases_deg * np.arange(40.0) ** 2
        sequence = train(n_frames=40, phase_deg=torch.from_numpy(phases))
    signal = bssfp_signals(sequence, double(1.0, 0.7), double(0.1, 0.05), double(0.0, 17.0), double(1.0, 0.9))
    for atom, (t1_s, t2_s, shift_hz, b1) in enumerate([(1.0, 0.1, 0.0, 1.0), (0.7, 0.05, 17.0, 0.9)]):
        spin = isochromats(sequence, t1_s, t2_s, 1, False, shift_hz, b1, phases)
        assert (signal[atom] - spin).abs().max() < 1e-12


def test_balanced_ssfp_settles_at_its_closed_form():
    flip, tr_s, t1_s, t2_s = 50.0, 0.005, 0.8, 0.08
    sequence = MrfSequence(torch.full((1500,), flip), torch.tensor(tr_s), torch.tensor(tr_s / 2))
    e1, e2, angle = math.exp(-tr_s / t1_s), math.exp(-tr_s / t2_s), math.radians(flip)
    expected = math.sin(angle) * (1 - e1) / (1 - (e1 - e2) * math.cos(angle) - e1 * e2) * math.sqrt(e2)
    assert bssfp_signals(sequence, double(t1_s), double(t2_s))[0, -1].abs().item() == pytest.approx(expected, rel=1e-4)


def test_what_cannot_be_simulated_is_refused():
    sequence = train()
    with pytest.raises(BadInputError, match="above 0"):
        fisp_signals(sequence, double(1.0), double(0.0))
    with pytest.raises(BadInputError, match="t2_s must have one number an atom"):
        fisp_signals(sequence, double(1.0), double(0.1, 0.2))
    with pytest.raises(BadInputError, match="off_resonance_hz"):
        bssfp_signals(sequence, double(1.0), double(0.1), double(0.1, 0.2))
    with pytest.raises(BadInputError, match="milliseconds"):
        MrfSequence(double(10.0), double(1200.0), double(5.0))
    with pytest.raises(BadInputError, match="TE of 5 s: were milliseconds"):
        MrfSequence(double(10.0), double(12.0), double(5.0))
    with pytest.raises(BadInputError, match="TE <= TR"):
        MrfSequence(double(10.0), double(0.01), double(0.02))
    with pytest.raises(BadInputError, match="one a frame"):
        MrfSequence(double(10.0, 20.0), double(0.01, 0.01, 0.01), double(0.0))
    with pytest.raises(BadInputError, match="finite"):
        MrfSequence(double(10.0, math.nan), double(0.01), double(0.0))


@pytest.mark.parametrize(("efficiency", "start"), [(1.0, -1.0), (0.5, -0.5), (0.0, 0.0)])
def test_magnetisation_right_after_an_inversion(efficiency, start):
    """0 saturates; a train without an inversion has no TI."""
    at_once = train(ti_s=0.0, inversion_efficiency=efficiency)
    assert at_once.prepared(double(0.8)) == pytest.approx(start)
    late = train(ti_s=8.0, inversion_efficiency=efficiency)
    assert late.prepared(double(0.8)) == pytest.approx(1.0, abs=1e-4)
    assert train(ti_s=None).prepared(double(0.8)) == 1.0
