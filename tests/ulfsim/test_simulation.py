import dataclasses
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch

from mrcore.data.acquisition import DELTA_PSF, Acquisition, AxisPsf, PulseSequence, from_json, gaussian_psf
from mrcore.data.grid import Grid, cropped, to_voxel, to_world, with_spacing
from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.forward import predict
from mrcore.io.volumes import load_volume
from mrcore.phantom import digital_head, head_grid
from mrcore.segmentation.brainmask import stripped_mask
from mrcore.segmentation.tissues import segment
from ulfsim.measurement.contrast import measure, pairs
from ulfsim.plan import plan_scan, scan_axes, slice_axis_of, tissues_through, with_margin
from ulfsim.protocols.presets import PRESETS, Preset
from ulfsim.simulation import border_dip, calibrated_simulation, simulate
from ulfsim.source.source import source_of, truth_of

VOXEL = (4.5, 4.0, 8.5)
ACQUISITION = Acquisition(0.064, VOXEL, PulseSequence("T1w"), noise_sd=0.02, psf=gaussian_psf(VOXEL))
CLEAN = dataclasses.replace(ACQUISITION, noise_sd=0.0)
GAINS = {"CSF": 0.9, "GM": 0.8, "WM": 0.7}
ONES = dict.fromkeys(TISSUES, 1.0)


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(48), seed=4)


@pytest.fixture(scope="module")
def source(head):
    return source_of(head.image, head.tissues)


def _turned(volume, order, flips):
    """The same object with its voxel axes in another order and direction."""
    affine = volume.grid.affine[:, [*order, 3]].copy()
    data = volume.data.permute(order)
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (data.shape[axis] - 1)
        affine[:3, axis] *= -1
        data = data.flip(axis)
    return Volume(data.contiguous(), Grid(tuple(data.shape), affine))


def _turned_tissues(tissues, order, flips):
    maps = [_turned(Volume(p, tissues.grid), order, flips) for p in tissues.prob]
    return TissueMap(torch.stack([m.data for m in maps]), tissues.names, maps[0].grid)


def _centroid_mm(volume):
    where = np.stack(np.meshgrid(*[np.arange(n) for n in volume.grid.shape], indexing="ij"), -1)
    weight = volume.data.double().numpy()[..., None]
    return to_world(volume.grid, (where * weight).sum((0, 1, 2)) / weight.sum())


def _blob(grid, at_mm, width_mm=9.0):
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1)
    squared = ((to_world(grid, index) - at_mm) ** 2).sum(-1)
    return Volume(torch.from_numpy(np.exp(-squared / (2 * width_mm**2))), grid)


def test_unit_gains_delta_psf_and_no_noise_are_the_identity(source, head):
    acquisition = Acquisition(0.064, head.grid.spacing_mm, PulseSequence("T1w"), psf=DELTA_PSF)
    done = simulate(source, acquisition, ONES, seed=0)
    assert torch.allclose(done.truth.data, head.image.data, atol=1e-6)
    assert done.scan.grid.matches(head.grid)
    assert torch.allclose(done.scan.data, head.image.data, atol=1e-6)
    assert done.notes == ()


def test_without_noise_the_scan_is_the_prediction_bit_for_bit(source):
    done = simulate(source, CLEAN, GAINS, seed=0)
    assert torch.equal(done.scan.data, predict(done.operator, done.truth.data))
    assert torch.equal(done.scan.data, simulate(source, CLEAN, GAINS, seed=1).scan.data)


def test_noise_has_its_sd_and_follows_the_seed(source, head):
    clean = simulate(source, CLEAN, GAINS, seed=0)
    noisy = simulate(source, ACQUISITION, GAINS, seed=0)
    bright = clean.scan.data > 0.4
    assert float((noisy.scan.data - clean.scan.data)[bright].std()) == pytest.approx(0.02, rel=0.05)
    # Far from the head: Rayleigh, in the whole field of view.
    corner = noisy.scan.data[:6, :6]
    assert float(corner.mean()) == pytest.approx(1.2533 * 0.02, rel=0.05)
    again, other = (simulate(source, ACQUISITION, GAINS, seed=s).scan.data for s in (0, 1))
    assert torch.equal(noisy.scan.data, again)
    assert not torch.equal(noisy.scan.data, other)


