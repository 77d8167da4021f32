import pytest
import torch

from mrcore.denoisers.classical import tv_denoiser
from mrcore.denoisers.unet import geometric
from mrcore.errors import BadInputError
from recon.methods.baselines import subspace_cg
from recon.methods.maps import maps_of
from recon.methods.pnp import PnpSettings, pnp_admm


def unchanged(image, sigma):
    return image.clone()


def test_without_a_denoiser_it_is_least_squares(small_scan):
    encoding, samples = small_scan.scan(0.3, noise_sd=0.02)
    expected = subspace_cg(encoding, samples, 60).x
    found = pnp_admm(encoding, samples, unchanged, PnpSettings(n_iter=25, coupling=0.2, n_cg=10))
    assert float((found.x - expected).norm() / expected.norm()) < 5e-3
    assert found.converged
    assert len(found.history) == found.n_iter == 25


@pytest.mark.parametrize("duals", [True, False])
def test_a_denoiser_makes_maps_better(small_scan, duals):
    encoding, samples = small_scan.scan(0.05, noise_sd=0.01)
    plain = maps_of(small_scan.dictionary, subspace_cg(encoding, samples).x, small_scan.mask)
    found = pnp_admm(encoding, samples, tv_denoiser(n_iter=30), PnpSettings(duals=duals))
    better = maps_of(small_scan.dictionary, found.x, small_scan.mask)
    for now, before in zip(
        small_scan.errors_percent(better.t1_s, better.t2_s),
        small_scan.errors_percent(plain.t1_s, plain.t2_s),
        strict=True,
    ):
        assert now < 0.8 * before


def test_the_unit_of_the_data_and_the_phase_of_the_scanner_do_not_matter(small_scan):
    encoding, samples = small_scan.scan(0.1, noise_sd=0.01)
    settings = PnpSettings(n_iter=3)
    plain = pnp_admm(encoding, samples, tv_denoiser(n_iter=30), settings).x
    turned = 200 * torch.exp(torch.tensor(1.1j))
    found = pnp_admm(encoding, turned * samples, tv_denoiser(n_iter=30), settings).x
    assert float((found - turned * plain).norm() / found.norm()) < 2e-3


def test_sigma_falls_by_one_ratio():
    assert geometric(8.0, 1.0, 4) == pytest.approx([8, 4, 2, 1])
    assert geometric(8.0, 1.0, 1) == (8.0,)


@pytest.mark.parametrize("wrong", [{"sigma_first": 0.1}, {"sigma_last": 0.0}, {"coupling": 0.0}, {"n_iter": 0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(BadInputError, match=r"noise to remove|coupling"):
        PnpSettings(**wrong)
