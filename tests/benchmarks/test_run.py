"""The benchmarks run, on a phantom, and write what `benchmarks/results.py` promises."""

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from common import brains
from common.store import Store, code_version

from mrcore.data.grid import Grid, cropped, to_voxel, to_world
from mrcore.forward import covering_grid
from ulfsim.plan import plan_scan
from ulfsim.protocols.presets import PRESETS

ROOT = Path(__file__).parents[2]


def run(*arguments, code=0):
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", str(ROOT / "benchmarks" / "run.py"), *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_help_names_the_benchmarks_and_imports_none():
    text = run("--help")
    assert "superresolution" in text
    assert "segmentation" in text
    listing = f"import sys; sys.path.insert(0, {str(ROOT / 'benchmarks')!r}); import run; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_benchmark_has_its_own_help():
    assert "--atropos-python" in run("segmentation", "--help")


def test_unknown_name_is_refused():
    assert "there are simulation, superresolution, fingerprinting, segmentation" in run("speed", code=2)


def test_missing_brains_are_reported(tmp_path):
    text = run("superresolution", "--brains", "stroke", "--data", str(tmp_path), "--out", str(tmp_path), code=2)
    assert "--data" in text
    assert "Traceback" not in text
    assert not (tmp_path / "superresolution.json").exists()


def test_store_keeps_rows_by_key_and_version(tmp_path):
    store = Store(tmp_path / "work", "a")
    key, rows = {"brain": "b", "seed": 1}, [{"table": "t", "x": 1.5, "ok": True, "none": None}]
    assert store.load(key) is None
    store.save(key, rows)
    assert store.load(dict(reversed(key.items()))) == rows
    assert store.load({**key, "seed": 2}) is None
    assert Store(store.folder, "b").load(key) is None
    fresh = Store(store.folder, "a", fresh=True)
    assert fresh.load(key) is None
    fresh.save(key, [])
    assert store.load(key) == []


def test_version_follows_the_code(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "a.py").write_text("x = 1\n")
    (tmp_path / "b.py").write_text("")
    sources = ("package", "b.py")
    before = code_version(sources, tmp_path)
    assert code_version(sources, tmp_path) == before
    (tmp_path / "package" / "a.py").write_text("x = 2\n")
    assert code_version(sources, tmp_path) != before


@pytest.mark.parametrize("codes", ["RAS", "LIA"])
def test_window_has_its_margin_and_a_truth_without_interpolation(codes):
    orientation = nib.orientations.axcodes2ornt(codes)
    affine = nib.orientations.inv_ornt_aff(orientation, (70, 80, 64))
    mask = torch.zeros(70, 80, 64, dtype=torch.bool)
    mask[2:64, 9:71, 5:60] = True
    grid = Grid((70, 80, 64), affine)
    acquisition = PRESETS["hyperfine-t1w"].acquisition
    start, shape = brains._window(grid, mask, acquisition, 1.0)
    for axis in range(3):
        at = mask.nonzero()[:, axis]
        before, after = int(at.min()) - start[axis], start[axis] + shape[axis] - 1 - int(at.max())
        assert 6 <= before <= 10
        assert 6 <= after <= 10
    source = cropped(grid, start, shape)
    result = covering_grid(plan_scan(source, acquisition).scan_grid, 1.0)
    corner = to_voxel(source, to_world(result, np.zeros(3)))
    assert corner == pytest.approx(np.round(corner), abs=1e-9)


def test_moved_grid_is_turned_about_its_centre_and_shifted():
    grid = Grid((11, 12, 5), np.diag([1.6, 1.6, 5.0, 1.0]))
    turned = brains.moved(grid, degrees=2.0, voxels=0.0)
    assert turned.origin_mm == pytest.approx(grid.origin_mm)
    assert turned.spacing_mm == pytest.approx(grid.spacing_mm)
    angle = np.arccos((np.trace(turned.affine[:3, :3] @ np.linalg.inv(grid.affine[:3, :3])) - 1) / 2)
    assert np.degrees(angle) == pytest.approx(2.0)
    shifted = brains.moved(grid, degrees=0.0, voxels=0.5)
    assert shifted.origin_mm - grid.origin_mm == pytest.approx([0.8, 0.8, 2.5])
