"""What a user must see is on the terminal, the worst first; `-q` silences it, `--strict` makes an error of it."""

import nibabel as nib
import numpy as np
import pytest

from mrcore.phantom import digital_head, head_grid
from mrkit.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A head with less contrast than the protocol delivers, and its tissues."""
    out = tmp_path_factory.mktemp("warnings")
    head = digital_head(head_grid(48), seed=3)
    image = 100 * head.image.data.numpy() ** 0.3
    nib.Nifti1Image(image.astype(np.float32), head.grid.affine).to_filename(out / "a_T1w.nii.gz")
    codes = np.where(head.tissues.prob.sum(0) > 0.5, head.tissues.prob.argmax(0) + 1, 0).astype(np.uint8)
    nib.Nifti1Image(codes, head.grid.affine).to_filename(out / "seg.nii.gz")
    return out


def run(folder, out, *options):
    tissues = ("--tissues", str(folder / "seg.nii.gz"), "--no-report")
    return main(["simulate", str(folder / "a_T1w.nii.gz"), str(folder / out), *tissues, *options])


def warnings_of(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("mrkit: warning: ")]


def test_warnings_are_printed_a_line_each_and_are_those_of_the_sidecar(folder, capsys):
    assert run(folder, "out") == 0
    lines = warnings_of(capsys)
    assert any("exceeds the source's" in line for line in lines)
    assert any("the source's voxels are larger than the scan's" in line for line in lines)
    text = (folder / "out" / "a_T1w_ulf.json").read_text()
    assert all(line.removeprefix("mrkit: warning: ") in text for line in lines)
    assert len(set(lines)) == len(lines)


def test_quiet_is_quiet(folder, capsys):
    assert run(folder, "quiet", "-q") == 0
    assert capsys.readouterr().err == ""


def test_strict_stops_before_anything_is_written(folder, capsys):
    assert run(folder, "strict", "--strict") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("mrkit: error: ")
    assert "--strict was asked for" in error
    assert not (folder / "strict").exists()
    assert run(folder, "strict", "--strict", "-q") == 2


def test_a_measurement_says_that_its_noise_is_bracketed(folder, capsys):
    rng = np.random.default_rng(0)
    image = nib.load(folder / "a_T1w.nii.gz")
    data = np.asarray(image.dataobj)
    noise = rng.normal(size=data.shape)
    noise = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1) + np.roll(noise, 1, 2)) / 2
    nib.Nifti1Image(((data + 4 * noise) * (data > 0)).astype(np.float32), image.affine).to_filename(
        folder / "b_T1w.nii.gz"
    )
    arguments = ["measure", str(folder / "b_T1w.nii.gz"), "--tissues", str(folder / "seg.nii.gz"), "--json"]
    assert main(arguments) == 0
    assert "the noise is only bracketed" in warnings_of(capsys)[0]
    assert main(arguments[:-1]) == 0
    said = capsys.readouterr()
    assert "the noise is only bracketed" in said.err
    assert "the noise is only bracketed" not in said.out
    assert "note: tissues: given maps" in said.out
    assert main([*arguments, "--strict", "--out", str(folder / "m")]) == 2
    assert not (folder / "m").exists()
