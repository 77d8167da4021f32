import sys

import h5py
import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid
from mrcore.errors import BadInputError, MissingExtraError
from mrcore.signals.mrf_sequence import MrfSequence
from recon.files.ismrmrd import read_ismrmrd, write_ismrmrd
from recon.rawdata import RawData
from recon.trajectories.trajectory import Trajectory

# Oblique: rotated by 30 degrees about z, voxel n // 2 at (5, -7, 11) mm.
TURN = np.array([[np.cos(np.pi / 6), -0.5, 0], [0.5, np.cos(np.pi / 6), 0], [0, 0, 1]])
AFFINE = np.eye(4)
AFFINE[:3, :3] = TURN * [2.0, 3.0, 5.0]
AFFINE[:3, 3] = np.array([5, -7, 11]) - AFFINE[:3, :3] @ [4, 3, 0]
GRID = Grid((8, 6, 1), AFFINE)
SEQUENCE = MrfSequence(torch.tensor([40.0, 20.0, 60.0]), torch.tensor([0.012, 0.013, 0.014]), torch.tensor(0.002), 0.02)


def raw_data(n_frames=3, noise=True):
    generator = torch.Generator().manual_seed(0)
    k = torch.rand((8 * n_frames, 3), generator=generator) * 0.3 - 0.15
    k[:, 2] = 0
    trajectory = Trajectory(k, torch.arange(n_frames).repeat_interleave(8), n_frames, GRID)
    samples = torch.randn((2, 8 * n_frames), dtype=torch.complex64, generator=generator)
    alone = torch.randn((2, 50), dtype=torch.complex64, generator=generator) if noise else None
    return RawData(samples, trajectory, alone, SEQUENCE if n_frames == 3 else None)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "raw.h5"
    write_ismrmrd(raw_data(), path)
    return path


def edited(path, change):
    """Apply `change` to the table of acquisitions."""
    with h5py.File(path, "r+") as handle:
        table = handle["dataset/data"][()]
        table = change(table)
        del handle["dataset/data"]
        handle["dataset"].create_dataset("data", data=table, maxshape=(None,))


def test_a_file_gives_back_what_was_written(file):
    raw, back = raw_data(), read_ismrmrd(file)
    assert torch.equal(back.samples, raw.samples)
    assert torch.equal(back.noise, raw.noise)
    assert torch.equal(back.trajectory.frame, raw.trajectory.frame)
    torch.testing.assert_close(back.trajectory.k_cyc_per_mm.float(), raw.trajectory.k_cyc_per_mm)
    assert back.grid.matches(GRID)
    for name in ("flip_deg", "tr_s", "te_s"):
        torch.testing.assert_close(getattr(back.sequence, name), getattr(SEQUENCE, name))
    assert back.sequence.ti_s == pytest.approx(0.02)


def test_the_library_of_the_format_reads_our_files(file):
    ismrmrd = pytest.importorskip("ismrmrd")
    dataset = ismrmrd.Dataset(str(file), "dataset", create_if_needed=False)
    acquisition = dataset.read_acquisition(2)
    assert acquisition.idx.repetition == 1
    np.testing.assert_allclose(acquisition.data, raw_data().samples[:, 8:16].numpy())
    assert dataset.read_acquisition(0).is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    header = ismrmrd.xsd.CreateFromDocument(dataset.read_xml_header())
    assert header.encoding[0].encodedSpace.matrixSize.y == 6


def test_frames_by_counter_or_in_time(file):
    def by_contrast(table):
        table["head"]["idx"]["contrast"] = table["head"]["idx"]["repetition"][::-1]
        table["head"]["idx"]["repetition"] = 0
        return table

    expected = read_ismrmrd(file).trajectory.frame
    edited(file, by_contrast)  # the noise acquisition is first, so 3 image acquisitions count 1, 0, 0
    with pytest.raises(BadInputError, match="the data have 2"):
        read_ismrmrd(file, sequence=SEQUENCE)
    assert read_ismrmrd(file, frame_counter="set", sequence=_cut(1)).trajectory.frame.tolist() == [0] * 24

    def in_time(table):
        table["head"]["idx"]["contrast"] = 0
        return table

    edited(file, in_time)
    assert torch.equal(read_ismrmrd(file).trajectory.frame, expected)
    repeated = read_ismrmrd(file, sequence=_cut(1))
    assert (repeated.n_frames, repeated.trajectory.frame.unique().tolist()) == (1, [0])
    with pytest.raises(BadInputError, match="no multiple of the 2 frames"):
        read_ismrmrd(file, sequence=_cut(2))
    with pytest.raises(BadInputError, match="no counter 'time'"):
        read_ismrmrd(file, frame_counter="time")


def _cut(n):
    return MrfSequence(SEQUENCE.flip_deg[:n], SEQUENCE.tr_s[:n], SEQUENCE.te_s[:n])