def test_same_seed_in_another_process_same_bytes(source):
    code = (
        "import dataclasses, hashlib\n"
        "from mrcore.phantom import digital_head, head_grid\n"
        "from ulfsim.protocols.presets import PRESETS\n"
        "from ulfsim.simulation import simulate\n"
        "from ulfsim.source.source import source_of\n"
        "head = digital_head(head_grid(32), seed=4)\n"
        "acquisition = dataclasses.replace(PRESETS['hyperfine-t1w'].acquisition, noise_sd=0.02, voxel_mm=(9, 9, 12))\n"
        "source = source_of(head.image, head.tissues)\n"
        "scan = simulate(source, acquisition, dict(CSF=0.9, GM=0.8, WM=0.7), seed=3).scan\n"
        "digest = hashlib.sha256(scan.data.numpy().tobytes()).hexdigest()\n"
    )
    there = subprocess.run([sys.executable, "-c", code + "print(digest)"], capture_output=True, text=True, check=True)
    here: dict[str, object] = {}
    exec(code, here)
    assert here["digest"] == there.stdout.strip()


def test_gains_act_on_their_tissue(source, head):
    truth = truth_of(source, GAINS, GAINS["WM"])
    for name in TISSUES:
        pure = head.tissues.of(name) > 0.9999
        assert torch.allclose(truth.data[pure], GAINS[name] * head.image.data[pure], rtol=0.01)


def test_partial_volumes_change_as_a_scanner_would(source, head):
    """A voxel of half GM and half WM gets the mean of their new signals, whatever the gains."""
    truth = truth_of(source, {"CSF": 1.0, "GM": 1.0, "WM": 0.5}, 0.5)
    fluid, grey, white = (float(head.image.data[p > 0.9999].mean()) for p in head.tissues.prob)
    expected = torch.einsum("t,txyz->xyz", torch.tensor([fluid, grey, 0.5 * white]), head.tissues.prob)
    assert torch.allclose(truth.data, expected, atol=0.02)


def test_scalp_keeps_its_proportion_to_white_matter_or_gets_its_own_gain():
    head = digital_head(head_grid(40, 220.0), seed=4, skull=True)
    scalp = ~head.mask
    source = source_of(head.image, head.tissues)
    default = simulate(source, CLEAN, GAINS, seed=0).truth
    assert torch.allclose(default.data[scalp], GAINS["WM"] * head.image.data[scalp])
    removed = simulate(source, CLEAN, GAINS, seed=0, background_gain=0.0)
    assert float(removed.truth.data[scalp].abs().max()) == 0
    assert removed.background_gain == 0


def test_calibrated_simulation_reaches_the_preset(source, head):
    preset = Preset("test", CLEAN, {"CSF": 14.0, "GM": 40.1, "WM": 50.8}, "test")
    calibration, done = calibrated_simulation(source, preset, seed=0)
    assert done.acquisition.noise_sd == calibration.noise_sd > 0
    found = measure(done.scan, tissues_through(plan_scan(head.grid, CLEAN), head.tissues))
    assert found.snr == pytest.approx((14.0, 40.1, 50.8), rel=0.05)


def test_the_noise_of_a_noisy_source_sets_the_scale(source, head):
    preset = Preset("test", CLEAN, {"CSF": 14.0, "GM": 40.1, "WM": 50.8}, "test")
    generator = torch.Generator().manual_seed(0)
    shape = (2, *head.grid.shape)
    quiet, loud = (
        Volume(torch.linalg.vector_norm(torch.stack([head.image.data, torch.zeros(shape[1:])])
                                        + sd * torch.randn(shape, generator=generator), dim=0), head.grid)
        for sd in (0.003, 0.1)
    )  # fmt: skip
    calibration, _ = calibrated_simulation(source_of(quiet, head.tissues), preset, seed=0)
    assert calibration.noise_sd == pytest.approx(0.003, rel=0.02)
    assert calibration.gains["WM"] == pytest.approx(50.8 * 0.003, rel=0.05)
    # A source with more noise than the target: its scale is of no use, its intensities are.
    calibration, _ = calibrated_simulation(source_of(loud, head.tissues), preset, seed=0)
    assert max(calibration.gains.values()) == pytest.approx(1.0)
    assert calibrated_simulation(source, preset, 0, noise_sd=0.007)[0].noise_sd == 0.007


