"""The command line as a user runs it: help, bad input, exit codes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mrkit.cli import main
from mrkit.simulation.command import PRESET_NAMES
from ulfsim.protocols.presets import PRESETS

HF = np.diag([2.0, 2.0, 2.0, 1.0])
ULF = np.diag([4.0, 4.0, 8.0, 1.0])


def mrkit(*arguments, cwd=None):
    """Run the installed command in a process of its own, `python -m mrkit` where it is not installed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    installed = Path(sys.executable).with_name("mrkit")
    command = [str(installed)] if installed.exists() else [sys.executable, "-m", "mrkit"]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env=environment, check=False
    )


@pytest.fixture
def call(capfd):
    """Run the command in this process, which is much faster where the libraries are loaded already."""

    def called(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, code, out, err)

    return called


def brain(shape=(24, 28, 24)):
    """Three shells of tissue in a zero background, a little noise inside."""
    place = np.stack(np.meshgrid(*[np.linspace(-1.4, 1.4, n) for n in shape], indexing="ij"))
    radius = np.linalg.norm(place, axis=0)
    data = np.select([radius < 0.5, radius < 0.8, radius < 1.0], [110.0, 80.0, 35.0], 0.0)
    noise = np.random.default_rng(0).normal(0, 1.5, shape) * (data > 0)
    return (data + noise).astype(np.float32)


def write(path, data, affine=HF):
    nib.Nifti1Image(data, affine).to_filename(path)
    return path


def assert_refused(result, part):
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("mrkit: error: ")
    assert result.stderr.count("\n") == 1
    assert part in result.stderr


