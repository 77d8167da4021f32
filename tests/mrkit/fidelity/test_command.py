"""`mrkit fidelity` from folders to files, on small synthetic brains with labels beside the images."""

import json
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from mrcore.noise_estimate import BACKGROUND, RESIDUAL
from mrkit.anatomy.scans import find_scans, subject_of
from mrkit.cli import main
from mrkit.fidelity.compare import too_noisy
from mrkit.report.plots import BarPlot, Bars, Line, LinePlot, bar_svg, line_svg
from ulfsim.measurement.facts import ContrastFacts, ScanFacts

AFFINE = np.diag([3.0, 3.0, 5.0, 1.0])
FINE = np.diag([3.0, 3.0, 2.5, 1.0])
LEVELS = np.array([0, 30, 80, 110], np.float32)


def shells(shape, squeeze):
    place = np.stack(np.meshgrid(*[np.linspace(-1.35, 1.35, n) for n in shape], indexing="ij"))
    radius = np.linalg.norm(place * np.array([1, squeeze, 1])[:, None, None, None], axis=0)
    radius = radius + 0.04 * np.sin(9 * place[0]) * np.cos(7 * place[1])
    return np.select([radius < 0.6, radius < 0.85, radius < 1.0], [3, 2, 1], 0).astype(np.uint8)


def write_scan(path, *, seed, sd=3.0, squeeze=1.0, blur=0.5, stripped=True):
    """A brain of three shells in Rician noise, its label map beside it, and a sidecar."""
    labels = shells((42, 50, 28), squeeze)
    generator = np.random.default_rng(seed)
    clean = ndimage.gaussian_filter(LEVELS[labels], blur)
    noisy = np.hypot(clean + generator.normal(0, sd, clean.shape), generator.normal(0, sd, clean.shape))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(noisy.astype(np.float32), AFFINE).to_filename(path)
    nib.Nifti1Image(labels, AFFINE).to_filename(path.with_name(path.name.replace(".nii.gz", "_dseg.nii.gz")))
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps({"SkullStripped": stripped}))


