import pytest
import torch

from mrcore.denoisers.classical import tv_denoiser
from mrcore.errors import BadInputError
from recon.contrasts import DEFAULT_CONTRASTS, weighted_signals
from recon.dictionary.dictionary import Dictionary
from recon.dictionary.match_index import match_index
from recon.methods.baselines import subspace_cg
from recon.methods.maps import maps_of
from recon.methods.mri2qmap import Mri2QmapSettings, model_noise, mri2qmap

TV = tv_denoiser(n_iter=30)


def unchanged(image, sigma):
    return image.clone()


@pytest.fixture(scope="module")
def noisy(small_scan):
    """Encoding and samples, and the result of a few steps."""
    encoding, samples = small_scan.scan(0.05, noise_sd=0.01)
    return encoding, samples, mri2qmap(encoding, samples, small_scan.dictionary, TV, mask=small_scan.mask)


def test_without_noise_the_maps_are_the_truth(small_scan):
    encoding, samples = small_scan.scan(1.0)
    result = mri2qmap(encoding, samples, small_scan.dictionary, unchanged, mask=small_scan.mask)
    assert max(small_scan.errors_percent(result.maps.t1_s, result.maps.t2_s)) < 1  # half a step of the grid is 3 %
    assert torch.allclose(result.maps.pd, small_scan.pd.to(result.maps.pd), atol=0.01)
    assert result.maps.b1 is None


def test_a_denoiser_of_images_makes_maps_better(small_scan, noisy):
    encoding, samples, result = noisy
    plain = maps_of(small_scan.dictionary, subspace_cg(encoding, samples).x, small_scan.mask)
    t1, t2 = small_scan.errors_percent(result.maps.t1_s, result.maps.t2_s)
    t1_before, t2_before = small_scan.errors_percent(plain.t1_s, plain.t2_s)
    assert t1 < 0.4 * t1_before
    assert t2 < 0.4 * t2_before


def test_steps_tell_how_the_constraints_and_the_data_are_met(noisy):
    _, samples, result = noisy
    misfits = [step.misfit for step in result.steps]
    assert result.solution.history == tuple(misfits)
    assert result.solution.n_iter == len(result.steps) == Mri2QmapSettings().n_iter
    noise_share = 0.01 * 2**0.5 / float(samples.abs().square().mean().sqrt())
    assert misfits[-1] == pytest.approx(noise_share, rel=0.1)
    sigmas = [step.sigma for step in result.steps]
    assert sigmas == sorted(sigmas, reverse=True)
    assert result.steps[-1].coefficients_apart < 0.3 * result.steps[0].coefficients_apart
    assert result.steps[-1].images_apart < 0.5 * result.steps[0].images_apart


def test_units_and_phase_do_not_matter(small_scan, noisy):
    encoding, samples, result = noisy
    turned = mri2qmap(encoding, 1e-3j * samples, small_scan.dictionary, TV, mask=small_scan.mask)
    assert torch.allclose(turned.maps.t1_s, result.maps.t1_s, rtol=0.02)
    assert torch.allclose(turned.maps.pd, 1e-3j * result.maps.pd, atol=2e-5)


def test_the_denoiser_sees_coefficients_then_images_from_0_on_and_falling_noise(small_scan, noisy):
    encoding, samples, _ = noisy
    seen = []

    def spy(image, sigma):
        seen.append((tuple(image.shape), float(image.max()), sigma, float(image.min())))
        return image.clone()

    settings = Mri2QmapSettings(n_iter=2, image_sigma=0.7)
    mri2qmap(encoding, samples, small_scan.dictionary, spy, settings, small_scan.mask)
    n_parts = 2 * small_scan.dictionary.atoms.shape[1]
    n_images = n_parts + len(DEFAULT_CONTRASTS)
    assert len(seen) == 2 * n_images
    assert {shape for shape, *_ in seen} == {(24, 24, 1)}
    assert min(low for *_, low in seen) >= 0
    heights = [height for _, height, *_ in seen[n_parts:n_images]]
    assert max(heights) < 3 * min(heights)
    assert seen[-1][2] == pytest.approx(seen[n_images - 1][2] / 2)
    assert seen[-1][2] == pytest.approx(0.7 * seen[n_images][2])


def test_each_step_denoises_another_mirror_image(small_scan, noisy):
    """What a denoiser prefers of a side does not add up."""
    encoding, samples, _ = noisy
    first = []

    def spy(image, sigma):
        first.append(image.clone())
        return image.clone()

    none = Mri2QmapSettings(n_iter=2, coupling=1e-6)
    mri2qmap(encoding, samples, small_scan.dictionary, spy, none, small_scan.mask)
    n_images = len(first) // 2
    assert float((first[0].flip(0) - first[n_images]).norm()) < 0.5 * float((first[0] - first[n_images]).norm())


def test_noise_is_what_atoms_do_not_explain(small_scan):
    atoms = small_scan.dictionary.atoms
    generator = torch.Generator().manual_seed(0)
    chosen = atoms[torch.randint(len(atoms), (3000,), generator=generator)]
    noise = torch.view_as_complex(torch.randn((3000, 5, 2), generator=generator))
    data = chosen * torch.exp(torch.tensor(0.7j)) + 0.02 * noise
    assert model_noise(match_index(atoms), data) == pytest.approx(0.02, rel=0.1)


def test_images_decide_where_their_weight_is_large(small_scan):
    """With a denoiser that returns the images of another tissue, a large weight ends there, a small one stays."""
    encoding, samples = small_scan.scan(1.0)
    grid = small_scan.dictionary.grid
    other = int(((grid.t1_s / 2.0).log().abs() + (grid.t2_s / 0.15).log().abs()).argmin())
    weights = weighted_signals(DEFAULT_CONTRASTS, grid.t1_s, grid.t2_s)

    def biased(found):
        number = iter(range(10_000))
        n_parts = 2 * small_scan.dictionary.atoms.shape[1]

        def denoiser(image, sigma):
            contrast = next(number) - n_parts
            if contrast < 0:
                return image.clone()
            level = weights[other, contrast] / weights[found, contrast]
            zero = float(image[~small_scan.mask].median())  # the images were lifted
            return zero + (float(image[small_scan.mask].median()) - zero) * level * small_scan.mask

        return denoiser

    inner = int(((grid.t1_s / 0.83).log().abs() + (grid.t2_s / 0.063).log().abs()).argmin())
    medians = [
        float(
            mri2qmap(
                encoding,
                samples,
                small_scan.dictionary,
                biased(inner),
                Mri2QmapSettings(n_iter=1, image_weight=weight),
                small_scan.mask,
            )
            .maps.t1_s[small_scan.mask]
            .median()
        )
        for weight in (1e-4, 1e3)
    ]
    assert medians[0] < 1.45
    assert medians[1] > 1.6


@pytest.mark.parametrize("wrong", [{"contrasts": ()}, {"sigma_first": 0.1}, {"coupling": 0.0}, {"n_cg": 0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(BadInputError, match=r"MRI2Qmap needs|noise to remove|coupling"):
        Mri2QmapSettings(**wrong)


def test_a_dictionary_of_signals_is_refused(small_scan):
    encoding, samples = small_scan.scan(0.1)
    signals = Dictionary(small_scan.dictionary.grid, small_scan.dictionary.atoms)
    with pytest.raises(BadInputError, match="subspace"):
        mri2qmap(encoding, samples, signals, unchanged)
