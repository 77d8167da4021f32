import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.io import savemat

from mrcore.data.grid import Grid
from mrcore.errors import BadInputError, MissingExtraError
from recon.files.trajectories import read_arms, read_pulseq_arms, read_trajectory, trajectory_of_arms
from recon.trajectories.builders import spiral
from recon.trajectories.density import density_compensation

SLICE = Grid((32, 24, 1), np.diag([2.0, 2.5, 4.0, 1.0]))


def test_numpy_files_hold_a_trajectory(tmp_path):
    trajectory = spiral(SLICE, 5, 4)
    np.savez(
        tmp_path / "k.npz",
        k_cyc_per_mm=trajectory.k_cyc_per_mm.numpy()[:, :2],
        frame=trajectory.frame.numpy().astype(np.int32),
        n_frames=5,
    )
    read = read_trajectory(tmp_path / "k.npz", SLICE)
    assert torch.equal(read.k_cyc_per_mm, trajectory.k_cyc_per_mm)
    assert torch.equal(read.frame, trajectory.frame)
    assert read.n_frames == 5


def test_frames_take_arms_in_turn_whatever_the_file(tmp_path):
    arms = spiral(SLICE, 3, 4).k_cyc_per_mm.reshape(3, -1, 3)[..., :2].numpy()
    as_complex = (arms[..., 0] + 1j * arms[..., 1]).T
    savemat(tmp_path / "real.mat", {"traj": arms.swapaxes(0, 1), "dcf": np.ones((1, 4)), "note": "text"})
    savemat(tmp_path / "complex.mat", {"traj": as_complex})
    np.savetxt(tmp_path / "k.txt", arms.reshape(-1, 2))
    np.savetxt(tmp_path / "k.csv", arms.reshape(-1, 2), delimiter=",")
    for name in ("real.mat", "complex.mat", "k.txt", "k.csv"):
        read = read_arms(tmp_path / name, n_arms=3)
        torch.testing.assert_close(read, torch.from_numpy(arms))
        trajectory = trajectory_of_arms(read * torch.tensor([2.0, 2.5]), SLICE, 7, (1 / 2, 1 / 2.5, 1 / 4))
        n = arms.shape[1]
        torch.testing.assert_close(trajectory.k_cyc_per_mm[4 * n : 5 * n, :2], torch.from_numpy(arms[1]))
        assert trajectory.frame.bincount().tolist() == [n] * 7


def test_units_of_files_are_checked(tmp_path):
    np.savetxt(tmp_path / "k.txt", spiral(SLICE, 3, 4).k_cyc_per_mm.numpy() * 1000)
    arms = read_arms(tmp_path / "k.txt", 3)
    with pytest.raises(BadInputError, match="look like cycles/m "):
        trajectory_of_arms(arms, SLICE, 3)
    assert trajectory_of_arms(arms, SLICE, 3, 1e-3).n_frames == 3


def test_files_that_are_none_are_refused(tmp_path):
    (tmp_path / "k.npz").write_bytes(b"PK\x03\x04 cut off")
    (tmp_path / "k.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(50))
    (tmp_path / "words.txt").write_text("kx ky\n1 2\n")
    np.savetxt(tmp_path / "four.txt", np.ones((6, 4)))
    np.savez(tmp_path / "other.npz", k_cyc_per_mm=np.ones((3, 2)))
    savemat(tmp_path / "none.mat", {"dcf": np.ones((1, 4))})
    for name, message in (
        ("k.npz", "is the file whole"),
        ("other.npz", "lacks frame, n_frames"),
        ("no.npz", "No such file"),
    ):
        with pytest.raises(BadInputError, match=message):
            read_trajectory(tmp_path / name, SLICE)
    for name, message in (
        ("k.mat", "cannot be read"),
        ("none.mat", "expected one array"),
        ("words.txt", "cannot be read"),
        ("four.txt", "two or three columns"),
    ):
        with pytest.raises(BadInputError, match=message):
            read_arms(tmp_path / name, 2)
    with pytest.raises(BadInputError, match="6 rows, which are not 4 arms"):
        read_arms(tmp_path / "four.txt", 4)


def test_published_arms_and_density(shared_data):
    """48 arms in cycles/voxel that cover the disc of k-space."""
    path = shared_data / "copyleft" / "imr_spiral_traj_dcf.mat"
    if not path.exists():
        pytest.skip("needs copyleft/imr_spiral_traj_dcf.mat")
    grid = Grid((64, 64, 1), np.eye(4))
    trajectory = trajectory_of_arms(read_arms(path), grid, 48)
    weights = density_compensation(trajectory, n_iter=10)
    assert trajectory.n_samples == 52_416
    assert float(weights.sum()) / 48 / 64**2 == pytest.approx(math.pi / 4, rel=0.05)


class FakeSequence:
    """A sequence of pypulseq with three blocks, two of which acquire."""

    lengths = (4, 4)
    block_events = (1, 2, 3)

    def read(self, path: str) -> None:
        if path.endswith("none.seq"):
            raise ValueError("no such section")

    def calculate_kspace(self):
        return np.arange(24.0).reshape(3, 8), None, None, None, None

    def get_block(self, number: int) -> SimpleNamespace:
        return SimpleNamespace(adc=SimpleNamespace(num_samples=self.lengths[number - 2]) if number > 1 else None)


def test_pulseq_acquisitions_are_arms(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pypulseq", SimpleNamespace(Sequence=FakeSequence))
    arms = read_pulseq_arms(tmp_path / "spiral.seq")
    assert arms.shape == (2, 4, 3)
    assert arms[1, 0].tolist() == [4, 12, 20]
    with pytest.raises(BadInputError, match="cannot be read as a Pulseq"):
        read_pulseq_arms(tmp_path / "none.seq")
    monkeypatch.setattr(FakeSequence, "lengths", (4, 5))
    with pytest.raises(BadInputError, match=r"of one length, found \[4, 5\]"):
        read_pulseq_arms(tmp_path / "spiral.seq")
    monkeypatch.setitem(sys.modules, "pypulseq", None)
    with pytest.raises(MissingExtraError, match="pypulseq"):
        read_pulseq_arms(tmp_path / "spiral.seq")


@pytest.mark.filterwarnings("ignore::UserWarning:pypulseq")
def test_pulseq_spiral_of_another_simulator(shared_data):
    """A spiral that fills a matrix of 100 x 100 over 230 mm."""
    pytest.importorskip("pypulseq", reason="needs the extra 'pulseq'")
    arms = read_pulseq_arms(shared_data / "reference" / "spiral_100x100_FOV230.seq")
    trajectory = trajectory_of_arms(arms, Grid((100, 100, 1), np.diag([2.3, 2.3, 1.0, 1.0])), 1, 1e-3)
    assert trajectory.n_samples == 9000
    assert float(trajectory.k_cyc_per_mm.norm(dim=1).max()) == pytest.approx(0.5 / 2.3, rel=0.01)
