from dataclasses import replace

import numpy as np
import pytest
import torch

from iqt import Restorer, UNetSettings
from iqt.files import RestorerCard, TrainedRestorer, save_restorer
from mrcore.data.acquisition import gaussian_psf
from mrcore.data.grid import Grid
from mrcore.data.volume import Volume
from mrcore.errors import BadInputError
from mrcore.forward import imaging_operator
from mrcore.io.volumes import load_volume, save_volume
from mrcore.noise import add_noise
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded
from mrkit.cli import main
from mrkit.enhancement.enhance import enhance, out_of_range

CARD = RestorerCard((), (), ((1.2, 2.5), (2.5, 6.5)), (8.0, 80.0), 1, 0)
SD = 0.04


def _restorer(gain=0.0):
    torch.manual_seed(0)
    net = Restorer(UNetSettings(widths=(8, 8, 8), n_blocks=(1, 1, 1), n_transformers=1, n_heads=2))
    with torch.no_grad():
        net.net.head.weight.mul_(gain)
    return TrainedRestorer(net.eval(), CARD)


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(96, 192.0))


@pytest.fixture(scope="module")
def scan(head):
    """A stripped brain in a left-handed frame, slices of 5 mm along the first axis: sagittal."""
    affine = np.array([[5.0, 0, 0, -70], [0, 0, 2.0, -84], [0, 2.0, 0, -70], [0, 0, 0, 1.0]])
    grid = Grid((28, 70, 86), affine)
    operator = imaging_operator(head.grid, grid, gaussian_psf(grid.spacing_mm))
    data = add_noise(100 * operator(head.image.data * head.mask), 100 * SD, seeded(0, "noise"))
    mask = operator(head.mask.float()) > 0.5
    return Volume(data, grid), mask


def test_the_result_lies_where_the_scan_does_whatever_its_axes(head, scan):
    volume, mask = scan
    done = enhance(volume, _restorer(), mask=mask, voxel_mm=1.5, noise_sd=100 * SD, n_mirrored=1, trust_sd=float("inf"))
    assert done.image.grid.orientation == volume.grid.orientation
    assert done.image.grid.spacing_mm == pytest.approx((1.5, 1.5, 1.5))
    assert done.residual_z.grid.matches(volume.grid)
    assert not done.audit.drift.alarm
    # Imaged again it gives the scan: units, axes and place are right.
    again = imaging_operator(done.image.grid, volume.grid, gaussian_psf(volume.grid.spacing_mm))(done.image.data)
    inner = mask.clone()
    inner[[0, -1]] = False
    assert float((again - volume.data)[inner].std()) < 1.5 * 100 * SD
    assert done.sd is None


def test_a_wild_network_is_held_by_the_tether_and_found_by_the_audit(scan):
    volume, mask = scan
    wild = _restorer(300.0)
    free, held = (
        enhance(volume, wild, mask=mask, voxel_mm=2.0, noise_sd=100 * SD, n_mirrored=2, trust_sd=trust)
        for trust in (float("inf"), 0.5)
    )
    assert free.audit.residual.alarm
    assert any("not supported by the scan" in note for note in free.notes)
    assert held.audit.residual.rms < 0.5 * free.audit.residual.rms
    assert free.sd is not None
    assert float(free.sd.data.max()) > 0


def test_scans_unlike_those_of_the_training_are_refused_unless_forced(scan):
    volume, mask = scan
    narrow = replace(_restorer(), card=replace(CARD, wm_snr=(60.0, 80.0)))
    with pytest.raises(BadInputError, match=r"its SNR is .* trained on 60 to 80; use --force"):
        enhance(volume, narrow, mask=mask, voxel_mm=2.0, noise_sd=100 * SD, n_mirrored=1)
    forced = enhance(volume, narrow, mask=mask, voxel_mm=2.0, noise_sd=100 * SD, n_mirrored=1, force=True)
    assert "not trained on such a scan" in forced.notes[0]


def test_ranges_hold_for_each_voxel_axis():
    assert out_of_range(CARD, (1.6, 1.6, 5.0), 30.0) == ()
    assert "in plane are 4 mm" in out_of_range(CARD, (4.0, 4.0, 5.0), 30.0)[0]
    assert "slices are 1 mm" in out_of_range(CARD, (1.6, 1.6, 1.0), 30.0)[0]


def test_files_as_a_user_starts_it(scan, tmp_path, capsys):
    volume, mask = scan
    save_volume(volume, tmp_path / "scan.nii.gz")
    save_volume(Volume(mask.float(), volume.grid), tmp_path / "mask.nii.gz")
    net = save_restorer(_restorer(1.0), tmp_path / "net.safetensors")
    call = ["enhance", tmp_path / "scan.nii.gz", tmp_path / "out", "--network", net, "--mask", tmp_path / "mask.nii.gz"]
    call = [*map(str, call), "--voxel", "2", "--passes", "2"]
    assert main(call) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    images = {"scan_enhanced", "scan_enhanced_start", "scan_enhanced_sd", "scan_enhanced_residualz"}
    assert {f"{name}.nii.gz" for name in images} | {"scan_enhanced_report.html"} <= names
    found = load_volume(tmp_path / "out" / "scan_enhanced.nii.gz")
    assert found.meta["Synthetic"] is True
    assert "SourcesSHA256" in found.meta
    assert "synthetic" in (tmp_path / "out" / "scan_enhanced_report.html").read_text()
    capsys.readouterr()
    assert main(call) == 2
    assert "exists already" in capsys.readouterr().err
