"""Parts of the fingerprinting benchmark that decide its figures."""

import numpy as np
import pytest
import torch
from fingerprinting.benchmark import ERRORS, means_of, targets_of
from fingerprinting.methods import errors_in
from fingerprinting.scene import Case, Truth, in_vivo, slab, trajectory_of

from mrcore.data.grid import Grid
from mrcore.errors import BadInputError
from recon.methods.maps import Maps

GRID = Grid((16, 16, 1), np.eye(4))


def test_errors_are_counted_tissue_by_tissue():
    t1_s, t2_s = torch.full(GRID.shape, 1.0), torch.full(GRID.shape, 0.1)
    pd = torch.linspace(0.5, 1.0, 256).reshape(GRID.shape)
    inside = torch.zeros(GRID.shape, dtype=torch.bool)
    inside[:8] = True
    truth = Truth("two halves", GRID, t1_s, t2_s, pd.to(torch.complex64), {"WM": inside, "GM": ~inside})
    found_t2 = torch.where(inside, 0.12, 0.1)
    # PD comes with another phase and another scale, neither of which is an error.
    maps = Maps(1.1 * t1_s, found_t2, 7j * pd, None, t1_s, torch.zeros(GRID.shape, dtype=torch.int64), inside | True)
    errors = errors_in(truth, pd, maps)
    for kind in ("MAPE", "NRMSE"):
        assert [errors[f"T1 {t} {kind} %"] for t in ("WM", "GM")] == pytest.approx([10, 10], rel=1e-4)
        assert [errors[f"T2 {t} {kind} %"] for t in ("WM", "GM")] == pytest.approx([20, 0], abs=1e-3)
        assert [errors[f"PD {t} {kind} %"] for t in ("WM", "GM")] == pytest.approx([0, 0], abs=1e-3)
    assert errors["T1 PSNR dB"] == pytest.approx(20, abs=1e-3)


def test_acceleration_leaves_out_shots():
    counts = [trajectory_of(Case("x", "radial", r), GRID, 10).n_samples for r in (1, 4, 16)]
    assert counts == [16 * 10 * 32, 4 * 10 * 32, 10 * 32]
    with pytest.raises(BadInputError, match="must divide 16"):
        trajectory_of(Case("x", "radial", 3), GRID, 10)


def test_targets_compare_means_and_admit_what_was_not_measured():
    def row(scan, acceleration, method, error):
        columns = {f"{q} {t} MAPE %": error for q in ("T1", "T2") for t in ("WM", "GM")}
        return {"table": ERRORS, "scan": scan, "trajectory": "spiral", "R": acceleration, "method": method, **columns}

    rows = [
        row("a", 8, "MRI2Qmap", 3.0),
        row("b", 8, "MRI2Qmap", 5.0),
        row("a", 8, "LRTV", 3.5),
        row("a", 4, "LRTV", 4.5),
    ]
    assert [m["scans"] for m in means_of(rows)] == [2, 1, 1]
    targets = {t["name"]: t for t in targets_of(rows)}
    assert targets["spiral, R 8: MRI2Qmap, T1 WM MAPE %"] == {
        "name": "spiral, R 8: MRI2Qmap, T1 WM MAPE %",
        "target": "< 5",
        "value": 4.0,
        "met": True,
    }
    assert not targets["spiral, R 8: MRI2Qmap better than LRTV, T1 MAPE % of WM and GM"]["met"]
    assert targets["spiral, R 8: MRI2Qmap no worse than LRTV at R 4, T2 MAPE % of WM and GM"]["met"]
    assert targets["spiral, R 8: MRI2Qmap better than PnP, T1 MAPE % of WM and GM"]["target"] == "not measured"
    assert not targets["radial, R 8: MRI2Qmap, T1 WM MAPE %"]["met"]
    assert len(targets) == 2 * 2 * 8


def test_a_person_and_a_slab_have_all_tissues(shared_data):
    for truth in (in_vivo(7, 7, shared_data, step=2), slab(shared_data)):
        assert all(int(inside.sum()) > 200 for inside in truth.tissues.values())
        assert truth.pd.shape == truth.grid.shape
        inside = torch.stack(list(truth.tissues.values())).any(0)
        assert bool((truth.pd[inside].abs() > 0).all())
        white = truth.t1_s[truth.tissues["WM"]].median()
        assert 0.6 < white < truth.t1_s[truth.tissues["GM"]].median() < truth.t1_s[truth.tissues["CSF"]].median()
