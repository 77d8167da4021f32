import math

import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid
from mrcore.errors import BadInputError
from mrcore.signals.epg import fisp_signals
from mrcore.signals.mrf_sequence import MrfSequence
from recon.simulation import Jitter, jittered, simulate_raw
from recon.trajectories.trajectory import Trajectory

GRID = Grid((8, 6, 1), np.diag([2.0, 3.0, 5.0, 1.0]))
SEQUENCE = MrfSequence(torch.tensor([40.0, 20.0, 60.0]), torch.tensor(0.012), torch.tensor(0.002), ti_s=0.02)


def spokes(dtype=torch.float64):
    """Return three frames of one spoke each, of 0.02 cycles/mm a sample, along x, y and the diagonal."""
    along = torch.arange(-4, 4, dtype=dtype) * 0.02
    k = torch.cat([along[:, None] * torch.tensor(d, dtype=dtype) for d in ((1, 0), (0, 1), (0.6, 0.8))])
    return Trajectory(k, torch.arange(3).repeat_interleave(8), 3, GRID)


def maps():
    t1_s, t2_s = torch.full(GRID.shape, 1.0).double(), torch.full(GRID.shape, 0.1).double()
    t1_s[5:], t2_s[5:] = 0.6, 0.05
    pd = torch.zeros(GRID.shape, dtype=torch.complex128)
    pd[2, 3], pd[6, 1] = 1.0 + 0.5j, -2.0j
    coils = torch.stack([torch.ones(GRID.shape), 1j * torch.linspace(0, 1, 8)[:, None, None].expand(GRID.shape)])
    return t1_s, t2_s, pd, coils.to(torch.complex128)


def directly(t1_s, t2_s, pd, coils, k, frame, b1=1.0):
    """Return the sum over the two voxels, written out, with positions in mm from voxel (4, 3)."""
    samples = torch.zeros((2, len(k)), dtype=torch.complex128)
    for x, y in ((2, 3), (6, 1)):
        signal = fisp_signals(SEQUENCE, t1_s[x, y], t2_s[x, y], torch.tensor([b1]).double(), tolerance=0.0)[0]
        place = torch.tensor([(x - 4) * 2.0, (y - 3) * 3.0]).double()
        wave = torch.exp(-2j * math.pi * (k[:, :2] @ place)) * signal[frame] * pd[x, y] / math.sqrt(48)
        samples += coils[:, x, y] * wave
    return samples


def test_samples_are_the_sum_over_voxels_of_exact_signals():
    trajectory = spokes()
    raw = simulate_raw(*maps()[:3], SEQUENCE, trajectory, maps()[3], b1=torch.full(GRID.shape, 0.8))
    expected = directly(*maps(), trajectory.k_cyc_per_mm, trajectory.frame, b1=0.8)
    torch.testing.assert_close(raw.samples, expected, rtol=0, atol=1e-6)
    assert raw.noise is None
    assert raw.sequence is SEQUENCE


def test_blocks_of_voxels_add_up(monkeypatch):
    whole = simulate_raw(*maps()[:3], SEQUENCE, spokes(), maps()[3]).samples
    monkeypatch.setattr("recon.simulation._BLOCK_VOXELS", 1)
    torch.testing.assert_close(
        simulate_raw(*maps()[:3], SEQUENCE, spokes(), maps()[3]).samples, whole, rtol=0, atol=1e-9
    )


def test_a_late_gradient_samples_where_it_was_before():
    trajectory = spokes()
    late = jittered(trajectory, Jitter(delay_samples=(0.5, 0.25, 0.0)), seed=0)
    shift = (late - trajectory.k_cyc_per_mm).reshape(3, 8, 3)
    expected = torch.tensor([[-0.01, 0.0, 0.0], [0.0, -0.005, 0.0], [-0.006, -0.004, 0.0]]).double()
    torch.testing.assert_close(shift, expected[:, None].expand(3, 8, 3), rtol=0, atol=1e-9)
    raw = simulate_raw(*maps()[:3], SEQUENCE, trajectory, maps()[3], jitter=Jitter((0.5, 0.25, 0.0)))
    torch.testing.assert_close(raw.samples, directly(*maps(), late, trajectory.frame), rtol=0, atol=1e-6)
    assert torch.equal(raw.trajectory.k_cyc_per_mm, trajectory.k_cyc_per_mm)


