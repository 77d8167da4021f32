"""Fits on another device than the CPU: nothing is left behind, and the results are those of the CPU.

Machines without a GPU run them on one that is made up (`elsewhere`); it knows no CUDA graphs and no tf32.
"""

import dataclasses
from contextlib import nullcontext

import pytest
import torch
from elsewhere import ELSEWHERE, Elsewhere
from operators import grid

from inr.fields.hashgrid import HashGrid
from inr.fields.multilevel import FieldSettings
from inr.fields.precision import exact_products, quick_products
from inr.fields.siren import Siren
from inr.fitting.descent import repeated
from inr.fitting.fit import FitSettings, fit
from inr.fitting.prior import PlugAndPlay, SplittingSettings
from inr.fitting.tissues import support
from inr.rendering import fitted_field, render
from inr.scans.alignment import AlignmentSettings, Pose, posed
from inr.scans.single import OneScan, with_bias
from inr.scans.stacks import Stack, Stacks, aligned, tikhonov_of
from inr.trust.gradients import gradient_sd
from inr.voxels import cubic, tikhonov
from mrcore.data.acquisition import gaussian_psf
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.forward import imaging_operator, predict
from mrcore.noise import add_noise
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded

SD = 0.025
SPACING, COARSE = (7.0, 7.0, 12.0), (12.0, 12.0, 19.0)
QUICK = FitSettings(field=FieldSettings(spacings_mm=(24.0, 12.0)), n_steps=8, tv_weight=0.08, tissue_tv_weight=0.01)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
PLACES = [ELSEWHERE, pytest.param(torch.device("cuda"), marks=needs_cuda)]


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(26, 182.0), seed=2)


@pytest.fixture(scope="module")
def one(head):
    scan_grid = grid((26, 26, 15), SPACING)
    operator = imaging_operator(head.grid, scan_grid, gaussian_psf(SPACING))
    return OneScan(add_noise(predict(operator, head.image.data), SD, seeded(1, "scan")), operator, SD)


@pytest.fixture(scope="module")
def small_head():
    return digital_head(head_grid(16, 192.0), seed=2)


@pytest.fixture(scope="module")
def three(small_head):
    """A stack along the lattice, an oblique one whose header is wrong by 3 mm, and one of another contrast."""
    psf, along = gaussian_psf(COARSE), grid((16, 16, 10), COARSE)
    oblique = grid((16, 16, 10), COARSE, order=(1, 2, 0), degrees=(3, -2, 4))
    stacks = []
    for number, (header, contrast) in enumerate(((along, 0), (oblique, 0), (along, 1))):
        where = posed(header, Pose(shift_mm=(3.0, 0.0, 0.0))) if number == 1 else header
        clean = predict(imaging_operator(small_head.grid, where, psf), small_head.image.data)
        stacks.append(Stack(Volume(add_noise(clean, SD, seeded(number, "stack")), header), SD, psf, contrast))
    return Stacks(tuple(stacks), small_head.grid, AlignmentSettings((12.0,), n_steps=2))


@pytest.fixture(autouse=True)
def without_tf32(monkeypatch):
    """Results of a network whose products are rounded to tf32 may differ by more than is asked here."""
    monkeypatch.setattr("inr.fields.base.quick_products", exact_products)


def there(place):
    """Return the context in which `place` works."""
    return Elsewhere() if place == ELSEWHERE else nullcontext()


def run(head, data, place, settings=QUICK, prior=None):
    """Fit on `place`, from a start that is made there; the result is on the CPU."""

    def resegment(image):
        assert image.device.type == place.type
        return head.tissues.prob.flip(0).to(place)

    data, foreground = data.to(place), head.mask.to(place)
    if isinstance(data, Stacks):
        start = tikhonov_of(data, max_iter=4).x.clamp_min(0)
    else:
        begin = torch.zeros(head.grid.shape, device=place)
        start = tikhonov(data.operator, data.scan, SD, begin, head.grid.spacing_mm).x.clamp_min(0)[None]
    done = fit(data, head.grid, start, foreground, head.tissues.to(place), 0, settings, resegment, prior)
    assert done.images.device.type == place.type
    return done.to("cpu")