@pytest.mark.parametrize(
    ("order", "flips"), [((0, 1, 2), (0, 1)), ((0, 2, 1), (0, 1)), ((2, 0, 1), (2,)), ((1, 2, 0), ())]
)
def test_the_scan_does_not_depend_on_the_orientation_of_the_source(source, head, order, flips):
    """LPS, LIA and others: same scan up to flips, slices along S and last, each voxel where it belongs."""
    straight = simulate(source, CLEAN, GAINS, seed=0)
    image, tissues = _turned(head.image, order, flips), _turned_tissues(head.tissues, order, flips)
    turned = simulate(source_of(image, tissues), CLEAN, GAINS, seed=0)
    assert turned.scan.grid.spacing_mm == pytest.approx(VOXEL)
    assert turned.truth.grid.matches(image.grid)
    assert turned.scan.grid.orientation[0] in "LR"
    assert turned.scan.grid.orientation[2] in "IS"
    assert np.abs(_centroid_mm(turned.scan) - _centroid_mm(straight.scan)).max() < 0.4  # voxels of 4 to 8.5 mm
    # The same world position holds the same value (even sizes shift the flipped lattice: compare smooth content).
    total = float(turned.scan.data.sum() / straight.scan.data.sum())
    assert total == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("slice_axis", ["R", "A", "S"])
def test_the_long_voxel_lies_along_the_slice_axis(head, slice_axis):
    plan = plan_scan(head.grid, dataclasses.replace(CLEAN, slice_axis=slice_axis))
    assert plan.scan_grid.spacing_mm == pytest.approx(VOXEL)
    assert plan.scan_grid.orientation == {"R": "ASR", "A": "RSA", "S": "RAS"}[slice_axis]
    assert slice_axis_of(plan.scan_grid) == slice_axis


@pytest.mark.parametrize("n", [40, 41])
@pytest.mark.parametrize("voxel_mm", [(2.0, 2.0, 4.0), (2.3, 1.9, 5.1)])
@pytest.mark.parametrize("tilt_deg", [0.0, 25.0])
def test_world_position_is_kept(n, voxel_mm, tilt_deg):
    """Even, odd and non-integer grids, flipped and oblique: the centroid of a blob stays where it is, in mm."""
    angle = np.deg2rad(tilt_deg)
    rotation = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag([-2.0, 2.1, 2.2])
    affine[:3, 3] = (11.0, -7.0, 23.0)
    grid = Grid((n, n, n + 1), affine)
    at = to_world(grid, np.array([18.3, 20.9, 21.4]))
    blob = _blob(grid, at)
    tissues = TissueMap(torch.ones((1, *grid.shape), dtype=torch.float64), ("WM",), grid)
    acquisition = Acquisition(0.064, voxel_mm, PulseSequence("T1w"), psf=gaussian_psf(voxel_mm))
    done = simulate(source_of(blob, tissues), acquisition, {"WM": 1.0}, seed=0)
    assert np.abs(_centroid_mm(done.scan) - at).max() < 0.02
    peak = np.unravel_index(int(done.scan.data.argmax()), done.scan.grid.shape)
    assert np.abs(to_voxel(done.scan.grid, at) - np.array(peak)).max() <= 0.75