def test_cartesian_lines_lie_where_counters_and_limits_say(file):
    def lines(table):
        head = table["head"]
        head["trajectory_dimensions"], head["center_sample"], head["idx"]["repetition"] = 0, 4, 0
        head["idx"]["kspace_encode_step_1"] = [0, 1, 2, 5]
        head["flags"][2] |= np.uint64(1 << 21)  # read backwards
        return table

    edited(file, lines)
    with pytest.raises(BadInputError, match="no trajectory"):
        read_ismrmrd(file, frame_counter="repetition", sequence=_cut(3))
    with h5py.File(file, "r+") as handle:
        text = handle["dataset/xml"][0].decode()
        limits = "<kspace_encoding_step_1><minimum>0</minimum><maximum>5</maximum><center>2</center>"
        text = text.replace("<trajectory>other", "<trajectory>cartesian")
        text = text.replace("<encodingLimits>", f"<encodingLimits>{limits}</kspace_encoding_step_1>")
        handle["dataset/xml"][0] = text
    raw, back = raw_data(), read_ismrmrd(file, frame_counter="repetition", sequence=_cut(3))
    steps = (back.trajectory.k_cyc_per_mm * torch.tensor([16.0, 18.0, 5.0])).reshape(3, 8, 3)
    torch.testing.assert_close(steps[0, :, 0], torch.arange(-4.0, 4.0).double())
    assert steps[:, 0, 1].tolist() == pytest.approx([-1, 0, 3])
    assert torch.equal(back.samples[:, 8:16], raw.samples[:, 8:16].flip(1))


def test_units_discarded_samples_and_flags(file):
    def change(table):
        table["head"]["discard_pre"][1:], table["head"]["discard_post"][1:] = 2, 1
        table["head"]["flags"][2] |= np.uint64(1 << 22)  # a navigator
        for i in range(1, 4):
            table["traj"][i] = table["traj"][i] * np.tile([500, 333.33333, 200], 8).astype(np.float32)  # to cycles/m
        return table

    edited(file, change)
    with pytest.raises(BadInputError, match="they fit cycles/m: say --k-unit"):
        read_ismrmrd(file)
    raw, back = raw_data(), read_ismrmrd(file, k_unit="cycles/m")
    kept = torch.cat([torch.arange(2, 7), torch.arange(18, 23)])
    assert torch.equal(back.samples, raw.samples[:, kept])
    torch.testing.assert_close(back.trajectory.k_cyc_per_mm.float(), raw.trajectory.k_cyc_per_mm[kept])
    assert back.n_frames == 3
    with pytest.raises(BadInputError, match="must be one of"):
        read_ismrmrd(file, k_unit="1/m")


def test_faults_say_what_is_wrong(file, tmp_path):
    whole = file.read_bytes()
    cut = tmp_path / "cut.h5"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInputError, match="is the file whole"):
        read_ismrmrd(cut)
    with pytest.raises(BadInputError, match="is the file whole"):
        read_ismrmrd(tmp_path / "missing.h5")
    with pytest.raises(BadInputError, match="cannot be read"):
        read_ismrmrd(file, dataset="other")

    def one_coil_less(table):
        table["head"]["active_channels"][2] = 1
        table["data"][2] = table["data"][2][:16]
        return table

    edited(file, one_coil_less)
    with pytest.raises(BadInputError, match="coils are missing"):
        read_ismrmrd(file)
    file.write_bytes(whole)

    def short(table):
        table["data"][2] = table["data"][2][:16]
        return table

    edited(file, short)
    with pytest.raises(BadInputError, match="8 samples, not 2 channels of 8"):
        read_ismrmrd(file)
    file.write_bytes(whole)

    def not_a_number(table):
        table["data"][2][3] = np.nan
        return table

    edited(file, not_a_number)
    with pytest.raises(BadInputError, match="NaN"):
        read_ismrmrd(file)


def test_what_the_format_cannot_hold_is_not_written(tmp_path):
    phases = MrfSequence(SEQUENCE.flip_deg, SEQUENCE.tr_s, SEQUENCE.te_s, phase_deg=torch.tensor([0.0, 180.0, 0.0]))
    raw = raw_data()
    with pytest.raises(BadInputError, match="no place for RF phases"):
        write_ismrmrd(RawData(raw.samples, raw.trajectory, None, phases), tmp_path / "raw.h5")
    assert list(tmp_path.iterdir()) == []


def test_long_frames_are_split(tmp_path):
    k = torch.zeros((70_000, 3))
    k[0, 0] = 0.2
    trajectory = Trajectory(k, torch.zeros(70_000, dtype=torch.int64), 1, GRID)
    raw = RawData(torch.randn((1, 70_000), dtype=torch.complex64), trajectory)
    write_ismrmrd(raw, tmp_path / "raw.h5")
    back = read_ismrmrd(tmp_path / "raw.h5", frame_counter="repetition")
    assert torch.equal(back.samples, raw.samples)
    assert back.n_frames == 1


def test_a_missing_library_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"mrkit\[ismrmrd\]"):
        read_ismrmrd(tmp_path / "raw.h5")


def test_a_file_of_another_toolbox(shared_data):
    path = shared_data / "mrf" / "mrireco_brainsim100_acq.h5"
    with pytest.raises(BadInputError, match="field of view"):
        read_ismrmrd(path)
    raw = read_ismrmrd(path, fov_mm=(230.0, 230.0, 5.0), frame_counter="repetition")
    assert (raw.n_coils, raw.n_samples, raw.n_frames) == (1, 256 * 256, 1)
    image = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(raw.samples.numpy().reshape(256, 256))))
    steps = raw.trajectory.k_cyc_per_mm.numpy()[:, :2] * 230
    np.testing.assert_allclose(steps[[0, 1, 256]], [[-128, -128], [-127, -128], [-128, -127]], atol=1e-3)
    centre = np.abs(image)[96:160, 96:160].mean()
    assert centre > 20 * np.abs(image)[:16, :16].mean()
    assert read_ismrmrd(path, fov_mm=(230.0, 230.0, 5.0)).n_frames == 256