def same(head, data, place, settings=QUICK, prior=None):
    """Require that a fit on `place` is that of the CPU."""
    with there(place):
        found = run(head, data, place, settings, prior)
    expected = run(head, data, torch.device("cpu"), settings, prior)
    assert (expected.images - run_start(expected)).abs().max() > 0.01, "the fit does something"
    torch.testing.assert_close(found.images, expected.images, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.prob, expected.prob, atol=1e-3, rtol=0)
    assert found.solution.history == pytest.approx(expected.solution.history, rel=1e-3)
    assert "CUDA graph" not in found.solution.message, "no note of a capture that failed"
    return found, expected


def run_start(done):
    """Return the images that a fit began from."""
    out = torch.zeros_like(done.images)
    out[:, done.foreground] = done.first[: len(out)]
    return out


DESIGNS = {
    "default": QUICK,
    "hash grid": dataclasses.replace(QUICK, field=HashGrid(40.0, n_levels=3), learning_rate=0.01),
    "SIREN in batches": dataclasses.replace(QUICK, field=Siren(0.02, 24, 3), learning_rate=5e-3, batch=0.3),
}


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("name", DESIGNS)
def test_a_fit_of_one_scan(head, one, place, name):
    found, expected = same(head, one, place, DESIGNS[name])
    # What came back is whole: it renders on the CPU, on the lattice and off it.
    fitted = [fitted_field(done, DESIGNS[name], head.tissues.names) for done in (found, expected)]
    finer = grid((20, 20, 20), (4.0, 4.0, 4.0), degrees=(5, 0, 0))
    for where in (head.grid, finer):
        image, _ = (render(each, where)[0].data for each in fitted)
        assert image.max() > 0.5


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_fitted_field_renders_where_it_is(head, one, place):
    done = run(head, one, torch.device("cpu"), dataclasses.replace(QUICK, n_steps=2))
    finer = grid((20, 20, 20), (4.0, 4.0, 4.0), degrees=(5, 0, 0))
    expected = render(fitted_field(done, QUICK, head.tissues.names), finer)
    with there(place):
        moved = done.to(place)
        found = render(fitted_field(moved, QUICK, head.tissues.names), finer)
        assert found[0].data.device.type == place.type
        found = tuple(each.to("cpu") for each in found)
    torch.testing.assert_close(found[0].data, expected[0].data, atol=1e-4, rtol=0)
    torch.testing.assert_close(found[1].prob, expected[1].prob, atol=1e-4, rtol=0)


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_fit_of_several_scans(small_head, three, place):
    settings = dataclasses.replace(QUICK, field=FieldSettings(spacings_mm=(40.0,)), n_steps=2, learning_rate=0.1)
    found, expected = same(small_head, three, place, settings)
    ours, theirs = (done.data.stacks[1] for done in (found, expected))
    assert theirs.pose.distance_mm > 1, "the pose was found again"
    assert ours.pose.turn_deg == pytest.approx(theirs.pose.turn_deg, abs=0.01)
    assert ours.pose.shift_mm == pytest.approx(theirs.pose.shift_mm, abs=0.01)
    assert ours.scale == pytest.approx(theirs.scale, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES, ids=str)