def test_every_parameter_of_the_acquisition_changes_the_scan(source):
    base = simulate(source, ACQUISITION, GAINS, seed=0)
    voxel = simulate(source, dataclasses.replace(ACQUISITION, voxel_mm=(4.5, 4.0, 7.3)), GAINS, seed=0)
    assert voxel.scan.grid.shape != base.scan.grid.shape
    for changed in (
        {"psf": (*ACQUISITION.psf[:2], AxisPsf(gaussian_fwhm_mm=12.0))},
        {"noise_sd": 0.025},
    ):
        other = simulate(source, dataclasses.replace(ACQUISITION, **changed), GAINS, seed=0)
        assert float((other.scan.data - base.scan.data).abs().max()) > 1e-3
    for name in TISSUES:
        other = simulate(source, ACQUISITION, {**GAINS, name: 0.5}, seed=0)
        assert float((other.scan.data - base.scan.data).abs().max()) > 1e-2


def test_the_sidecar_tells_what_was_done(head):
    image = Volume(head.image.data, head.grid, {"SourceFile": "hf.nii.gz", "SourceSHA256": "ab", "RepetitionTime": 9.0})
    done = simulate(source_of(image, head.tissues), ACQUISITION, GAINS, seed=17)
    assert from_json(done.scan.meta) == ACQUISITION
    block = done.scan.meta["Simulation"]
    assert block["Seed"] == 17
    assert block["Gains"] == GAINS
    assert block["SourceSHA256"] == "ab"
    assert "RepetitionTime" not in done.scan.meta  # that of the source is not the scan's


def test_a_field_of_view_too_tight_is_noted_and_can_be_padded(head):
    tight = cropped(head.grid, (0, 0, 14), (48, 48, 20))
    image = Volume(head.image.data[:, :, 14:34].clone(), tight)
    tissues = TissueMap(head.tissues.prob[:, :, :, 14:34].clone(), TISSUES, tight)
    done = simulate(source_of(image, tissues), CLEAN, GAINS, seed=0)
    assert any("wraps" in note for note in done.notes)
    padded, wide = with_margin(image, tissues, 12.0)
    assert padded.grid.shape == (54, 54, 26)
    assert to_world(padded.grid, np.array([3, 3, 3])) == pytest.approx(to_world(tight, np.zeros(3)))
    assert torch.equal(wide.prob[:, 3:-3, 3:-3, 3:-3], tissues.prob)
    assert not any("wraps" in note for note in simulate(source_of(padded, wide), CLEAN, GAINS, seed=0).notes)


def test_a_coarse_source_and_negative_values_are_noted(source, head):
    fine = dataclasses.replace(CLEAN, voxel_mm=(2.0, 2.0, 8.0), psf=DELTA_PSF)
    assert any("larger than the scan's" in n for n in simulate(source, fine, GAINS, 0).notes)
    ringing = head.image.data.clone()
    ringing[0, 0, :5] = -0.2
    done = simulate(source_of(Volume(ringing, head.grid), head.tissues), CLEAN, GAINS, 0)
    assert any(note.startswith("5 negative") for note in done.notes)
    assert float(done.truth.data.min()) == 0


def test_false_rims_are_measured(source, head):
    straight = truth_of(source, {"CSF": 0.9, "GM": 1.0, "WM": 0.95}, 0.95)
    assert border_dip(source, straight) < 0.01
    # Hard labels times unequal gains, as they would act without regard to mixtures, jump down where the image rises.
    gains = torch.tensor([1.0, 1.0, 0.85])
    hard = torch.zeros_like(head.tissues.prob).scatter(0, head.tissues.prob.argmax(0, keepdim=True), 1.0) * head.mask
    bent = head.image.data * torch.einsum("t,txyz->xyz", gains, hard)
    labels = TissueMap(hard, TISSUES, head.grid)
    assert border_dip(source_of(head.image, labels), Volume(bent, head.grid)) > 0.05
    mended = truth_of(source_of(head.image, labels), dict(zip(TISSUES, gains.tolist(), strict=True)), float(gains[-1]))
    assert border_dip(source_of(head.image, labels), mended) < 0.01
    assert border_dip(source, Volume(torch.zeros(head.grid.shape), head.grid)) == 0


