import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid
from mrcore.errors import BadInputError
from mrcore.signals.mrf_sequence import MrfSequence
from recon.files.npz import read_npz, write_npz
from recon.rawdata import RawData
from recon.trajectories.trajectory import Trajectory

GRID = Grid((8, 6, 1), np.array([[0, 3, 0, 4], [2, 0, 0, 5], [0, 0, 5, 6], [0, 0, 0, 1.0]]))
SEQUENCE = MrfSequence(
    torch.tensor([40.0, 20.0, 60.0]), torch.tensor(0.012), torch.tensor(0.002), 0.02, 0.9, torch.tensor([0, 180.0, 0])
)


def raw_data(noise=True, sequence=SEQUENCE):
    generator = torch.Generator().manual_seed(0)
    k = torch.rand((24, 3), generator=generator) * 0.3 - 0.15
    trajectory = Trajectory(k, torch.arange(3).repeat(8), 3, GRID)
    samples = torch.randn((2, 24), dtype=torch.complex64, generator=generator)
    return RawData(samples, trajectory, torch.randn((2, 50), dtype=torch.complex64) if noise else None, sequence)


def test_a_file_gives_back_what_was_written(tmp_path):
    path = tmp_path / "folder" / "raw.npz"
    raw = raw_data()
    write_npz(raw, path)
    back = read_npz(path)
    for name in ("samples", "noise"):
        assert torch.equal(getattr(back, name), getattr(raw, name))
    assert torch.equal(back.trajectory.k_cyc_per_mm, raw.trajectory.k_cyc_per_mm)
    assert torch.equal(back.trajectory.frame, raw.trajectory.frame)
    assert back.grid.matches(GRID)
    assert (back.n_coils, back.n_samples, back.n_frames) == (2, 24, 3)
    for name in ("flip_deg", "tr_s", "te_s", "phase_deg"):
        assert torch.equal(getattr(back.sequence, name), getattr(SEQUENCE, name))
    assert (back.sequence.ti_s, back.sequence.inversion_efficiency) == (0.02, 0.9)
    plain = tmp_path / "plain.npz"
    write_npz(raw_data(noise=False, sequence=None), plain)
    assert read_npz(plain).noise is None
    assert read_npz(plain).sequence is None


def test_no_file_is_replaced_unless_forced(tmp_path):
    path = tmp_path / "raw.npz"
    write_npz(raw_data(), path)
    before = path.read_bytes()
    with pytest.raises(BadInputError, match="exists already"):
        write_npz(raw_data(noise=False), path)
    assert path.read_bytes() == before
    write_npz(raw_data(noise=False), path, force=True)
    assert read_npz(path).noise is None
    assert [file.name for file in tmp_path.iterdir()] == ["raw.npz"]


def test_files_that_are_no_raw_data(tmp_path):
    path = tmp_path / "raw.npz"
    write_npz(raw_data(), path)
    cut = tmp_path / "cut.npz"
    cut.write_bytes(path.read_bytes()[:-200])
    np.savez(tmp_path / "other.npz", samples=np.zeros((2, 3), np.complex64))
    arrays = dict(np.load(path))
    np.savez(tmp_path / "floats.npz", **(arrays | {"frame": arrays["frame"] + 0.5}))
    np.savez(tmp_path / "part.npz", **{name: values for name, values in arrays.items() if name != "te_s"})
    np.savez(tmp_path / "units.npz", **(arrays | {"k_cyc_per_mm": arrays["k_cyc_per_mm"] * 1000}))
    for name, message in (
        ("missing", "cannot be read"),
        ("cut", "is the file whole"),
        ("other", "lacks k_cyc_per_mm, frame"),
        ("floats", "integers"),
        ("part", "needs flip_deg, tr_s, te_s"),
        ("units", "they fit cycles/m: say --k-unit cycles/m"),
    ):
        with pytest.raises(BadInputError, match=message):
            read_npz(tmp_path / f"{name}.npz")


def test_data_that_do_not_fit_are_refused():
    raw = raw_data()
    bad = raw.samples.clone()
    bad[1, 3] = complex(float("nan"), 0)
    short = MrfSequence(torch.tensor([40.0, 20.0]), torch.tensor(0.012), torch.tensor(0.002))
    for samples, noise, sequence, message in (
        (bad, None, None, "1 of 48 samples are NaN"),
        (raw.samples[:, :20], None, None, "20 samples, the trajectory has 24"),
        (raw.samples.real, None, None, "must be complex"),
        (raw.samples[:0], None, None, "are coils missing"),
        (raw.samples, raw.noise[:1], None, "1 coils, the samples have 2: are coils missing"),
        (raw.samples, None, short, "2 frames, the data have 3"),
    ):
        with pytest.raises(BadInputError, match=message):
            RawData(samples, raw.trajectory, noise, sequence)
