"""The denoisers that come with mrkit, on heads they were not trained on, against total variation tuned on the truth."""

import nibabel as nib
import numpy as np
import pytest
import torch
from skimage.restoration import denoise_tv_chambolle

from mrcore.denoisers.files import shipped_denoiser
from mrcore.denoisers.unet import denoise_slices
from mrcore.random import seeded

HELD_OUT = ("stroke_3T", "openms_p26", "colin27", "visualqc", "niimath")
EVALUATED_SUBJECTS = ("subject06", "subject07", "subject08")


@pytest.fixture(scope="module")
def brain(shared_data):
    """A function that gives a block (64, 64, 64) of a real brain, 1 its 99th percentile, and where it is brain."""

    def block(name):
        data = np.asarray(nib.load(shared_data / "t1" / f"{name}.nii.gz").dataobj, np.float32).clip(0)
        middle = tuple(slice(n // 2 - 32, n // 2 + 32) for n in data.shape)
        part = data[middle] / np.percentile(data[data > 0], 99)
        return torch.from_numpy(part), torch.from_numpy(part > 0)

    return block


def psnr_db(image, truth, mask):
    return -10 * float(torch.log10((image - truth)[mask].square().mean()))


def best_total_variation_db(noisy, truth, mask, sigma):
    tried = [denoise_tv_chambolle(noisy.numpy(), weight=w * sigma, max_num_iter=100) for w in (0.35, 0.5, 0.7, 0.9)]
    return max(psnr_db(torch.from_numpy(image), truth, mask) for image in tried)


@pytest.mark.parametrize("n_dims", [2, 3])
def test_nobody_is_in_training_and_test(n_dims):
    names = [source.name for source in shipped_denoiser(n_dims).card.sources]
    assert names
    assert not [name for name in names if name.startswith((*HELD_OUT, *EVALUATED_SUBJECTS))]
    assert all(source.licence != "not stated" for source in shipped_denoiser(n_dims).card.sources)


@pytest.mark.parametrize(
    ("name", "sigma", "margin_db"),
    [
        ("openms_p26_T1_brain_mni1mm", 0.03, 0.5),
        ("openms_p26_T1_brain_mni1mm", 0.1, 1.2),
        ("stroke_3T_T1_brain", 0.1, 0.3),  # a scan whose own noise, about 0.045, bounds what can be measured
    ],
)
def test_against_total_variation(brain, name, sigma, margin_db):
    truth, mask = brain(name)
    noisy = truth + sigma * torch.randn(truth.shape, generator=seeded(3, "noise"))
    rival = best_total_variation_db(noisy, truth, mask, sigma)
    assert psnr_db(shipped_denoiser(3)(noisy, sigma), truth, mask) > rival + margin_db
    sliced = denoise_slices(shipped_denoiser(2).net, noisy, sigma)
    assert psnr_db(sliced, truth, mask) > rival + margin_db - 0.5
