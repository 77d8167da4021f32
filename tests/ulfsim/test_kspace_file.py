import dataclasses
import json

import numpy as np
import pytest
import torch

from mrcore.data.acquisition import Acquisition, PulseSequence, from_json, gaussian_psf
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.noise import root_sum_of_squares
from mrcore.phantom import digital_head, head_grid
from ulfsim.kspace_file import KSpace, load_k_space, save_k_space
from ulfsim.simulation import k_space, simulate
from ulfsim.source.source import source_of

VOXEL = (5.0, 4.5, 8.0)
ACQUISITION = Acquisition(0.064, VOXEL, PulseSequence("T1w"), noise_sd=0.02, psf=gaussian_psf(VOXEL), n_channels=3)


@pytest.fixture(scope="module")
def simulation():
    head = digital_head(head_grid(40), seed=4)
    return simulate(source_of(head.image, head.tissues), ACQUISITION, {"CSF": 0.5, "GM": 0.8, "WM": 1.0}, seed=2)


def test_what_was_written_is_read(simulation, tmp_path):
    path = tmp_path / "sub-01_kspace.npz"
    save_k_space(simulation, path)
    found = load_k_space(path)
    assert torch.equal(found.data, k_space(simulation))
    assert found.grid.matches(simulation.scan.grid)
    assert from_json(found.meta) == ACQUISITION
    assert found.meta["Simulation"]["Seed"] == 2
    with np.load(path) as arrays:
        assert arrays["encoded_matrix"].tolist() == list(simulation.scan.grid.shape)
        assert arrays["field_of_view_mm"] == pytest.approx(simulation.scan.grid.fov_mm)
        assert arrays["k_space"].dtype == np.complex64
    block = json.loads((tmp_path / "sub-01_kspace.json").read_text())["KSpace"]
    assert block["AxisOrder"] == ["channel", "x", "y", "z"]
    assert block["NoiseSdPerRealChannel"] == 0.02


def test_numpy_alone_gets_the_image_back(simulation, tmp_path):
    """Centre at n // 2, orthonormal: what a reader of the file has to know."""
    save_k_space(simulation, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as arrays:
        shifted = np.fft.ifftshift(arrays["k_space"], axes=(1, 2, 3))
        images = np.fft.fftshift(np.fft.ifftn(shifted, axes=(1, 2, 3), norm="ortho"), axes=(1, 2, 3))
        middle = tuple(n // 2 for n in arrays["encoded_matrix"])
        assert abs(arrays["k_space"][0][middle]) == pytest.approx(np.abs(arrays["k_space"][0]).max())
    magnitude = np.sqrt((np.abs(images) ** 2).sum(0))
    assert np.abs(magnitude - simulation.scan.data.numpy()).max() < 1e-5
    assert float((root_sum_of_squares(simulation.channels) - simulation.scan.data).abs().max()) < 1e-6


def test_the_same_simulation_gives_the_same_bytes(simulation, tmp_path):
    for name in ("a", "b"):
        save_k_space(simulation, tmp_path / f"{name}.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_files_are_not_replaced_unasked(simulation, tmp_path):
    path = tmp_path / "a.npz"
    save_k_space(simulation, path)
    before = path.read_bytes()
    other = dataclasses.replace(simulation, channels=2 * simulation.channels)
    with pytest.raises(BadInputError, match="exists already"):
        save_k_space(other, path)
    assert path.read_bytes() == before
    save_k_space(other, path, force=True)
    assert torch.equal(load_k_space(path).data, k_space(other))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "a.npz"]


def test_bad_files_are_refused(simulation, tmp_path):
    with pytest.raises(BadInputError, match=r"\.npz"):
        save_k_space(simulation, tmp_path / "a.nii.gz")
    with pytest.raises(BadInputError, match="cannot be read"):
        load_k_space(tmp_path / "missing.npz")
    (tmp_path / "text.npz").write_text("no arrays")
    with pytest.raises(BadInputError, match="cannot be read"):
        load_k_space(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", image=np.zeros(3))
    with pytest.raises(BadInputError, match="cannot be read"):
        load_k_space(tmp_path / "other.npz")
    with pytest.raises(BadInputError, match="complex"):
        KSpace(simulation.scan.data[None], simulation.scan.grid, {})
    with pytest.raises(GridMismatchError, match="matrix"):
        KSpace(k_space(simulation)[:, 1:], simulation.scan.grid, {})
