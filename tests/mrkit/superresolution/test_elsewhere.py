"""Prepared scans on another device: all that a fit takes goes there, and tissues are found on the CPU as before."""

import dataclasses

import pytest
import torch
from elsewhere import ELSEWHERE, Elsewhere
from operators import grid

from inr.fields.multilevel import FieldSettings
from inr.fitting.fit import Fit, FitSettings, fit
from mrcore.data.acquisition import gaussian_psf
from mrcore.data.volume import Volume
from mrcore.denoisers.files import shipped_denoiser
from mrcore.forward import imaging_operator, predict
from mrcore.noise import add_noise
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded
from mrkit.superresolution.fitting import denoiser_prior
from mrkit.superresolution.lattice import on_lattice
from mrkit.superresolution.prepare import Prepared, prepare

SPACING = (7.0, 7.0, 12.0)
QUICK = FitSettings(field=FieldSettings(spacings_mm=(24.0,)), n_steps=4)


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(26, 182.0), seed=2)


@pytest.fixture(scope="module")
def scan(head):
    header = grid((26, 26, 15), SPACING)
    clean = predict(imaging_operator(head.grid, header, gaussian_psf(SPACING)), head.image.data)
    return Volume(add_noise(clean, 0.02, seeded(1, "scan")), header, {"SourceFile": "sub-01_T1w.nii.gz"})


def fitted(ready: Prepared, resegment=None) -> Fit:
    return fit(ready.data, ready.lattice, ready.start, ready.foreground, ready.tissues, 0, QUICK, resegment)


def test_one_scan(head, scan):
    brain = on_lattice(head.tissues, scan.grid).mask
    ready = prepare(scan, voxel_mm=7.0, mask=brain)
    expected = fitted(ready, ready.resegment)
    with Elsewhere():
        there = ready.to(ELSEWHERE)
        moved = (there.data.scan, there.data.operator, there.start, there.foreground, there.tissues.prob)
        assert {x.device for x in moved} == {ELSEWHERE}
        segmented = there.resegment(there.start[0])
        assert segmented.device == ELSEWHERE
        found = fitted(there, there.resegment).to("cpu")
        back = there.to("cpu")
        segmented = segmented.cpu()
    assert torch.equal(segmented, ready.resegment(ready.start[0]))
    assert torch.equal(back.start, ready.start)
    torch.testing.assert_close(found.image, expected.image, atol=1e-3, rtol=0)


def test_several_scans(head, scan):
    tissues = on_lattice(head.tissues, scan.grid)
    other = dataclasses.replace(scan, meta={"SourceFile": "sub-01_T2w.nii.gz"})
    ready = prepare([scan, other], voxel_mm=7.0, tissues=tissues)
    with Elsewhere():
        there = ready.to(ELSEWHERE)
        assert {x.device for x in (*there.data.operators, there.data.support, there.start)} == {ELSEWHERE}
        found = fitted(there).to("cpu")
    expected = fitted(ready)
    torch.testing.assert_close(found.images, expected.images, atol=1e-3, rtol=0)


def test_a_denoiser_computes_where_it_is_and_answers_where_the_image_is(head):
    noisy = head.image.data + 0.05 * torch.randn(head.grid.shape, generator=seeded(0, "noise"))
    plain = shipped_denoiser(3)
    with Elsewhere():
        moved = denoiser_prior(plain, ELSEWHERE).denoise
        assert next(moved.net.parameters()).device == ELSEWHERE
        from_cpu, from_there = moved(noisy, 0.05), moved(noisy.to(ELSEWHERE), 0.05)
        assert (from_cpu.device.type, from_there.device.type) == ("cpu", "meta")
        from_there = from_there.cpu()
    assert next(plain.net.parameters()).device.type == "cpu", "the caller's net stays"
    torch.testing.assert_close(from_cpu, plain(noisy, 0.05), atol=1e-4, rtol=0)
    assert torch.equal(from_there, from_cpu)
