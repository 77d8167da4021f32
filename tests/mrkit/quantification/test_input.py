"""What `mrkit quantify` is given beside the raw data: trains, slice profiles, trajectories; what it refuses."""

from dataclasses import replace
from functools import partial

import nibabel as nib
import numpy as np
import pytest
import torch

import mrkit
from mrcore.data.grid import Grid
from mrcore.errors import BadInputError
from mrcore.notes import cautions
from mrcore.signals.epg import SliceProfile
from mrcore.signals.mrf_sequence import MrfSequence
from mrkit import QuantifySettings
from mrkit.cli import main
from mrkit.quantification import command
from mrkit.quantification import job as job_quantify
from mrkit.quantification.input import IsmrmrdOptions, Train, read_data
from recon.coils.loops import loop_coil_maps
from recon.dictionary.dictionary import bssfp_model, fisp_model
from recon.files.ismrmrd import write_ismrmrd
from recon.files.npz import write_npz
from recon.simulation import simulate_raw
from recon.trajectories.builders import radial
from recon.trajectories.units import K_UNITS

GRID = Grid((20, 20, 1), np.diag([6.0, 6.0, 6.0, 1.0]))
N_FRAMES = 60
SEQUENCE = MrfSequence(
    20 + 40 * torch.sin(torch.linspace(0, 9.5, N_FRAMES)).abs(), torch.tensor(0.012), torch.tensor(0.006), ti_s=0.02
)
PROFILE = SliceProfile((0.8, 0.5, 0.2), (0.5, 0.25, 0.25))
QUICK = ("--method", "cg", "--t1-range", "0.4", "2.0", "--t2-range", "0.02", "0.3", "--no-report")


def scan(model=None):
    x, y = torch.meshgrid(*[(torch.arange(20) - 10) / 10.0] * 2, indexing="ij")
    disc = (x**2 + y**2).sqrt()[..., None] < 0.7
    t1_s, t2_s = torch.full(GRID.shape, 0.9), torch.full(GRID.shape, 0.07)
    trajectory = radial(GRID, N_FRAMES, lines_per_frame=2)
    trajectory = replace(trajectory, k_cyc_per_mm=trajectory.k_cyc_per_mm.float())
    of_sequence = None if model is None else model(SEQUENCE)
    pd, coils = disc.to(torch.complex64), loop_coil_maps(GRID, 3)
    return simulate_raw(t1_s, t2_s, pd, SEQUENCE, trajectory, coils, model=of_sequence)


def quantify(*arguments):
    return main(["quantify", *map(str, arguments)])


