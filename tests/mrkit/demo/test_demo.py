"""The demo: where the template lies in the scanner, and the whole of it (slow)."""

import json

import numpy as np
import pytest

from mrcore.io.volumes import load_volume
from mrkit.anatomy.template import load_template
from mrkit.cli import main
from mrkit.demo.demo import FIELD_OF_VIEW_MM, template_in_scanner

pytest.importorskip("nilearn", reason="the template comes with nilearn")


def test_template_is_moved_by_whole_voxels_and_nothing_is_cut_off():
    template, placed = load_template(), template_in_scanner(1.0)
    assert placed.grid.shape == FIELD_OF_VIEW_MM
    assert placed.grid.spacing_mm == (1.0, 1.0, 1.0)
    assert float((template.t1.data * template.mask).sum()) <= float(placed.data.sum())
    inside = placed.data.numpy() > 0.5 * placed.data.numpy().max()
    original = template.t1.data.numpy() > 0.5 * template.t1.data.numpy().max()
    assert inside.sum() == original.sum()
    centres = [
        grid.affine[:3, :3] @ np.argwhere(where).mean(0) + grid.affine[:3, 3]
        for grid, where in ((placed.grid, inside), (template.t1.grid, original))
    ]
    assert np.abs(centres[0] - centres[1]).max() < 1e-9
    # Only the spinal cord may touch a face: everywhere else there is room for the blur.
    assert not inside[[0, -1]].any()
    assert not inside[:, [0, -1]].any()
    assert not inside[:, :, -1].any()


def test_scan_and_result_fill_the_field_of_view_with_whole_voxels():
    for size, voxel in zip(FIELD_OF_VIEW_MM, (1.6, 1.6, 5.0), strict=True):
        assert size / voxel == pytest.approx(round(size / voxel))
        assert size % 2 == 0


@pytest.mark.slow
def test_demo_beats_cubic_and_writes_one_page(tmp_path):
    assert main(["demo", "--out", str(tmp_path / "demo"), "--quick"]) == 0
    out = tmp_path / "demo"
    metrics = json.loads((out / "metrics.json").read_text())
    ours, cubic = metrics["images"]["INR"]["inside"], metrics["images"]["cubic"]["inside"]
    assert ours["psnr_db"] > cubic["psnr_db"]
    assert ours["edge_f1_1"] > cubic["edge_f1_1"]
    assert ours["gradient_error"] < cubic["gradient_error"]
    assert load_volume(out / "demo_sr.nii.gz").grid.matches(load_volume(out / "demo_truth.nii.gz").grid)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert main(["demo", "--out", str(out), "--quick"]) == 2
