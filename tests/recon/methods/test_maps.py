from dataclasses import replace

import pytest
import torch

from mrcore.errors import BadInputError
from mrcore.random import seeded
from recon.dictionary.dictionary import build_dictionary, fisp_model, log_grid
from recon.encoding.subspace import compress
from recon.files.sequences import delics_sequence
from recon.methods.baselines import subspace_cg
from recon.methods.maps import coefficient_noise, map_bounds, maps_of, support


def coefficients(small_scan):
    x = torch.zeros((5, *small_scan.mask.shape), dtype=torch.complex64)
    x[:, small_scan.mask] = (
        compress(small_scan.dictionary.subspace, small_scan.signals).T.to(x) * small_scan.pd[small_scan.mask]
    )
    return x


def test_noiseless_maps_lie_between_the_atoms(small_scan):
    maps = maps_of(small_scan.dictionary, coefficients(small_scan))
    assert torch.equal(maps.mask, small_scan.mask)
    assert max(small_scan.errors_percent(maps.t1_s, maps.t2_s)) < 0.5
    assert torch.allclose(maps.pd, small_scan.pd.to(maps.pd), atol=5e-3)
    assert maps.b1 is None
    assert (maps.fit[maps.mask] > 0.999).all()
    for values in (maps.t1_s, maps.t2_s, maps.pd.abs(), maps.fit):
        assert (values[~maps.mask] == 0).all()


def test_maps_hold_b1_where_the_dictionary_does():
    sequence = delics_sequence()
    grid = log_grid((0.5, 1.5), (0.05, 0.1), step=0.3, b1=(0.9, 1.1))
    full = build_dictionary(grid, fisp_model(sequence, tolerance=1e-2), 500)
    chosen = int(((grid.b1 > 1).nonzero())[3])
    x = full.atoms[chosen].reshape(-1, 1, 1, 1).to(torch.complex64)
    maps = maps_of(full, x)
    assert maps.b1 is not None
    assert float(maps.b1) == pytest.approx(1.1)


def test_a_mask_of_another_kind_is_refused(small_scan):
    x = coefficients(small_scan)
    with pytest.raises(BadInputError, match="mask of booleans"):
        maps_of(small_scan.dictionary, x, small_scan.mask.float())
    maps = maps_of(small_scan.dictionary, x)
    with pytest.raises(BadInputError, match="one shape"):
        replace(maps, fit=maps.fit[:3])


def test_support_is_where_the_signal_is(small_scan):
    x = coefficients(small_scan)
    assert torch.equal(support(5 * x), small_scan.mask)
    assert not support(x, 2.0).any()


def test_noise_is_passed_on_by_the_inverse_of_the_operator(small_scan):
    encoding, _ = small_scan.scan(1.0)
    sd = coefficient_noise(encoding, 0.3, lambda noise: subspace_cg(encoding, noise).x, n_replicas=10)
    assert float(sd.mean()) == pytest.approx(0.3, rel=0.03)  # full sampling is an isometry
    fewer, _ = small_scan.scan(0.1)
    amplified = coefficient_noise(fewer, 0.3, lambda noise: subspace_cg(fewer, noise, 30).x)
    assert float(amplified.mean()) > 0.3 * 10**0.5
    with pytest.raises(BadInputError, match="above 0"):
        coefficient_noise(encoding, 0.0, lambda noise: noise)


def test_bounds_are_what_noisy_maps_spread(small_scan):
    x, sd = coefficients(small_scan), 0.01
    many = [
        maps_of(
            small_scan.dictionary,
            x + sd * torch.view_as_complex(torch.randn((*x.shape, 2), generator=seeded(n, "noise"))),
            small_scan.mask,
        ).t1_s
        for n in range(30)
    ]
    maps = maps_of(small_scan.dictionary, x)
    bounds = map_bounds(small_scan.dictionary, maps, torch.full(x.shape[1:], sd))
    found = torch.stack(many).std(0)[small_scan.mask]
    assert float((found / bounds.t1_s[small_scan.mask]).mean()) == pytest.approx(1, abs=0.15)
    assert (bounds.t1_s[~small_scan.mask] == 0).all()
    doubled = map_bounds(small_scan.dictionary, maps, torch.full(x.shape[1:], 2 * sd))
    assert torch.allclose(doubled.t2_s, 2 * bounds.t2_s)
