"""The hash grid: exact where it is dense, shared where it is hashed; its accelerator, explained where it is missing."""

import itertools
import math
import sys
import textwrap

import pytest
import torch
from operators import grid

from inr.fields import tcnn
from inr.fields.hash_encoding import PRIMES, HashEncoding, HashShape
from inr.fields.hashgrid import HashField, HashGrid
from mrcore.errors import MissingExtraError

F64 = torch.float64
DENSE = HashShape(n_levels=2, n_features=2, log2_entries=12, base_resolution=5, growth=2.0)
HASHED = HashShape(n_levels=1, n_features=1, log2_entries=6, base_resolution=9, growth=2.0)
LATTICE = grid((20, 24, 18), (1.5, 1.0, 2.0), (5, 5, 5), (10, 20, 30))


def encoding(shape, seed=0) -> HashEncoding:
    return HashEncoding(shape, torch.Generator().manual_seed(seed)).double()


def positions(n=200, seed=1) -> torch.Tensor:
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(seed), dtype=F64)


def nodes_of(resolution) -> torch.Tensor:
    axis = torch.arange(resolution)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)


def test_sizes_follow_the_paper():
    assert [DENSE.resolution(level) for level in (0, 1)] == [5, 10]
    assert [DENSE.entries(level) for level in (0, 1)] == [128, 1000]
    assert HASHED.entries(0) == 64
    table = encoding(DENSE).table
    assert table.numel() == 2 * (128 + 1000)


def test_dense_levels_have_a_place_for_each_node():
    one = encoding(DENSE)
    for level in (0, 1):
        index = one.index(nodes_of(DENSE.resolution(level)), level)
        assert len(index.unique()) == DENSE.resolution(level) ** 3
    assert one.index(torch.tensor([[1, 2, 3]]), 0).item() == 1 + 2 * 5 + 3 * 25


def test_dense_levels_interpolate_trilinear_functions_exactly():
    one = encoding(DENSE)

    def function(p):
        return torch.stack([1 + 2 * p[:, 0] - p[:, 1] * p[:, 2], p.prod(1) - 3 * p[:, 0]], 1)

    with torch.no_grad():
        for level in (0, 1):
            nodes = nodes_of(DENSE.resolution(level))
            table = one.table[one.bounds[level] : one.bounds[level + 1]].view(-1, 2)
            # Position x of the unit cube lies at scale * x + 1/2 nodes.
            table[one.index(nodes, level)] = function((nodes - 0.5) / DENSE.scale(level)).double()
    where = 0.87 * positions()
    expected = torch.cat([function(where).T] * 2)
    assert torch.allclose(one(where), expected, atol=1e-12)


def test_hash_is_the_papers_in_32_bits():
    one = encoding(HASHED)
    for node in ([3, 5, 7], [8, 8, 8], [0, 1, 0]):
        expected = 0
        for coordinate, prime in zip(node, PRIMES, strict=True):
            expected ^= coordinate * prime % 2**32
        assert one.index(torch.tensor([node]), 0).item() == expected % 64


def test_hashed_nodes_collide_evenly():
    one = encoding(HASHED)
    counts = torch.bincount(one.index(nodes_of(9), 0), minlength=64)
    assert counts.min() >= 1, "every entry is used"
    assert counts.max() > 1, "729 nodes share 64 entries"
    assert counts.max().item() < 4 * 729 / 64


def test_what_collides_shares_its_feature():
    one = encoding(HASHED)
    nodes = nodes_of(9)
    index = one.index(nodes, 0)
    first, second = nodes[index == index[0]][:2]
    where = (torch.stack([first, second]) - 0.5) / HASHED.scale(0)
    with torch.no_grad():
        assert torch.allclose(one(where)[:, 0], one(where)[:, 1])
        assert torch.allclose(one(where)[0, 0], one.table[index[0]])


