import math

import pytest
import torch

import recon.dictionary.dictionary
from mrcore.errors import BadInputError
from mrcore.signals.bssfp import bssfp_signals
from mrcore.signals.epg import fisp_signals
from mrcore.signals.mrf_sequence import MrfSequence
from recon.dictionary.dictionary import (
    Dictionary,
    bssfp_model,
    build_dictionary,
    compress_dictionary,
    fisp_model,
    log_grid,
)
from recon.encoding.subspace import compress, subspace_of

SEQUENCE = MrfSequence(torch.linspace(5, 60, 40), torch.tensor(0.012), torch.tensor(0.002), ti_s=0.02)


def test_the_grid_is_logarithmic_and_keeps_t2_below_t1():
    grid = log_grid((0.1, 0.4), (0.05, 0.8), step=1.0, b1=(0.9, 1.1), dtype=torch.float64)
    atoms = set(zip(grid.t1_s.tolist(), grid.t2_s.tolist(), grid.b1.tolist(), strict=True))
    pairs = [(0.1, 0.05), (0.1, 0.1), (0.2, 0.05), (0.2, 0.1), (0.2, 0.2)]
    pairs += [(0.4, t2_s) for t2_s in (0.05, 0.1, 0.2, 0.4)]
    assert atoms == {(t1_s, t2_s, b1) for t1_s, t2_s in pairs for b1 in (0.9, 1.1)}
    assert grid.lattice.shape == (3, 5, 2)
    atom = grid.lattice[2, 1, 1]
    assert (grid.t1_s[atom], grid.t2_s[atom], grid.b1[atom]) == (0.4, 0.1, 1.1)
    assert grid.lattice[0, 4, 0] == -1


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        (((100.0, 5000.0), (0.01, 2.0)), "milliseconds"),
        (((0.5, 0.1), (0.01, 2.0)), "rise"),
        (((0.1, 0.2), (0.3, 0.4)), "below its T1"),
    ],
)
def test_grids_without_sense(ranges, message):
    with pytest.raises(BadInputError, match=message):
        log_grid(*ranges)


def test_steps_and_b1_without_sense():
    with pytest.raises(BadInputError, match="step"):
        log_grid(step=0.0)
    with pytest.raises(BadInputError, match="B1"):
        log_grid(b1=(0.0,))


def test_blocks_and_compression_change_nothing(monkeypatch):
    grid = log_grid((0.2, 2.0), (0.02, 0.2), step=0.2, b1=(0.8, 1.0), dtype=torch.float64)
    model = fisp_model(SEQUENCE, tolerance=0)
    whole = build_dictionary(grid, model, SEQUENCE.n_frames)
    assert torch.equal(whole.atoms, fisp_signals(SEQUENCE, grid.t1_s, grid.t2_s, grid.b1, tolerance=0))
    subspace = subspace_of(whole.atoms, 4)
    monkeypatch.setattr(recon.dictionary.dictionary, "_BLOCK_BYTES", 17 * 8 * SEQUENCE.n_frames)
    blocks = build_dictionary(grid, model, SEQUENCE.n_frames, subspace)
    assert torch.allclose(blocks.atoms, compress(subspace, whole.atoms), atol=1e-12)
    assert torch.allclose(compress_dictionary(whole, subspace).atoms, blocks.atoms, atol=1e-12)
    with pytest.raises(BadInputError, match="already"):
        compress_dictionary(blocks, subspace)


def test_balanced_atoms_know_their_off_resonance():
    grid = log_grid((0.2, 2.0), (0.02, 0.2), step=0.5, dtype=torch.float64)
    atoms = build_dictionary(grid, bssfp_model(SEQUENCE, 12.0), SEQUENCE.n_frames).atoms
    assert torch.equal(atoms, bssfp_signals(SEQUENCE, grid.t1_s, grid.t2_s, torch.full_like(grid.t1_s, 12.0)))
    assert atoms.is_complex()


def test_atoms_that_cannot_be_matched_are_refused():
    grid = log_grid((0.2, 2.0), (0.02, 0.2), step=0.5)
    with pytest.raises(BadInputError, match="atoms expected"):
        Dictionary(grid, torch.ones(3, 4))
    for value in (0.0, math.nan):
        with pytest.raises(BadInputError, match="finite"):
            Dictionary(grid, torch.full((grid.n_atoms, 4), value))
