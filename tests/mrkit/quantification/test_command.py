"""`mrkit quantify` from files to files, on a disc of known T1 and T2, and what it refuses."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid
from mrcore.io.nifti_read import read_image, require_usable
from mrcore.signals.mrf_sequence import MrfSequence
from mrkit.cli import main
from mrkit.quantification.demo import demo_scan
from mrkit.quantification.methods import METHODS
from recon.coils.loops import loop_coil_maps
from recon.files.ismrmrd import write_ismrmrd
from recon.files.npz import write_npz
from recon.simulation import simulate_raw
from recon.trajectories.builders import radial

GRID = Grid((24, 24, 1), np.array([[-5.0, 0, 0, 60], [0, 5.0, 0, -70], [0, 0, 6.0, 10], [0, 0, 0, 1]]))
FLIPS = 20 + 40 * torch.sin(torch.linspace(0, 9.5, 60)).abs()
SEQUENCE = MrfSequence(FLIPS, torch.tensor(0.012), torch.tensor(0.002), ti_s=0.02)
MAPS = ("desc-seconds_T1map", "desc-seconds_T2map", "desc-relative_PDmap", "desc-sdseconds_T1map")
ALL = (*MAPS, "desc-sdseconds_T2map", "desc-sdrelative_PDmap", "desc-relative_residual")
QUICK = ("--method", "cg", "--t1-range", "0.4", "2.0", "--t2-range", "0.02", "0.3")


def scan():
    x, y = torch.meshgrid(*[(torch.arange(24) - 12) / 12.0] * 2, indexing="ij")
    disc = ((x - 0.1) ** 2 + y**2).sqrt()[..., None] < 0.7
    t1_s, t2_s = torch.full(GRID.shape, 0.9), torch.full(GRID.shape, 0.07)
    trajectory = radial(GRID, 60, lines_per_frame=2)
    trajectory = replace(trajectory, k_cyc_per_mm=trajectory.k_cyc_per_mm.float())
    coils = loop_coil_maps(GRID, 3)
    return simulate_raw(t1_s, t2_s, disc.to(torch.complex64), SEQUENCE, trajectory, coils, snr=30.0, n_noise=200)


def write_table(folder, n=60):
    rows = "".join(f"{flip:.6f},12,2\n" for flip in FLIPS[:n].tolist())
    path = folder / "fisp.csv"
    path.write_text("flip_deg,tr_ms,te_ms\n" + rows)
    return path


def quantify(*arguments):
    return main(["quantify", *map(str, arguments)])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantify")
    write_npz(replace(scan(), sequence=None), folder / "raw.npz")
    table = write_table(folder)
    given = ("--sequence", table, "--ti", "0.02", "--seed", "3")
    assert quantify(folder / "raw.npz", folder / "out", *given, *QUICK) == 0
    return folder


def test_all_results_are_there_with_sidecars(done):
    names = {path.name for path in (done / "out").iterdir()}
    images = [*ALL, *(f"desc-synthetic_{name}" for name in ("T1w", "T2w", "FLAIR"))]
    expected = {f"raw_{name}{suffix}" for name in images for suffix in (".nii.gz", ".json")}
    assert names == expected | {"raw_quantify_report.html"}


def load(path):
    """A map of one slice, which `load_volume` refuses."""
    image = read_image(path, allow_slice=True)
    return require_usable(image), image.grid


def test_maps_are_in_seconds_on_the_grid_of_the_raw_data(done):
    for name, truth in (("T1", 0.9), ("T2", 0.07)):
        data, grid = load(done / "out" / f"raw_desc-seconds_{name}map.nii.gz")
        assert grid.matches(GRID)
        assert np.median(data[9:16, 9:16]) == pytest.approx(truth, rel=0.05)
        assert data[0, 0, 0] == 0
        assert json.loads((done / "out" / f"raw_desc-seconds_{name}map.json").read_text())["Units"] == "s"


def test_sidecar_says_how_it_was_made_and_from_what(done):
    sidecar = json.loads((done / "out" / "raw_desc-seconds_T1map.json").read_text())
    assert sidecar["Seed"] == 3
    assert sidecar["Parameters"]["Method"] == "cg"
    assert sidecar["Parameters"]["MethodSettings"] == {"n_iter": 15}
    assert sidecar["Parameters"]["Settings"]["t1_range_s"] == [0.4, 2.0]
    assert sidecar["Parameters"]["InversionTime"] == 0.02
    assert sidecar["Versions"]["torch"] == torch.__version__
    raw = hashlib.sha256((done / "raw.npz").read_bytes()).hexdigest()
    assert sidecar["SourcesSHA256"]["raw.npz"] == raw
    assert set(sidecar["SourcesSHA256"]) == {"raw.npz", "fisp.csv"}


def test_the_page_fetches_nothing_and_names_its_scales(done):
    page = (done / "out" / "raw_quantify_report.html").read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    for stated in (
        "mrkit quantify",
        "0 to 2.5 s",
        "0 to 200 ms",
        "T1, Subspace CG",
        "Uncertainty of T2",
        "Uncertainty of PD",
        "Histograms",
    ):
        assert stated in page, stated


def test_nothing_is_overwritten_without_force(done, capfd):
    before = {path.name: path.read_bytes() for path in (done / "out").iterdir()}
    table = ("--sequence", done / "fisp.csv", "--ti", "0.02", "--seed", "3")
    assert quantify(done / "raw.npz", done / "out", *table, *QUICK) == 2
    assert "exists already" in capfd.readouterr().err
    assert quantify(done / "raw.npz", done / "out", *table, *QUICK, "--force") == 0
    assert {path.name: path.read_bytes() for path in (done / "out").iterdir()} == before


def test_ismrmrd_mask_b1_and_chosen_images(done, tmp_path):
    pytest.importorskip("h5py", reason="ISMRMRD files need h5py")
    write_ismrmrd(scan(), tmp_path / "raw.h5")
    mask = np.zeros(GRID.shape, np.uint8)
    mask[8:16, 8:16] = 1
    nib.Nifti1Image(mask, GRID.affine).to_filename(tmp_path / "mask.nii.gz")
    options = ("--mask", tmp_path / "mask.nii.gz", "--b1", "0.9", "1.1", "--weighted", "0.5", "0.0125", "0.15")
    assert quantify(tmp_path / "raw.h5", tmp_path / "out", *options, "--coils", "2", "--no-report", *QUICK) == 0
    names = {path.name for path in (tmp_path / "out").glob("*.nii.gz")}
    images = (*ALL, "desc-factor_TB1map", "desc-TR500TE12TI150ms_weighted")
    assert names == {f"raw_{name}.nii.gz" for name in images}
    t1, grid = load(tmp_path / "out" / "raw_desc-seconds_T1map.nii.gz")
    assert grid.matches(GRID)
    assert ((t1 > 0) == (mask > 0)).all()
    about = json.loads((tmp_path / "out" / "raw_desc-TR500TE12TI150ms_weighted.json").read_text())
    assert (about["RepetitionTime"], about["EchoTime"], about["InversionTime"]) == (0.5, 0.0125, 0.15)
    assert not list((tmp_path / "out").glob("*.html"))


def test_all_methods_side_by_side(done, tmp_path):
    options = ("--sequence", done / "fisp.csv", "--ti", "0.02", "--compare", "--rank", "4", *QUICK[2:])
    assert quantify(done / "raw.npz", tmp_path, *options) == 0
    page = (tmp_path / "raw_quantify_report.html").read_text(encoding="utf-8")
    for method in METHODS.values():
        assert f"T1, {method.title}" in page
    about = json.loads((tmp_path / "raw_desc-seconds_T1map.json").read_text())
    assert about["Parameters"]["Method"] == "mri2qmap"
    assert about["Parameters"]["Settings"]["rank"] == 4
    assert about["Fit"]["NIter"] > 1


def nan_samples(folder):
    raw = scan()
    write_npz(raw, folder / "raw.npz")
    with np.load(folder / "raw.npz") as file:
        arrays = dict(file)
    arrays["samples"][1, 5] = np.nan
    np.savez(folder / "raw.npz", **arrays)
    return ()


def cut_off(folder):
    pytest.importorskip("h5py", reason="ISMRMRD files need h5py")
    write_ismrmrd(scan(), folder / "raw.h5")
    whole = (folder / "raw.h5").read_bytes()
    (folder / "raw.h5").write_bytes(whole[: len(whole) // 2])
    return ()


def other_unit(folder):
    raw = scan()
    write_npz(raw, folder / "raw.npz")
    with np.load(folder / "raw.npz") as file:
        arrays = dict(file)
    arrays["k_cyc_per_mm"] = 1e3 * arrays["k_cyc_per_mm"]
    np.savez(folder / "raw.npz", **arrays)
    return ()


def coils_missing(folder):
    write_npz(scan(), folder / "raw.npz")
    with np.load(folder / "raw.npz") as file:
        arrays = dict(file)
    arrays["samples"] = arrays["samples"][:2]
    np.savez(folder / "raw.npz", **arrays)
    return ()


def short_sequence(folder):
    write_npz(scan(), folder / "raw.npz")
    return ("--sequence", write_table(folder, n=40), "--ti", "0.02")


def no_sequence(folder):
    write_npz(replace(scan(), sequence=None), folder / "raw.npz")
    return ()


def milliseconds(folder):
    write_npz(scan(), folder / "raw.npz")
    return ("--t1-range", "100", "3000")


def other_ending(folder):
    (folder / "raw.dat").write_bytes(b"x")
    return ()


BAD = [
    (nan_samples, "NaN"),
    (cut_off, "is the file whole?"),
    (other_unit, "cycles/m"),
    (coils_missing, "are coils missing?"),
    (short_sequence, "40 frames, the data have 60"),
    (no_sequence, "--sequence"),
    (milliseconds, "milliseconds"),
    (other_ending, ".npz"),
]


@pytest.mark.parametrize(("make", "part"), BAD)
def test_bad_input_is_refused_in_one_line_and_nothing_is_written(tmp_path, capfd, make, part):
    options = make(tmp_path)
    raw = next(path for path in tmp_path.iterdir() if path.stem == "raw")
    before = sorted(tmp_path.iterdir())
    assert quantify(raw, tmp_path / "out", *options) == 2
    stated = capfd.readouterr().err
    assert stated.startswith("mrkit: error: ")
    assert stated.count("\n") == 1
    assert part in stated
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("arguments", [(), ("raw.npz",), ("raw.npz", "out", "--demo"), ("--method", "magic", "a", "b")])
def test_wrong_arguments_are_refused(arguments, capfd):
    with pytest.raises(SystemExit) as stopped:
        quantify(*arguments)
    assert stopped.value.code == 2
    assert "see mrkit quantify --help" in capfd.readouterr().err


def test_help_teaches_and_imports_nothing_heavy():
    code = (
        "import sys\nfrom mrkit.cli import main\ntry:\n    main(['quantify', '--help'])\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write(' '.join(m for m in ('torch', 'numpy', 'scipy') if m in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr == ""
    for stated in ("examples:", "mrkit quantify --demo", "RAW_desc-seconds_T1map.nii.gz", "flip_deg", "methods:"):
        assert stated in result.stdout


def test_the_demo_has_a_truth_that_it_does_not_reconstruct_with():
    small = demo_scan(1, 32)
    assert small.raw.n_coils == 8
    assert small.raw.noise is not None
    assert set(small.truth.cores()) == {"CSF", "GM", "WM"}
    again = demo_scan(2, 32)
    assert not torch.equal(again.raw.samples, small.raw.samples)


@pytest.mark.slow
def test_demo_beats_least_squares(tmp_path):
    assert quantify("--demo", tmp_path / "demo") == 0
    errors = json.loads((tmp_path / "demo" / "metrics.json").read_text())["errors_percent"]
    ours, plain = errors[METHODS["mri2qmap"].title], errors[METHODS["cg"].title]
    for tissue in ("WM", "GM"):
        for quantity in ("t1", "t2"):
            assert ours[tissue][quantity] < plain[tissue][quantity], (tissue, quantity)
    assert Path(tmp_path / "demo" / "report.html").is_file()