def test_levels_run_from_the_coarsest_to_the_finest_spacing_in_mm():
    settings = HashGrid(coarsest_mm=8.0, finest_voxels=1.5, n_levels=4)
    field = HashField(LATTICE, settings, 2, torch.Generator().manual_seed(0))
    shape = field.encoding.shape
    assert field.cube_mm == pytest.approx(48.0), "36 mm in cells of 8 mm, and half a cell on each side"
    spacings = [field.cube_mm / shape.scale(level) for level in range(4)]
    assert spacings[0] == pytest.approx(8.0)
    assert spacings[-1] == pytest.approx(1.5)
    assert all(a > b for a, b in itertools.pairwise(spacings))


def test_without_the_library_the_reason_is_said(monkeypatch, tmp_path):
    def reason(source: str, timeout_s: float = 60.0) -> str | None:
        (tmp_path / "tinycudann.py").write_text(textwrap.dedent(source))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return tcnn.why_not.__wrapped__(timeout_s)

    assert "not installed (no such thing)" in reason("raise ImportError('no such thing')")
    assert "cannot be loaded (libcuda.so.1: missing)" in reason("raise OSError('libcuda.so.1: missing')")
    if sys.platform != "win32":
        assert "by signal 11" in reason("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert "a trial of it failed (AttributeError" in reason("")
    assert "did not end within 0.5 s" in reason("import time; time.sleep(30)", 0.5)


def test_a_field_that_asks_for_it_explains(monkeypatch):
    monkeypatch.setattr(tcnn, "why_not", lambda: "there is none")
    with pytest.raises(MissingExtraError, match="there is none"):
        HashGrid(coarsest_mm=8.0, accelerated=True).build(LATTICE, 2, torch.Generator().manual_seed(0))


class StandIn:
    """A library with the interface of tiny-cuda-nn, which does what the torch encoding does."""

    class Encoding(torch.nn.Module):
        def __init__(self, n_in, settings, dtype):
            super().__init__()
            assert n_in == 3
            names = ("n_levels", "n_features_per_level", "log2_hashmap_size", "base_resolution", "per_level_scale")
            self.twin = HashEncoding(HashShape(*(settings[name] for name in names)), torch.Generator().manual_seed(9))
            self.params = self.twin.table

        def forward(self, x):
            return self.twin(x).T


def test_an_accelerated_field_is_the_same_field(monkeypatch):
    monkeypatch.setattr(tcnn, "why_not", lambda: None)
    monkeypatch.setattr(tcnn.importlib, "import_module", lambda name: StandIn)
    plain, fast = (
        HashGrid(coarsest_mm=8.0, n_levels=3, log2_entries=8, accelerated=a).build(
            LATTICE, 2, torch.Generator().manual_seed(0)
        )
        for a in (False, True)
    )
    assert plain.state_dict().keys() == fast.state_dict().keys()
    local = 10 * torch.randn(3, 50, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(plain.decode(local), fast.decode(local), atol=1e-6)
    fast.decode(local).sum().backward()
    assert fast.encoding.table.grad.norm() > 0
    moved = fast.double()
    assert moved.encoding.table.dtype == torch.float32, "the library's table stays what and where it is"
    assert torch.allclose(moved.decode(local.double()).float(), plain.decode(local), atol=1e-5)


def test_the_accelerator_computes_what_torch_does():
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU")
    reason = tcnn.why_not()
    if reason is not None:
        pytest.skip(f"needs tiny-cuda-nn: {reason}")
    for shape in (DENSE, HASHED, HashShape(6, 2, 14, 8, 1.6)):
        twin = HashEncoding(shape, torch.Generator().manual_seed(0))
        with torch.no_grad():
            twin.table.mul_(1000)
        fast = tcnn.TcnnEncoding(twin)
        where = positions(5000).float()
        ours, theirs = twin(where), fast(where)
        assert torch.allclose(ours, theirs, atol=1e-3)
        weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(3))
        (ours * weight).sum().backward()
        (theirs * weight).sum().backward()
        error = (twin.table.grad - fast.table.grad.cpu()).norm() / twin.table.grad.norm()
        assert error < 1e-3, math.log2(error)
