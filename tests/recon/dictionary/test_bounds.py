import pytest
import torch

from mrcore.errors import BadInputError
from recon.dictionary.bounds import cramer_rao
from recon.dictionary.dictionary import bssfp_model, build_dictionary, compress_dictionary, fisp_model, log_grid
from recon.dictionary.match_index import match_index
from recon.dictionary.matching import match
from recon.dictionary.refine import refine
from recon.encoding.subspace import compress, subspace_of
from recon.files.sequences import delics_sequence


def dictionary(kind):
    full = build_dictionary(log_grid((0.6, 1.6), (0.05, 0.15), step=0.04), kind(delics_sequence()), 500)
    return compress_dictionary(full, subspace_of(full.atoms, 8))


@pytest.mark.parametrize("kind", [fisp_model, lambda sequence: bssfp_model(sequence, 7.0)])
def test_refined_estimates_spread_as_the_bound_says(kind):
    atoms = dictionary(kind)
    grid = atoms.grid
    atom = int(grid.lattice[12, 14, 0])
    pd, noise_sd, n = torch.tensor(1.5 - 2.0j), 0.02, 4000
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(n, 8, 2, generator=generator)
    data = pd * atoms.atoms[atom] + noise_sd * torch.view_as_complex(draws)
    found = refine(atoms, match(match_index(atoms.atoms), data), data)
    bound = cramer_rao(atoms, torch.tensor([atom]), pd[None], noise_sd)
    assert found.t1_s.std() == pytest.approx(bound.t1_s.item(), rel=0.08)
    assert found.t2_s.std() == pytest.approx(bound.t2_s.item(), rel=0.08)
    assert found.pd.abs().std() == pytest.approx(bound.pd.item(), rel=0.08)


def test_bounds_follow_noise_and_pd():
    atoms = dictionary(fisp_model)
    pd = torch.tensor([1.0, 2.0, 0.0])
    bound = cramer_rao(atoms, torch.tensor([100, 100, 100]), pd, torch.tensor([0.01, 0.04, 0.01]))
    assert (bound.t1_s[1] / bound.t1_s[0]).item() == pytest.approx(2)
    assert (bound.t2_s[1] / bound.t2_s[0]).item() == pytest.approx(2)
    assert (bound.pd[1] / bound.pd[0]).item() == pytest.approx(4)
    assert bound.t1_s[2] > 1e10
    with pytest.raises(BadInputError, match="noise_sd"):
        cramer_rao(atoms, torch.tensor([0]), pd[:1], 0.0)


def test_bounds_are_those_of_all_four_unknowns():
    """Against the full Fisher matrix in real numbers, phase included, with slopes from the model itself.

    Off resonance T1 and T2 change the phase of complex atoms, which costs what they have in common with that of PD.
    """
    model = bssfp_model(delics_sequence(), 33.0)
    grid = log_grid((0.6, 1.6), (0.05, 0.15), 0.04)
    full = build_dictionary(grid, model, 500)
    atoms = compress_dictionary(full, subspace_of(full.atoms, 8))
    atom, pd, noise_sd = int(grid.lattice[12, 14, 0]), torch.tensor(1.5 - 2.0j), 0.02
    t1_s, t2_s = float(grid.t1_s[atom]), float(grid.t2_s[atom])

    def coefficients(values):
        one, two, size, phase = values.unbind()
        signal = model(one[None].float(), two[None].float(), torch.ones(1))
        return size * torch.polar(torch.ones(()).double(), phase) * compress(atoms.subspace, signal)[0]

    at = torch.tensor([t1_s, t2_s, float(pd.abs()), float(pd.angle())], dtype=torch.float64)
    columns = []
    for step in torch.diag(torch.tensor([0.04 * t1_s, 0.04 * t2_s, 0.01, 0.01], dtype=torch.float64)):
        slope = (coefficients(at + step) - coefficients(at - step)) / (2 * step.sum())
        columns.append(torch.view_as_real(slope.to(torch.complex128)).flatten())
    jacobian = torch.stack(columns, 1)
    least = noise_sd * torch.linalg.inv(jacobian.T @ jacobian).diagonal().sqrt()
    phase_known = noise_sd * torch.linalg.inv(jacobian[:, :3].T @ jacobian[:, :3]).diagonal().sqrt()
    found = cramer_rao(atoms, torch.tensor([atom]), pd[None], noise_sd)
    assert found.t1_s.item() == pytest.approx(float(least[0]), rel=0.02)
    assert found.t2_s.item() == pytest.approx(float(least[1]), rel=0.02)
    assert found.pd.item() == pytest.approx(float(least[2]), rel=0.02)
    assert float((least[:3] / phase_known).max()) > 1.1, "or the phase would cost nothing"