@pytest.mark.parametrize("arguments", [("--help",), ("simulate", "--help"), ("superresolve", "--help"), ("info", "-h")])
def test_help_shows_examples(arguments):
    result = mrkit(*arguments)
    assert result.returncode == 0
    assert "examples:" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["simulate", "--help"], ["demo", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys\nfrom mrkit.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        "sys.stderr.write(' '.join(m for m in ('torch', 'numpy', 'scipy', 'nibabel') if m in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr == ""


def test_help_comes_at_once():
    # The fastest of three: other work on the machine must not decide.
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        mrkit("--help")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.3


def test_version():
    result = mrkit("--version")
    assert result.stdout.startswith("mrkit ")
    assert result.returncode == 0


@pytest.mark.parametrize(("arguments", "part"), [
    ((), "the following arguments are required: COMMAND"),
    (("frobnicate",), "invalid choice: 'frobnicate'"),
    (("simulate", "a.nii"), "the following arguments are required: OUT"),
    (("simulate", "a.nii", "out", "--preset", "siemens"), "invalid choice: 'siemens'"),
    (("simulate", "a.nii", "out", "--seed", "1.5"), "expected a whole number of at least 0, got '1.5'"),
    (("simulate", "a.nii", "out", "--wm-snr", "0"), "expected a positive number, got '0'"),
    (("simulate", "a.nii", "out", "--preset", "hyperfine-t2w", "--like", "b.nii"), "not allowed with"),
    (("superresolve", "a.nii", "out", "--voxel", "-1.5"), "expected a positive number, got '-1.5'"),
    (("superresolve", "a.nii", "out", "--voxel", "nan"), "expected a positive number, got 'nan'"),
    (("superresolve", "a.nii", "out", "--threads", "0"), "expected a whole number of at least 1"),
    (("superresolve", "a.nii", "out", "--segmenter", "spm"), "invalid choice: 'spm'"),
    (("superresolve", "a.nii", "out", "--vox", "1.0"), "unrecognized arguments: --vox"),
    (("info", "nowhere.nii.gz"), "nowhere.nii.gz: no such file"),
])  # fmt: skip
def test_wrong_arguments_are_refused_in_one_line(tmp_path, monkeypatch, call, arguments, part):
    monkeypatch.chdir(tmp_path)
    assert_refused(call(*arguments), part)
    assert list(tmp_path.iterdir()) == []


def truncated(folder):
    path = write(folder / "a.nii.gz", brain())
    path.write_bytes(path.read_bytes()[:-400])
    return path, ()


def text_file(folder):
    (folder / "a.nii").write_text("no image")
    return folder / "a.nii", ()


def nan(folder):
    data = brain()
    data[3, 4, 5] = np.nan
    return write(folder / "a.nii.gz", data), ()


def series(folder):
    return write(folder / "a.nii.gz", np.stack([brain(), brain()], -1)), ()


def constant(folder):
    return write(folder / "a.nii.gz", np.ones((8, 8, 8), np.float32)), ()


def in_metres(folder):
    return write(folder / "a.nii.gz", brain(), np.diag([2e-3, 2e-3, 2e-3, 1])), ()


def complex_image(folder):
    return write(folder / "a.nii.gz", brain().astype(np.complex64)), ()


def mask_elsewhere(folder):
    mask = write(folder / "mask.nii.gz", (brain() > 0).astype(np.uint8), ULF)
    return write(folder / "a.nii.gz", brain()), ("--mask", mask)


def empty_mask(folder):
    mask = write(folder / "mask.nii.gz", np.zeros((24, 28, 24), np.uint8))
    return write(folder / "a.nii.gz", brain()), ("--mask", mask)


def missing_mask(folder):
    return write(folder / "a.nii.gz", brain()), ("--mask", folder / "mask.nii.gz")


def two_tissue_maps(folder):
    a = write(folder / "a.nii.gz", brain())
    return a, ("--tissues", a, a)


def strange_labels(folder):
    labels = write(folder / "labels.nii.gz", (brain() > 50).astype(np.int16) * 9999)
    return write(folder / "a.nii.gz", brain()), ("--tissues", labels)


def tissues_elsewhere(folder):
    codes = np.digitize(brain(), (10, 60, 95)).astype(np.uint8)
    labels = write(folder / "labels.nii.gz", codes, ULF)
    return write(folder / "a.nii.gz", brain()), ("--tissues", labels)


def out_is_a_file(folder):
    (folder / "out").write_text("in the way")
    return write(folder / "a.nii.gz", brain()), ()


def segmenter_that_is_not_installed(folder):
    return write(folder / "a.nii.gz", brain()), ("--segmenter", "fast")


BAD = [
    (truncated, "the gzip stream is truncated"),
    (text_file, "is not a NIfTI-1, NIfTI-2 or MGH image"),
    (nan, "1 of 16128 voxels are NaN or infinite"),
    (series, "with 2 volumes; extract one volume first"),
    (constant, "the image is constant"),
    (in_metres, "are not those of an MRI scan"),
    (complex_image, "give its magnitude"),
    (mask_elsewhere, "are not on the same grid"),
    (empty_mask, "every voxel is 0"),
    (missing_mask, "mask.nii.gz: no such file"),
    (two_tissue_maps, "got 2 files"),
    (strange_labels, "label codes that are not known: 9999"),
    (tissues_elsewhere, "are not on the same grid"),
    (out_is_a_file, "is a file, not a folder"),
    pytest.param(
        segmenter_that_is_not_installed, "FSL", marks=pytest.mark.skipif("FSLDIR" in os.environ, reason="FSL is here")
    ),
]


@pytest.mark.parametrize("command", ["simulate", "superresolve"])
@pytest.mark.parametrize(("make", "part"), BAD)
def test_bad_input_is_refused_in_one_line_and_nothing_is_written(tmp_path, call, command, make, part):
    image, options = make(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert_refused(call(command, image, tmp_path / "out", *options), part)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", ["simulate", "superresolve"])
def test_bad_input_in_a_process_of_its_own(tmp_path, command):
    image, _ = truncated(tmp_path)
    assert_refused(mrkit(command, "a.nii.gz", "out", cwd=tmp_path), "a.nii.gz: the gzip stream is truncated")
    assert list(tmp_path.iterdir()) == [image]


@pytest.mark.parametrize(("command", "name"), [("simulate", "a_ulf.nii.gz"), ("superresolve", "a_sr_report.html")])
def test_existing_results_stop_the_work_before_it_begins(tmp_path, call, command, name):
    image = write(tmp_path / "a.nii.gz", brain())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("precious")
    assert_refused(call(command, image, tmp_path / "out"), "exists already")
    assert [file.name for file in (tmp_path / "out").iterdir()] == [name]
    assert (tmp_path / "out" / name).read_text() == "precious"


def test_info_on_a_sound_file(tmp_path, call):
    image = write(tmp_path / "a.nii.gz", brain((40, 44, 30)), np.diag([-3.0, 3.0, 5.0, 1]))
    result = call("info", image)
    assert result.returncode == 0
    assert result.stderr == ""
    for part in ("NIfTI-1", "40 x 44 x 30", "3 x 3 x 5 mm", "LAS", "float32", "usable"):
        assert part in result.stdout


def test_info_lists_every_reason_and_exits_2(tmp_path, call):
    data = brain()
    data[3, 4, 5] = np.inf
    image = write(tmp_path / "a.nii.gz", data, np.diag([2e-3, 2e-3, 2e-3, 1]))
    result = call("info", image)
    assert result.returncode == 2
    assert result.stdout.count("\nerror: ") == 2
    assert "not usable as a scan: 2 error(s)" in result.stdout
    assert "Traceback" not in result.stderr


def test_info_as_json(tmp_path, call):
    image = write(tmp_path / "a.nii.gz", brain())
    (tmp_path / "a.json").write_text(json.dumps({"Manufacturer": "Philips", "MagneticFieldStrength": 0.064}))
    result = call("info", image, "--json")
    found = json.loads(result.stdout)
    assert found["usable"] is True
    assert found["place"]["voxel_mm"] == [2.0, 2.0, 2.0]
    assert found["sidecar"]["MagneticFieldStrength"] == 0.064
    assert any("dcm2niix" in problem["text"] for problem in found["problems"])
    assert result.returncode == 0


def test_verbose_shows_where_an_error_came_from(tmp_path, call):
    result = call("simulate", tmp_path / "nowhere.nii", tmp_path / "out", "--verbose")
    assert result.returncode == 2
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("mrkit: error: ")


def test_ctrl_c_ends_quietly(tmp_path, monkeypatch, call):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("mrkit.info.command.run", interrupted)
    result = call("info", tmp_path / "a.nii")
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "mrkit: interrupted\n")


def test_error_of_our_own_is_one_line_with_another_code(tmp_path, monkeypatch, call):
    def broken(_):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("mrkit.info.command.run", broken)
    result = call("info", tmp_path / "a.nii")
    assert result.returncode == 1
    assert result.stderr.startswith("mrkit: internal error: RuntimeError: two lines; run with --verbose")
    assert result.stderr.count("\n") == 1


def test_presets_of_the_help_are_those_that_exist():
    assert tuple(PRESETS) == PRESET_NAMES


@pytest.mark.parametrize(("name", "parts"), [
    ("ulf/lowgan_MS017_64mT_T1w.nii.gz", ("like an ultra-low-field scan", "1.6 x 1.6 x 5 mm", "RAS", "int16")),
    ("t1/stroke_3T_T1_brain.nii.gz", ("RAS, oblique by 18.98 degrees", "uint8", "removed", "usable")),
    ("t1/openms_long_p01_T1W_raw.nii.gz", ("LPS, oblique by 3.23 degrees", "uint16", "present", "usable")),
])  # fmt: skip
def test_info_on_real_scans(shared_data, call, name, parts):
    result = call("info", shared_data / name)
    assert result.returncode == 0, result.stdout
    for part in parts:
        assert part in result.stdout