def write_source(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    clean = LEVELS[shells((42, 50, 56), 1.0)]
    texture = np.random.default_rng(0).normal(0, 0.3, clean.shape) * (clean > 0)
    nib.Nifti1Image((clean + texture).astype(np.float32), FINE).to_filename(path)


def fidelity(folder, *options, sim="sim", out="out"):
    arguments = ["fidelity", "--sim", folder / sim, "--real", folder / "real", "--out", folder / out, *options]
    return main([str(argument) for argument in (*arguments, "--labels", "beside")])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fidelity")
    write_scan(folder / "real" / "sub-01" / "anat" / "sub-01_T1w.nii.gz", seed=1)
    write_scan(folder / "real" / "sub-02" / "anat" / "sub-02_T1w.nii.gz", seed=2, squeeze=1.08)
    write_scan(folder / "sim" / "sub-01_T1w_ulf.nii.gz", seed=3, sd=1.5)
    write_source(folder / "source" / "sub-01_T1w.nii.gz")
    assert fidelity(folder, "--source", str(folder / "source")) == 0
    return folder


def table_of(folder, out="out"):
    return json.loads((folder / out / "fidelity.json").read_text())["contrasts"]["T1w"]


def test_half_the_noise_is_twice_the_snr(done):
    ours = table_of(done)["methods"]["Simulated"]
    assert ours["errors"]["snr_log"] == pytest.approx(np.log(2), abs=0.08)
    assert ours["errors"]["snr"] == pytest.approx(1.0, abs=0.15)
    assert ours["errors_by_person"]["sub-01"]["ncc"] > 0.9
    assert set(ours["errors_by_person"]) == {"sub-01"}
    assert table_of(done)["real"]["n"] == 2
    assert table_of(done)["real"]["sd"]["snr"]["WM"] > 0


def test_baselines_stand_beside_it(done):
    methods = table_of(done)["methods"]
    assert set(methods) == {"Simulated", "Gaussian blur", "Blur, noise matched", "TorchIO-style"}
    matched = methods["Blur, noise matched"]["mean"]
    # On the voxels of the real scan, with the SNR of its white matter.
    assert matched["spacing_mm"] == pytest.approx([3.0, 3.0, 5.0])
    real = table_of(done)["real"]["mean"]
    method = real["noise_method"]
    assert matched["contrast"][method]["snr"]["WM"] == pytest.approx(real["contrast"][method]["snr"]["WM"], rel=0.15)


def test_page_fetches_nothing_and_shows_all(done):
    page = (done / "out" / "fidelity.html").read_text()
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", page)
    assert "http://" not in page
    assert "https://" not in page
    assert "default-src 'none'" in page
    for word in ("Simulated", "Gaussian blur", "TorchIO-style", "Edge spread", "Noise spectrum", "Histogram", "NCC"):
        assert word in page
    # What the errors are stands below them.
    for part in ("1-Wasserstein distance of intensities", "Log-spectral distance of the noise", "Pearson correlation"):
        assert page.count(part) == 1
    assert page.count("<svg") >= 9
    assert page.count("data:image/png") == 3 * 5
    assert str(done) not in page


def test_same_scan_has_no_errors_and_a_second_run_measures_nothing_again(done, capfd):
    same = {"sim": "real/sub-02", "out": "same"}
    assert fidelity(done, **same) == 0
    before = (done / "same" / "fidelity.json").read_bytes()
    facts = {path: path.stat().st_mtime_ns for path in (done / "same" / "facts").iterdir()}
    assert fidelity(done, **same) == 2
    assert "exists already" in capfd.readouterr().err
    assert fidelity(done, "--force", **same) == 0
    assert {path: path.stat().st_mtime_ns for path in (done / "same" / "facts").iterdir()} == facts
    assert (done / "same" / "fidelity.json").read_bytes() == before
    result = json.loads(before)
    assert any("baselines were not run" in note for note in result["notes"])
    errors = result["contrasts"]["T1w"]["methods"]["Simulated"]["errors_by_person"]["sub-02"]
    assert [errors[key] for key in ("snr", "snr_log", "cnr", "spectrum_db", "histogram")] == [0, 0, 0, 0, 0]
    assert errors["edge_spread_mean"] in (0, None)
    assert errors["ncc"] > 0.98


@pytest.mark.parametrize(("sim", "part"), [
    ("nowhere", "no such file or folder; --sim needs images"),
    ("empty", "holds no image for --sim"),
    ("t2", "nothing can be compared"),
    ("torn", "torn_T1w.nii.gz"),
])  # fmt: skip
def test_bad_folders_are_refused_in_one_line(done, tmp_path, capfd, sim, part):
    shutil.copytree(done / "real", tmp_path / "real")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "x_dseg.nii.gz").write_bytes(b"")
    write_scan(tmp_path / "t2" / "sub-01_T2w.nii.gz", seed=1)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "torn_T1w.nii.gz").write_bytes(b"no image")
    assert fidelity(tmp_path, sim=sim) == 2
    message = capfd.readouterr().err
    assert part in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_one_image_that_cannot_be_used_does_not_stop_the_rest(done, tmp_path, capfd):
    shutil.copytree(done / "real", tmp_path / "real")
    shutil.copytree(done / "sim", tmp_path / "sim")
    (tmp_path / "real" / "sub-03_T1w.nii.gz").symlink_to("../.git/annex/objects/a/b/MD5E--1.nii.gz/MD5E--1.nii.gz")
    (tmp_path / "real" / "sub-04_T1w.nii.gz").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    # Of another contrast: not looked at, and no matter.
    (tmp_path / "real" / "sub-05_FLAIR.nii.gz").write_bytes(b"")
    (tmp_path / "real" / "sub-05_bold.nii.gz").write_bytes(b"")
    assert fidelity(tmp_path) == 3
    text = capfd.readouterr().err
    assert "sub-03_T1w.nii.gz was left out" in text
    assert "git annex get sub-03_T1w.nii.gz" in text
    assert "git lfs pull --include=sub-04_T1w.nii.gz" in text
    assert "2 images were left out" in text
    assert "sub-05" not in text
    result = json.loads((tmp_path / "out" / "fidelity.json").read_text())
    assert [words.split()[0] for words in result["left_out"]] == ["sub-03_T1w.nii.gz", "sub-04_T1w.nii.gz"]
    assert set(result["left_out"]) <= set(result["notes"])
    assert result["contrasts"]["T1w"]["real"]["n"] == 2
    assert result["contrasts"]["T1w"]["methods"] == table_of(tmp_path)["methods"]
    assert "sub-03_T1w.nii.gz was left out" in (tmp_path / "out" / "fidelity.html").read_text()
    assert fidelity(tmp_path, "--strict", out="strict") == 2
    assert not (tmp_path / "strict").exists()