def test_another_order_of_brightness_is_no_false_rim(source, head):
    done = simulate(source, CLEAN, {"CSF": 0.3, "GM": 1.0, "WM": 0.4}, seed=0)
    assert border_dip(source, done.truth) > 0.1
    assert done.notes == ()


def test_axes_of_an_oblique_volume_are_all_used_once():
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(np.array([[1.0, 0.6, 0.1], [-0.6, 1.0, 0.5], [0.2, -0.5, 1.0]]))[0]
    for slice_axis in "RAS":
        assert sorted(scan_axes(Grid((4, 5, 6), affine), slice_axis)) == [0, 1, 2]


def test_bad_requests_are_refused(source, head):
    other = with_spacing(head.grid, (8.0, 8.0, 8.0))
    coarse = TissueMap(torch.zeros((3, *other.shape)), TISSUES, other)
    with pytest.raises(GridMismatchError, match="same grid"):
        source_of(head.image, coarse)
    with pytest.raises(BadInputError, match="gains must name"):
        simulate(source, CLEAN, {"WM": 1.0}, seed=0)
    with pytest.raises(BadInputError, match="negative"):
        simulate(source, CLEAN, {**GAINS, "GM": -0.1}, seed=0)
    with pytest.raises(BadInputError, match="magnitude"):
        source_of(Volume(head.image.data.to(torch.complex64), head.grid), head.tissues)
    huge = dataclasses.replace(CLEAN, voxel_mm=(4.0, 4.0, 50.0))
    thin = cropped(head.grid, (0, 0, 20), (48, 48, 4))
    with pytest.raises(BadInputError, match="field of view"):
        plan_scan(thin, huge)


def test_closed_loop_on_a_crop_of_a_real_brain(shared_data):
    """The ICBM-152 template, central slab, T1w preset."""
    folder = shared_data / "template"
    image, grey, white = (nib.load(folder / f"mni152_sym09a_{part}.nii.gz") for part in ("t1", "gm", "wm"))
    window = (slice(20, 180), slice(20, 215), slice(50, 120))
    data, gm, wm = (torch.from_numpy(np.asarray(i.dataobj[window], np.float32)) for i in (image, grey, white))
    gm, wm = gm / 255, wm / 255
    csf = torch.where(data > 0, (1 - gm - wm).clamp_min(0), 0.0)
    prob = torch.stack([csf, gm, wm])
    prob = prob / prob.sum(0).clamp_min(1)
    grid = cropped(Grid(image.shape, image.affine), (20, 20, 50), tuple(data.shape))
    tissues, volume = TissueMap(prob, TISSUES, grid), Volume(data, grid)
    preset = PRESETS["hyperfine-t1w"]
    calibration, done = calibrated_simulation(source_of(volume, tissues), preset, seed=1)
    found = measure(done.scan, tissues_through(plan_scan(grid, preset.acquisition), tissues), calibration.noise_sd)
    assert found.snr == pytest.approx([preset.snr[n] for n in TISSUES], rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "colin27_ch2_brain.nii.gz",
        "niimath_T1_brain_0p8mm.nii.gz",
        "openms_p26_T1_brain_mni1mm.nii.gz",
        "stroke_3T_T1_brain.nii.gz",
        "visualqc_id001_brainmask.mgz",
    ],
)
@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_closed_loop_on_whole_real_brains(shared_data, name, preset):
    """Median over 5 seeds of SNR and CNR, the noise measured from the scan itself."""
    volume = load_volume(shared_data / "t1" / name)
    tissues = segment(volume, stripped_mask(volume)).tissues
    plan = plan_scan(volume.grid, preset.acquisition)
    seen = tissues_through(plan, tissues)
    scans = [calibrated_simulation(source_of(volume, tissues), preset, seed)[1].scan for seed in range(5)]
    found = [measure(scan, seen) for scan in scans]
    assert np.median([f.snr for f in found], axis=0) == pytest.approx([preset.snr[n] for n in TISSUES], rel=0.05)
    for a, b in pairs(TISSUES):
        assert np.median([f.cnr(a, b) for f in found]) == pytest.approx(preset.snr[a] - preset.snr[b], rel=0.05)