def test_scans_are_aligned(three, place):
    with there(place):
        found = aligned(three.to(place), 12.0, 1).to("cpu")
    expected = aligned(three, 12.0, 1)
    assert expected.stacks[1].pose.distance_mm > 1
    assert found.stacks[1].pose.shift_mm == pytest.approx(expected.stacks[1].pose.shift_mm, abs=1e-3)
    assert found.n_values == expected.n_values


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_fit_with_a_prior(head, one, place):
    def denoise(image, sigma):
        return image - 0.5 * sigma * torch.tanh(5 * (image - image.mean()))

    prior = PlugAndPlay(denoise, SplittingSettings(n_rounds=3, n_cg=3))
    same(head, one, place, dataclasses.replace(QUICK, tissue_weight=2.0), prior)


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_receive_field(head, one, place):
    ramp = torch.linspace(0.8, 1.2, head.grid.shape[0])[:, None, None]
    shaded = (head.image.data * ramp)[None].contiguous()
    expected, _ = with_bias(one, shaded, head.tissues.prob, (3.0,) * 3)
    with there(place):
        data, start = with_bias(one.to(place), shaded.to(place), head.tissues.prob.to(place), (3.0,) * 3)
        again = data.to(place).refreshed(start * data.bias.field())
        misfit = float(again.misfit(start))
        found = data.to("cpu").bias.field()
    torch.testing.assert_close(found, expected.bias.field(), atol=1e-4, rtol=0)
    assert misfit > 0


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_what_surrounds_a_fit(head, one, place):
    spacing, volume = head.grid.spacing_mm, Volume(one.scan, grid((26, 26, 15), SPACING))
    seen = one.scan > 0.3

    def measured(place):
        data = one.to(place)
        arguments = (head.image.data.to(place), head.mask.to(place), spacing, data.operator, data.scan)
        sd = gradient_sd(*arguments, seen.to(place), SPACING, SD)
        brain = support(head.image.data.to(place), head.tissues.to(place))
        fine = cubic(volume.to(place), head.grid).data
        assert {x.device.type for x in (sd, brain, fine)} == {place.type}
        return sd.cpu(), brain.cpu(), fine.cpu()

    with there(place):
        found = measured(place)
    for ours, theirs in zip(found, measured(torch.device("cpu")), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_parts_of_a_fit_on_two_devices_are_refused(head, one):
    start = torch.zeros(1, *head.grid.shape)
    with Elsewhere():
        foreground = head.mask.to(ELSEWHERE)
        with pytest.raises(BadInputError, match="one device: the start is on cpu, the foreground on meta"):
            fit(one, head.grid, start, foreground, head.tissues, 0, QUICK)


def test_the_other_device_refuses_what_a_gpu_refuses():
    with Elsewhere():
        x = torch.arange(3.0).to(ELSEWHERE)
        assert (2 * x).sum().item() == 6
        for wrong in (lambda: x + torch.zeros(3), lambda: x.new_zeros(3).index_copy(0, torch.arange(3), x), x.numpy):
            with pytest.raises((RuntimeError, TypeError)):
                wrong()


def test_precision_of_products_is_left_as_it_was_found():
    before = torch.get_float32_matmul_precision()
    with quick_products(ELSEWHERE):
        assert torch.get_float32_matmul_precision() == "high"
        with exact_products(ELSEWHERE):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    with quick_products(torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == before
    torch.use_deterministic_algorithms(True)
    try:
        with quick_products(ELSEWHERE):
            assert torch.get_float32_matmul_precision() == before
    finally:
        torch.use_deterministic_algorithms(False)


def test_on_a_cpu_work_is_repeated_as_it_is():
    work = repeated(lambda: torch.ones(2), torch.device("cpu"))
    assert work.run() is not work.run()
    assert not work.note


@needs_cuda
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_graph_does_what_its_work_does(deterministic, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it torch refuses products that repeat
    place = torch.device("cuda")
    weight, x = torch.rand(8, 8, device=place, requires_grad=True), torch.rand(8, 16, device=place)

    def work():
        weight.grad = None
        loss = torch.special.i0e(weight @ x).square().sum()
        loss.backward()
        return loss.detach()

    torch.use_deterministic_algorithms(deterministic)
    try:
        graph = repeated(work, place)
        assert not graph.note
        with torch.no_grad():
            weight += 0.5
            x *= 2
        found = graph.run().clone(), weight.grad.clone()
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(found, (work(), weight.grad))


@needs_cuda
def test_what_cannot_be_captured_is_run_as_it_is():
    place = torch.device("cuda")
    x = torch.ones(3, device=place)
    work = repeated(lambda: x * float(x.sum()), place)  # a number that is read stops a capture
    assert "no CUDA graph" in work.note
    x += 1
    assert work.run().tolist() == [12.0, 12.0, 12.0]
    assert (x * 2).sum().item() == 12


@needs_cuda
def test_the_same_seed_gives_the_same_bytes_on_a_gpu(head, one):
    first, second = (run(head, one, torch.device("cuda")) for _ in range(2))
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.prob, second.prob)
