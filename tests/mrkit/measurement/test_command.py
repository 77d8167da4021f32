import hashlib
import html
import json
import re

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from mrkit.cli import main
from mrkit.measurement.plots import intensity_bins

AFFINE = np.diag([2.0, 2.0, 4.0, 1.0])
SD = 4.0


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A ball of three tissues with Rician noise, and its label map (FAST codes)."""
    folder = tmp_path_factory.mktemp("measure")
    shape = (48, 48, 28)
    place = np.stack(np.meshgrid(*[s * (np.arange(n) - (n - 1) / 2) for n, s in zip(shape, (2, 2, 4), strict=True)]))
    radius = np.linalg.norm(place, axis=0)
    labels = np.select([radius < 20, radius < 30, radius < 38], [3, 2, 1], 0)
    clean = ndimage.gaussian_filter(np.array([0.0, 40.0, 80.0, 120.0])[labels], 0.6)
    noise = np.random.default_rng(0).normal(0, SD, (2, *shape))
    scan, tissues = folder / "ball_T1w.nii.gz", folder / "ball_dseg.nii.gz"
    nib.Nifti1Image(np.hypot(clean + noise[0], noise[1]).astype(np.float32), AFFINE).to_filename(scan)
    nib.Nifti1Image(labels.astype(np.int16), AFFINE).to_filename(tissues)
    return scan, tissues


def test_json_holds_means_intervals_noise_and_sharpness(files, capfd):
    scan, tissues = files
    assert main(["measure", str(scan), "--tissues", str(tissues), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["noise"]["method"] == "background"
    assert found["noise"]["sd"] == pytest.approx(SD, rel=0.03)
    white = found["tissues"]["WM"]
    assert white["snr"] == pytest.approx(120 / SD, rel=0.04)
    assert white["snr_interval"][0] < 120 / SD < white["snr_interval"][1]
    assert white["mean_interval"][0] < 120 < white["mean_interval"][1]
    contrast = found["cnr"]["WM-GM"]
    assert contrast["cnr_interval"][0] < 40 / SD < contrast["cnr_interval"][1]
    assert max(found["noise_spectrum"]["fwhm_mm"]) < 1.5
    assert found["edge_spread"]["voxel_mm"] == [2.0, 2.0, 4.0]
    assert found["weighting"] == "T1w"


def test_the_table_names_tissues_contrasts_noise_and_axes(files, capfd):
    scan, tissues = files
    assert main(["measure", str(scan), "--tissues", str(tissues)]) == 0
    lines = capfd.readouterr().out.splitlines()
    firsts = [line.split()[0] for line in lines if line]
    for word in ("CSF", "GM", "WM", "WM-GM", "noise", "R", "A", "S"):
        assert word in firsts
    assert any("(background)" in line for line in lines)


def test_a_file_that_is_missing_is_one_line(tmp_path, capfd):
    assert main(["measure", str(tmp_path / "none.nii.gz")]) == 2
    assert len(capfd.readouterr().err.splitlines()) == 1


@pytest.fixture(scope="module")
def written(files, tmp_path_factory):
    """What `--out` writes of the ball."""
    scan, tissues = files
    out = tmp_path_factory.mktemp("out")
    assert main(["measure", str(scan), "--tissues", str(tissues), "--out", str(out)]) == 0
    return out


def test_the_folder_holds_table_page_and_tissues(files, written, capfd):
    scan, tissues = files
    maps = [f"ball_T1w{kind}" for kind in ("_dseg", *(f"_label-{name}_probseg" for name in ("CSF", "GM", "WM")))]
    names = {f"{stem}{suffix}" for stem in maps for suffix in (".nii.gz", ".json")}
    assert {path.name for path in written.iterdir()} == names | {"ball_T1w_measure.json", "ball_T1w_measure.html"}
    table = json.loads((written / "ball_T1w_measure.json").read_text())
    assert table["SourcesSHA256"][scan.name] == hashlib.sha256(scan.read_bytes()).hexdigest()
    assert table["Sources"] == [scan.name, tissues.name]
    assert table["GeneratedBy"][0]["Name"] == "mrkit"
    assert main(["measure", str(scan), "--tissues", str(tissues), "--json"]) == 0
    printed = json.loads(capfd.readouterr().out)
    assert {key: table[key] for key in printed} == printed | {"image": scan.name}


def test_the_page_shows_figures_pictures_and_plots_and_fetches_nothing(written):
    page = (written / "ball_T1w_measure.html").read_text()
    table = json.loads((written / "ball_T1w_measure.json").read_text())
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", page)
    assert "http://" not in page
    assert "https://" not in page
    assert str(written) not in page
    assert page.count("<svg") == 7
    for title in ("Edge spread, left-right", "Noise spectrum, foot-head", "Intensities by tissue"):
        assert title in page
    assert page.count("data:image/png") == 9
    for note in table["notes"]:
        assert html.escape(note, quote=True).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in page
    assert f"<td>{table['tissues']['WM']['snr']:.3g}</td>" in page
    assert f"{table['edge_spread']['fwhm_mm'][0]:.2f} mm" in page
    # The air tells the noise, so there is nothing between white and coloured.
    assert "if noise is white" not in page
    assert table["noise"]["sd_range"] == [table["noise"]["sd"]] * 2


def test_nothing_is_written_over_without_force_and_bytes_do_not_change(files, written, capfd):
    scan, tissues = files
    before = {path: path.read_bytes() for path in written.iterdir()}
    again = ["measure", str(scan), "--tissues", str(tissues), "--out", str(written)]
    assert main(again) == 2
    refused = capfd.readouterr()
    assert "exists already" in refused.err
    assert refused.out == ""
    assert {path: path.read_bytes() for path in written.iterdir()} == before
    assert main([*again, "--force"]) == 0
    assert {path: path.read_bytes() for path in written.iterdir()} == before


def test_inputs_are_never_written_over(files, capfd):
    scan, tissues = files
    before = tissues.read_bytes()
    named = tissues.with_name("ball_T1w_dseg.nii.gz")
    named.write_bytes(before)
    out = str(scan.parent)
    assert main(["measure", str(scan), "--tissues", str(named), "--out", out, "--force"]) == 2
    assert "is an input" in capfd.readouterr().err
    assert named.read_bytes() == before
    assert not (scan.parent / "ball_T1w_measure.json").exists()


def test_without_air_the_noise_is_bracketed_thin_cores_and_missing_edges_are_said(tmp_path):
    """Filtered noise in a stripped slab of few slices whose CSF is a piece of rim."""
    shape, sd = (56, 56, 6), 4.0
    place = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij"))
    radius = np.hypot(place[0], place[1])
    labels = np.select([radius < 18, radius < 24, (radius < 24.6) & (place[0] > 21)], [3, 2, 1], 0)
    noise = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(2, *shape)), (0, 0.9, 0.9, 0))
    noise *= sd / noise.std()
    clean = np.array([0.0, 40.0, 80.0, 120.0])[labels]
    data = np.hypot(clean + noise[0], noise[1]) * (labels > 0)
    scan, tissues, out = tmp_path / "slab_T1w.nii.gz", tmp_path / "labels.nii.gz", tmp_path / "out"
    nib.Nifti1Image(data.astype(np.float32), np.diag([2.0, 2.0, 6.0, 1.0])).to_filename(scan)
    nib.Nifti1Image(labels.astype(np.int16), np.diag([2.0, 2.0, 6.0, 1.0])).to_filename(tissues)
    assert main(["measure", str(scan), "--tissues", str(tissues), "--out", str(out)]) == 0
    table = json.loads((out / "slab_T1w_measure.json").read_text())
    low, high = table["noise"]["sd_range"]
    assert low < 0.8 * sd < high
    assert table["noise"]["snr_at_least_noise"]["WM"] > 1.2 * table["tissues"]["WM"]["snr"]
    stated = "\n".join(table["notes"])
    assert "only bracketed" in stated
    assert "the core of CSF is thin" in stated
    assert "axis S: only 0 usable edges" in stated
    page = (out / "slab_T1w_measure.html").read_text()
    assert "at the least noise" in page
    assert "CSF (thin core)" in page
    assert "Edge spread, foot-head" not in page
    assert "anatomy raises low frequencies" in page


def test_help_names_what_is_written(capfd):
    with pytest.raises(SystemExit):
        main(["measure", "--help"])
    text = capfd.readouterr().out
    assert "SCAN_measure.html" in text
    assert "--force" in text


def test_bins_hold_as_many_whole_numbers_each():
    values = np.repeat(np.arange(0, 256.0), 5)
    counts = np.histogram(values, intensity_bins(values))[0]
    assert len(counts) == 85
    assert set(counts.tolist()) == {3 * 5}
    smooth = np.linspace(0, 1, 5001)
    assert 95 <= len(intensity_bins(smooth)) <= 105
    assert len(intensity_bins(np.full(9, 2.0))) >= 2