def middle(path):
    return float(np.median(np.asarray(nib.load(path).dataobj)[8:13, 8:13]))


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (partial(bssfp_model, off_resonance_hz=12.5), ("--balanced", "--off-resonance", "12.5")),
        (partial(fisp_model, profile=PROFILE), ("--slice-profile", "profile.csv")),
        (partial(bssfp_model, profile=PROFILE), ("--balanced", "--slice-profile", "profile.csv")),
    ],
)
def test_the_train_that_is_said_is_the_one_that_is_fitted(tmp_path, model, options, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{f},{2 * w}\n" for f, w in zip(PROFILE.factors, PROFILE.weights, strict=True))
    (tmp_path / "profile.csv").write_text("flip_factor,weight\n" + rows)
    write_npz(scan(model), tmp_path / "raw.npz")
    assert quantify("raw.npz", "right", *options, *QUICK) == 0
    assert middle(tmp_path / "right/raw_desc-seconds_T1map.nii.gz") == pytest.approx(0.9, rel=0.05)
    assert middle(tmp_path / "right/raw_desc-seconds_T2map.nii.gz") == pytest.approx(0.07, rel=0.1)
    assert quantify("raw.npz", "wrong", *QUICK) == 0
    assert middle(tmp_path / "wrong/raw_desc-seconds_T2map.nii.gz") != pytest.approx(0.07, rel=0.1)


def test_each_map_is_written_under_its_own_name(tmp_path):
    """Against the verb, array by array: maps and sd of T1 and T2 have no other way to be told apart."""
    write_npz(scan(), tmp_path / "raw.npz")
    assert quantify(tmp_path / "raw.npz", tmp_path / "out", *QUICK) == 0
    settings = QuantifySettings(t1_range_s=(0.4, 2.0), t2_range_s=(0.02, 0.3))
    found = mrkit.quantify(mrkit.load_raw(tmp_path / "raw.npz"), method=mrkit.METHODS["cg"], settings=settings)
    for name, volume in {
        "seconds_T1map": found.t1_s,
        "seconds_T2map": found.t2_s,
        "sdseconds_T1map": found.t1_sd_s,
        "sdseconds_T2map": found.t2_sd_s,
        "sdrelative_PDmap": found.pd_sd,
        "relative_residual": found.residual,
    }.items():
        written = np.asarray(nib.load(tmp_path / "out" / f"raw_desc-{name}.nii.gz").dataobj)
        assert np.allclose(written, volume.data.numpy(), rtol=1e-4, atol=1e-6), name


def test_a_trajectory_that_is_given_stands_for_a_wrong_one(tmp_path):
    raw = scan()
    path, given = tmp_path / "raw.npz", tmp_path / "k.npz"
    write_npz(raw, path)
    with np.load(path) as file:
        arrays = dict(file)
    right = {name: arrays.pop(name) for name in ("k_cyc_per_mm", "frame", "n_frames")}
    np.savez(given, **right)
    np.savez(path, **arrays)
    with pytest.raises(BadInputError, match="lacks k_cyc_per_mm"):
        read_data(path, Train(), None, IsmrmrdOptions())
    assert torch.equal(read_data(path, Train(), given, IsmrmrdOptions()).trajectory.frame, raw.trajectory.frame)
    np.savez(path, **arrays, **(right | {"k_cyc_per_mm": 1e3 * right["k_cyc_per_mm"]}))
    found = read_data(path, Train(), given, IsmrmrdOptions())
    assert torch.equal(found.trajectory.k_cyc_per_mm, raw.trajectory.k_cyc_per_mm)
    pytest.importorskip("h5py", reason="ISMRMRD files need h5py")
    write_ismrmrd(raw, tmp_path / "raw.h5")
    turned = right | {"k_cyc_per_mm": -right["k_cyc_per_mm"]}
    np.savez(given, **turned)
    found = read_data(tmp_path / "raw.h5", Train(), given, IsmrmrdOptions())
    assert torch.equal(found.trajectory.k_cyc_per_mm, -raw.trajectory.k_cyc_per_mm)


def test_raw_data_are_loaded_by_a_path_or_its_text(tmp_path):
    raw = scan()
    write_npz(raw, tmp_path / "raw.npz")
    found = mrkit.load_raw(str(tmp_path / "raw.npz"))
    assert torch.equal(found.samples, raw.samples)
    assert torch.equal(found.sequence.flip_deg, raw.sequence.flip_deg)
    other = replace(SEQUENCE, ti_s=0.05)
    assert mrkit.load_raw(tmp_path / "raw.npz", sequence=other).sequence.ti_s == 0.05
    table = "flip_deg,tr_s,te_s\n" + "".join(f"{float(f)},0.012,0.006\n" for f in SEQUENCE.flip_deg)
    (tmp_path / "train.csv").write_text(table)
    assert mrkit.load_raw(tmp_path / "raw.npz", sequence=tmp_path / "train.csv", ti_s=0.03).sequence.ti_s == 0.03
    with pytest.raises(BadInputError, match="its own inversion"):
        mrkit.load_raw(tmp_path / "raw.npz", sequence=other, ti_s=0.02)
    with pytest.raises(BadInputError, match="no such file"):
        mrkit.load_raw(tmp_path / "nowhere.h5")


def test_options_that_would_be_ignored_are_refused(tmp_path):
    write_npz(scan(), tmp_path / "raw.npz")
    for options, part in (
        ({"slice_index": 1}, "--slice"),
        ({"encoding": 1}, "--encoding"),
        ({"fov_mm": (120.0, 120.0, 6.0)}, "--fov"),
    ):
        with pytest.raises(BadInputError, match=part):
            read_data(tmp_path / "raw.npz", Train(), None, IsmrmrdOptions(**options))
    for train, part in (({"ti_s": 0.02}, "--sequence"), ({"off_resonance_hz": 5.0}, "--balanced")):
        with pytest.raises(BadInputError, match=part):
            Train(**train)


@pytest.mark.parametrize("unit", K_UNITS)
def test_any_unit_of_k_is_named_and_proposed(tmp_path, unit):
    """Factors by hand: voxels of 6 mm, 20 of them."""
    factor = {
        **{"cycles/voxel": 6, "rad/voxel": 6 * 2 * np.pi, "cycles/FOV": 120},
        **{"cycles/mm": 1, "cycles/cm": 10, "cycles/m": 1000},
        **{"rad/mm": 2 * np.pi, "rad/cm": 20 * np.pi, "rad/m": 2000 * np.pi},
    }[unit]
    raw, path, given = scan(), tmp_path / "raw.npz", tmp_path / "k.npz"
    write_npz(raw, path)
    with np.load(path) as file:
        arrays = dict(file)
    arrays["k_cyc_per_mm"] = arrays["k_cyc_per_mm"] * np.float32(factor)
    np.savez(path, **arrays)
    np.savez(given, **{name: arrays[name] for name in ("k_cyc_per_mm", "frame", "n_frames")})
    for trajectory in (None, given):
        if unit != "cycles/mm":
            with pytest.raises(BadInputError, match=f"say --k-unit {unit}"):
                read_data(path, Train(), trajectory, IsmrmrdOptions())
        found = read_data(path, Train(), trajectory, IsmrmrdOptions(k_unit=unit))
        torch.testing.assert_close(found.trajectory.k_cyc_per_mm, raw.trajectory.k_cyc_per_mm)
        assert found.notes == ()


def test_a_unit_that_leaves_k_space_small_is_told(tmp_path, capfd):
    """Cycles read as radians: the samples lie within the band, and the map would be a plausible blob."""
    write_npz(scan(), tmp_path / "raw.npz")
    found = read_data(tmp_path / "raw.npz", Train(), None, IsmrmrdOptions(k_unit="rad/mm"))
    assert any("say --k-unit cycles/mm" in note for note in cautions(found.notes))
    assert quantify(tmp_path / "raw.npz", tmp_path / "out", "--k-unit", "rad/mm", "--strict", *QUICK) == 2
    assert "say --k-unit cycles/mm" in capfd.readouterr().err
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_units_of_the_command_are_those_of_the_readers():
    assert command.K_UNITS == K_UNITS


def test_profiles_that_are_none_are_refused(tmp_path):
    path = tmp_path / "profile.csv"
    for text, part in (
        ("angle\n1\n", "flip_factor"),
        ("flip_factor\nnan\n", "finite"),
        ("flip_factor,weight\n1,0\n", "not 0 throughout"),
    ):
        path.write_text(text)
        with pytest.raises(BadInputError, match=part):
            Train(slice_profile=path).model()


def test_a_killed_comparison_goes_on_after_the_methods_that_were_finished(tmp_path, monkeypatch):
    write_npz(scan(), tmp_path / "raw.npz")
    arguments = (tmp_path / "raw.npz", tmp_path / "out", "--compare", *QUICK)
    done, whole = [], job_quantify.quantify_prepared

    def counted(ready, method, *others):
        if method.title == "LRTV" and "LRTV" not in stopped:
            stopped.append("LRTV")
            raise KeyboardInterrupt
        done.append(method.title)
        return whole(ready, method, *others)

    stopped: list[str] = []
    few = {name: job_quantify.METHODS[name] for name in ("cg", "svd", "lrtv")}
    monkeypatch.setattr(job_quantify, "METHODS", few)
    monkeypatch.setattr(job_quantify, "quantify_prepared", counted)
    assert quantify(*arguments) == 130
    assert not list((tmp_path / "out").glob("*.nii.gz"))
    assert quantify(*arguments) == 0
    assert done == ["Subspace CG", "SVD-MRF", "LRTV"]
    assert not list((tmp_path / "out").glob(".*"))
    assert quantify(*arguments[:1], tmp_path / "plain", *QUICK) == 0
    name = "raw_desc-seconds_T1map.nii.gz"
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