def test_scans_are_found_and_told_apart(done):
    found = find_scans(done / "real", "--real")
    assert [scan.subject for scan in found] == ["sub-01", "sub-02"]
    assert {scan.weighting for scan in found} == {"T1w"}
    assert find_scans(found[0].path, "--real", "FLAIR")[0].weighting == "FLAIR"
    assert subject_of(done / "p26_T1w_ulf.nii.gz") == subject_of(done / "p26_T1w.nii.gz") == "p26"
    assert subject_of(done / "sub-01_ses-2_acq-x_T2w.nii.gz") == "sub-01_ses-2"
    assert subject_of(done / "sub-01" / "ses-2" / "anat" / "T1w.nii.gz") == "sub-01_ses-2"
    assert subject_of(done / "sub-01" / "anat" / "T1w.nii.gz") == "sub-01"
    assert subject_of(done / "p26" / "T1w_ulf.nii.gz") == subject_of(done / "other" / "p26" / "T1w.nii.gz") == "p26"


def test_plots_escape_their_text_and_cut_long_bars():
    bars = BarPlot(
        "<b>", "SNR", ("a&b",), (Bars("real", (10.0,), (1.0,), "#000"), Bars("x", (99.0,), (0.0,), "red")), 20
    )
    svg = str(bar_svg(bars))
    assert "<b>" not in svg
    assert "a&amp;b" in svg
    heights = [float(h) for h in re.findall(r'height="([\d.]+)" fill', svg) if h != "12"]
    assert heights[1] == pytest.approx(2 * heights[0], rel=0.01)
    assert "99" in svg
    line = Line("one", (0.0, 1.0), (0.0, 2.0), "#000")
    points = re.search(r'd="M([\d.]+),([\d.]+) L([\d.]+),([\d.]+)"', str(line_svg(LinePlot("t", "x", "y", (line,)))))
    assert float(points[3]) > float(points[1])
    assert float(points[4]) < float(points[2])
    assert "<svg" in line_svg(LinePlot("empty", "x", "y", (Line("none", (), (), "#000"),)))


def test_noise_that_only_residuals_miss_is_said():
    def facts(method, air_snr):
        contrast = {m: ContrastFacts(1.0, {"WM": snr}, {}) for m, snr in ((BACKGROUND, air_snr), (RESIDUAL, 40.0))}
        return ScanFacts("x", (1, 1, 1), method, contrast, (1, 1, 1), (((), ()),) * 3, "", {}, (0.0, 1.0))

    assert "2.5 times as noisy" in too_noisy("ours", "T1w", facts(BACKGROUND, 6.0), facts(RESIDUAL, 15.0))[0]
    assert too_noisy("ours", "T1w", facts(BACKGROUND, 30.0), facts(RESIDUAL, 15.0)) == []
    assert too_noisy("ours", "T1w", facts(BACKGROUND, 6.0), facts(BACKGROUND, 15.0)) == []
