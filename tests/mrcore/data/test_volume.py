"""Volumes and tissue maps: what the constructors check."""

import logging
import pickle

import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid
from mrcore.data.volume import TISSUES, TissueMap, Volume, require_same_grid
from mrcore.errors import BadInputError, GridMismatchError

GRID = Grid((3, 4, 5), np.diag([1.0, 2, 3, 1]))


def maps(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None, None, None].expand(len(values), *GRID.shape).clone()


def test_meta_is_copied_and_read_only():
    meta = {"EchoTime": 0.1}
    volume = Volume(torch.zeros(3, 4, 5), GRID, meta)
    meta["EchoTime"] = 0.2
    assert volume.meta["EchoTime"] == 0.1
    with pytest.raises(TypeError):
        volume.meta["EchoTime"] = 0.3


def test_pickles_for_other_processes():
    volume = pickle.loads(pickle.dumps(Volume(torch.ones(3, 4, 5), GRID, {"EchoTime": 0.1})))
    assert torch.equal(volume.data, torch.ones(3, 4, 5))
    assert volume.meta["EchoTime"] == 0.1
    assert volume.grid.matches(GRID)


def test_complex_data_are_allowed():
    assert Volume(torch.zeros(3, 4, 5, dtype=torch.complex64), GRID).data.is_complex()


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (torch.zeros(2, 3, 4, 5), BadInputError, "3-D floating data, got 4-D"),
        (torch.zeros(3, 4, 5, dtype=torch.int16), BadInputError, "3-D floating data, got 3-D torch.int16"),
        (torch.zeros(3, 5, 4), GridMismatchError, r"shape \(3, 5, 4\) but its grid \(3, 4, 5\)"),
        (torch.full((3, 4, 5), torch.nan), BadInputError, "holds 60 values that are NaN or infinite"),
    ],
)
def test_volume_refuses(data, error, message):
    with pytest.raises(error, match=message):
        Volume(data, GRID)


def test_one_infinite_value_is_counted():
    data = torch.zeros(3, 4, 5)
    data[1, 2, 3] = torch.inf
    with pytest.raises(BadInputError, match="holds 1 values"):
        Volume(data, GRID)


def test_tissue_map_finds_its_tissues_and_mask():
    tissues = TissueMap(maps(0.1, 0.2, 0.7), TISSUES, GRID)
    assert float(tissues.of("WM").mean()) == pytest.approx(0.7)
    assert tissues.mask.all()
    assert not TissueMap(maps(0.1, 0.1, 0.2), TISSUES, GRID).mask.any()
    with pytest.raises(BadInputError, match="no tissue 'fat'"):
        tissues.of("fat")


@pytest.mark.parametrize(
    ("prob", "names", "message"),
    [
        (maps(0.5, 0.5), TISSUES, "expected 2 different tissue names"),
        (maps(0.5, 0.5), ("GM", "GM"), "expected 2 different tissue names"),
        (torch.zeros(0, 3, 4, 5), (), "expected 0 different tissue names"),
        (maps(0.5, 0.6), ("GM", "WM"), "sum to at most 1; the lowest is 0.5, the highest sum 1.1"),
        (maps(-0.1, 0.6), ("GM", "WM"), "the lowest is -0.1"),
        (maps(0.5, 0.5).to(torch.complex64), ("GM", "WM"), "must be real"),
        (torch.zeros(3, 4, 5), TISSUES, "4-D floating data"),
    ],
)
def test_tissue_map_refuses(prob, names, message):
    with pytest.raises(BadInputError, match=message):
        TissueMap(prob, names, GRID)


def test_rounding_of_probabilities_is_allowed():
    TissueMap(maps(0.5005, 0.5), ("GM", "WM"), GRID)


def test_grids_that_rounding_has_moved_are_one_and_the_distance_is_said(caplog):
    def moved(mm):
        affine = GRID.affine.copy()
        affine[2, 3] += mm
        return Grid(GRID.shape, affine)

    tenth_mm = 0.1 * min(GRID.spacing_mm)
    with caplog.at_level(logging.WARNING):
        require_same_grid(GRID, moved(5e-4), "two scans")
        assert caplog.text == ""
        require_same_grid(GRID, moved(0.9 * tenth_mm), "two scans")
    assert f"two scans lie {0.9 * tenth_mm:.2g} mm apart, less than a tenth of a voxel" in caplog.text
    with pytest.raises(GridMismatchError, match=f"a voxel lies {1.1 * tenth_mm:.3g} mm off"):
        require_same_grid(GRID, moved(1.1 * tenth_mm), "two scans")


def test_require_same_grid_names_both():
    require_same_grid(GRID, Grid(GRID.shape, GRID.affine), "two scans")
    with pytest.raises(GridMismatchError, match=r"scan and mask are not .*RAS of 1 x 2 x 3 mm against .*LAS of"):
        require_same_grid(GRID, Grid(GRID.shape, np.diag([-1.0, 2, 3, 1])), "scan and mask")
