import pytest
import torch

import recon.dictionary.match_index
import recon.dictionary.matching
from mrcore.errors import BadInputError
from recon.dictionary.dictionary import build_dictionary, compress_dictionary, fisp_model, log_grid
from recon.dictionary.match_index import match_index
from recon.dictionary.matching import match
from recon.dictionary.refine import on_grid, refine
from recon.encoding.subspace import compress, subspace_of
from recon.files.sequences import delics_sequence


@pytest.fixture(scope="module")
def dictionary():
    sequence = delics_sequence()
    full = build_dictionary(log_grid((0.2, 4.0), (0.02, 1.0), step=0.08), fisp_model(sequence, tolerance=1e-3), 500)
    return compress_dictionary(full, subspace_of(full.atoms, 6))


def noisy(atoms, n=700, noise=0.1, seed=0):
    """Voxels of random atoms, phase, PD up to 3, and noise relative to the mean atom; some are noise alone."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(0, len(atoms), (n,), generator=generator)
    pd = 3 * torch.rand(n, generator=generator) * torch.exp(2j * torch.pi * torch.rand(n, generator=generator))
    pd[::10] = 0
    size = noise * atoms.abs().square().sum(1).sqrt().mean() / atoms.shape[1] ** 0.5
    draws = torch.randn(n, atoms.shape[1], dtype=torch.complex64, generator=generator)
    return chosen, pd, atoms[chosen] * pd[:, None] + size * draws


def brute_force(atoms, data):
    """Misfit |x - rho B|^2 of every atom at its best complex rho, by least squares in float64."""
    atoms, data = atoms.to(torch.complex128), data.to(torch.complex128)
    rho = data @ atoms.mH / atoms.abs().square().sum(1)
    return (data[:, None] - rho[:, :, None] * atoms).abs().square().sum(2), rho


def misfit(atoms, data, found):
    return (data - found.pd[:, None] * atoms[found.atom]).to(torch.complex128).abs().square().sum(1)


@pytest.mark.parametrize("noise", [0.0, 0.03, 0.5, 5.0])
@pytest.mark.parametrize("group_atoms", [1, 16, 10_000])
def test_matching_is_exact(dictionary, monkeypatch, noise, group_atoms):
    monkeypatch.setattr(recon.dictionary.match_index, "_GROUP_ATOMS", group_atoms)
    monkeypatch.setattr(recon.dictionary.matching, "_BLOCK_VOXELS", 300)
    atoms = dictionary.atoms
    _, _, data = noisy(atoms, noise=noise, n=400)
    found = match(match_index(atoms), data)
    least, rho = brute_force(atoms, data)
    size = data.abs().square().sum(1)
    assert ((misfit(atoms, data, found) - least.min(1).values) <= 1e-6 * size + 1e-12).all()
    assert torch.allclose(found.pd, rho.gather(1, found.atom[:, None])[:, 0].to(torch.complex64), rtol=1e-4, atol=1e-5)
    expected = (1 - least.min(1).values / size.clamp_min(1e-30)).clamp_min(0).sqrt()
    assert torch.allclose(found.fit[size > 0].double(), expected[size > 0], atol=1e-4)


def test_noiseless_voxels_find_their_atom_and_pd(dictionary):
    chosen, pd, data = noisy(dictionary.atoms, noise=0.0)
    found = match(match_index(dictionary.atoms), data)
    assert torch.equal(found.atom[pd != 0], chosen[pd != 0])
    assert torch.allclose(found.pd, pd, atol=1e-5)
    assert (found.atom[pd == 0] == 0).all()
    assert (found.fit[pd == 0] == 0).all()


def test_complex_atoms_are_conjugated():
    generator = torch.Generator().manual_seed(5)
    atoms = torch.randn(500, 6, dtype=torch.complex64, generator=generator)
    chosen, pd, data = noisy(atoms, noise=0.05)
    found = match(match_index(atoms), data)
    kept = pd.abs() > 0.5
    assert torch.equal(found.atom[kept], chosen[kept])
    least, _ = brute_force(atoms, data)
    assert torch.allclose(misfit(atoms, data, found), least.min(1).values, rtol=1e-3, atol=1e-5)


def weighted_images(grid):
    """PD-weighted, T1-weighted and T2-weighted signals per unit of PD."""
    parts = [torch.ones_like(grid.t1_s), 1 - torch.exp(-0.22 / grid.t1_s), torch.exp(-0.082 / grid.t2_s)]
    return torch.stack(parts, 1)


@pytest.mark.parametrize("weight", [0.02, 3.0])
def test_joint_matching_is_the_joint_minimum(dictionary, weight, monkeypatch):
    monkeypatch.setattr(recon.dictionary.match_index, "_GROUP_ATOMS", 32)
    atoms, weighted = dictionary.atoms, weighted_images(dictionary.grid)
    chosen, pd, data = noisy(atoms, noise=0.5, n=300)
    images = pd.abs()[:, None] * weighted[chosen]
    images = images + 0.3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
    images[:50] -= 5  # a denoiser's result that no PD explains
    found = match(match_index(atoms, weighted, weight), data, images)

    b, w, x, s = atoms.double(), weighted.double(), data.to(torch.complex128), images.double()
    inner = x @ b.to(x).mT
    rho = (inner.abs() + weight * s @ w.mT).clamp_min(0) / (b.square().sum(1) + weight * w.square().sum(1))
    turned = rho * inner / inner.abs()
    everywhere = (x[:, None] - turned[:, :, None] * b).abs().square().sum(2)
    everywhere += weight * (s[:, None] - rho[:, :, None] * w).square().sum(2)
    there = misfit(atoms, data, found)
    there += weight * (images - found.pd.abs()[:, None] * weighted[found.atom]).double().square().sum(1)
    assert torch.allclose(there, everywhere.min(1).values, rtol=1e-5)
    for factor in (0.9, 1.1):  # the closed form of rho is a minimum
        changed = (x[:, None] - factor * turned[:, :, None] * b).abs().square().sum(2)
        changed += weight * (s[:, None] - factor * rho[:, :, None] * w).square().sum(2)
        assert (changed >= everywhere - 1e-9).all()


def test_the_weight_of_the_images_decides(dictionary):
    atoms, weighted = dictionary.atoms, weighted_images(dictionary.grid)
    data, images = atoms[:1] + 0j, weighted[-1:]
    assert match(match_index(atoms, weighted, 1e-6), data, images).atom == 0
    assert match(match_index(atoms, weighted, 1e4), data, images).atom == len(atoms) - 1


def test_refinement_beats_the_floor_of_the_grid(dictionary):
    generator = torch.Generator().manual_seed(4)
    draws = torch.rand(3, 400, generator=generator)
    t1_s, t2_s = 0.6 * 3 ** draws[0], 0.04 * 3 ** draws[1]
    signals = fisp_model(delics_sequence(), tolerance=1e-4)(t1_s, t2_s, torch.ones_like(t1_s))
    data = compress(dictionary.subspace, signals) * 2 * torch.exp(2j * torch.pi * draws[2])[:, None]
    found = match(match_index(dictionary.atoms), data)
    coarse, fine = on_grid(dictionary, found), refine(dictionary, found, data)
    for name, truth in (("t1_s", t1_s), ("t2_s", t2_s)):
        errors = [(getattr(result, name) / truth - 1).abs() for result in (coarse, fine)]
        assert errors[0].mean() > 0.01
        assert errors[1].mean() < 5e-4
        assert errors[1].max() < 5e-3
    assert (fine.pd / (2 * torch.exp(2j * torch.pi * draws[2])) - 1).abs().max() < 2e-3
    assert ((fine.signal - data).norm(dim=1) / data.norm(dim=1)).max() < 2e-3


def test_refinement_stays_on_the_grid_and_leaves_empty_voxels(dictionary):
    _, pd, data = noisy(dictionary.atoms, noise=2.0)
    data[pd == 0] = 0
    found = match(match_index(dictionary.atoms), data)
    fine, grid = refine(dictionary, found, data), dictionary.grid
    assert (fine.t2_s <= fine.t1_s).all()
    for values, ends in ((fine.t1_s, grid.t1_s), (fine.t2_s, grid.t2_s)):
        assert values.min() > ends.min() * 0.999
        assert values.max() < ends.max() * 1.001
    assert (fine.pd[pd == 0] == 0).all()


def test_data_that_do_not_fit_are_refused(dictionary):
    atoms, weighted = dictionary.atoms, weighted_images(dictionary.grid)
    index = match_index(atoms)
    with pytest.raises(BadInputError, match="length 6"):
        match(index, torch.ones(4, 5))
    with pytest.raises(BadInputError, match="0 weighted images"):
        match(index, torch.ones(4, 6), torch.ones(4, 3))
    with pytest.raises(BadInputError, match="finite"):
        match(index, torch.full((4, 6), torch.nan))
    with pytest.raises(BadInputError, match="images of 3"):
        match(match_index(atoms, weighted), torch.ones(4, 6), torch.ones(3, 3))
    with pytest.raises(BadInputError, match="above 0"):
        match_index(atoms, weighted, 0.0)
    with pytest.raises(BadInputError, match="as many real"):
        match_index(atoms, weighted[:3])
    with pytest.raises(BadInputError, match="matched voxels"):
        refine(dictionary, match(index, torch.ones(4, 6)), torch.ones(3, 6))


def test_a_moved_dictionary_gives_the_same(dictionary):
    _, _, data = noisy(dictionary.atoms, n=50)
    moved = dictionary.to("cpu")
    found = match(match_index(moved.atoms).to("cpu"), data)
    fine, expected = refine(moved, found, data), refine(dictionary, match(match_index(dictionary.atoms), data), data)
    assert torch.equal(fine.t1_s, expected.t1_s)
    assert moved.grid.step == dictionary.grid.step


def test_refinement_stays_at_the_b1_that_was_matched():
    """Against the truth, simulated at flip angles 20 % below, at and above the nominal ones."""
    sequence = delics_sequence()
    model = fisp_model(sequence, tolerance=1e-3)
    grid = log_grid((0.5, 2.5), (0.03, 0.2), 0.08, (0.8, 1.0, 1.2))
    full = build_dictionary(grid, model, 500)
    dictionary = compress_dictionary(full, subspace_of(full.atoms, 7))
    generator = torch.Generator().manual_seed(6)
    t1_s, t2_s = (low * 3 ** torch.rand(60, generator=generator) for low in (0.6, 0.04))
    b1 = torch.tensor([0.8, 1.0, 1.2]).repeat(20)
    data = compress(dictionary.subspace, model(t1_s, t2_s, b1)) + 0j
    found = match(match_index(dictionary.atoms), data)
    fine = refine(dictionary, found, data)
    right = fine.b1 == b1
    assert right.double().mean() > 0.9
    for value, truth in ((fine.t1_s, t1_s), (fine.t2_s, t2_s)):
        error = (value / truth - 1).abs()[right]
        for factor in (0.8, 1.0, 1.2):
            assert error[b1[right] == factor].median() < 3e-3