def test_offsets_are_one_a_frame_in_cycles_over_the_field_of_view():
    k = torch.full((4000, 2), 0.1).double()
    trajectory = Trajectory(k, torch.arange(2000).repeat_interleave(2), 2000, GRID)
    moved = jittered(trajectory, Jitter(offset_sd=0.3), seed=1)
    assert torch.equal(moved[::2], moved[1::2])
    in_fields = (moved - trajectory.k_cyc_per_mm)[::2, :2] * torch.tensor([16.0, 18.0])
    assert in_fields.std(0).tolist() == pytest.approx([0.3, 0.3], rel=0.05)
    assert not torch.equal(moved, jittered(trajectory, Jitter(offset_sd=0.3), seed=2))


def test_noise_is_of_the_level_asked_for():
    k = torch.full((6000, 2), 0.1).double()
    trajectory = Trajectory(k, torch.arange(3).repeat_interleave(2000), 3, GRID)
    clean = simulate_raw(*maps()[:3], SEQUENCE, trajectory, maps()[3])
    noisy = simulate_raw(*maps()[:3], SEQUENCE, trajectory, maps()[3], noise_sd=0.3, n_noise=5000, seed=3)
    for noise in (noisy.samples - clean.samples, noisy.noise):
        assert [noise.real.std().item(), noise.imag.std().item()] == pytest.approx([0.3, 0.3], rel=0.03)
    again = simulate_raw(*maps()[:3], SEQUENCE, trajectory, maps()[3], noise_sd=0.3, n_noise=5000, seed=3)
    assert torch.equal(noisy.samples, again.samples)
    t1_s, t2_s, pd, _ = maps()
    signals = [fisp_signals(SEQUENCE, t1_s[p], t2_s[p], tolerance=0.0)[0] * pd[p].abs() for p in ((2, 3), (6, 1))]
    gains = [1 + (2 / 7) ** 2, 1 + (6 / 7) ** 2]
    power = sum(float((s**2).mean()) * g for s, g in zip(signals, gains, strict=True)) / 2
    by_snr = simulate_raw(*maps()[:3], SEQUENCE, trajectory, maps()[3], snr=5.0, n_noise=5000, seed=3)
    assert by_snr.noise.real.std().item() == pytest.approx(math.sqrt(power) / 5, rel=0.03)


def test_what_does_not_fit_is_refused():
    t1_s, t2_s, pd, coils = maps()
    trajectory = spokes()
    short = MrfSequence(torch.tensor([40.0, 20.0]), torch.tensor(0.012), torch.tensor(0.002))
    with pytest.raises(BadInputError, match="2 frames, the trajectory 3"):
        simulate_raw(t1_s, t2_s, pd, short, trajectory, coils)
    with pytest.raises(BadInputError, match="coil maps must be"):
        simulate_raw(t1_s, t2_s, pd, SEQUENCE, trajectory, coils[:, :4])
    with pytest.raises(BadInputError, match="t2_s must be finite and above 0"):
        simulate_raw(t1_s, 0 * t2_s, pd, SEQUENCE, trajectory, coils)
    with pytest.raises(BadInputError, match="either noise_sd or an snr"):
        simulate_raw(t1_s, t2_s, pd, SEQUENCE, trajectory, coils, noise_sd=1.0, snr=5.0)
    with pytest.raises(BadInputError, match="of at most one sample"):
        Jitter(delay_samples=(3.0, 0.0, 0.0))
