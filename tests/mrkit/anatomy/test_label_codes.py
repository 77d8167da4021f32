"""Label maps on the command line: FAST's codes, BIDS' codes, and those that the user names."""

import json

import nibabel as nib
import numpy as np
import pytest

from mrcore.phantom import digital_head, head_grid
from mrkit.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A T1w head of some noise, and its tissues in FAST's codes and in those of BIDS."""
    out = tmp_path_factory.mktemp("labels")
    head = digital_head(head_grid(48), seed=3)
    noise = np.random.default_rng(0).normal(size=(2, *head.grid.shape))
    data = 500 * np.hypot(head.image.data.numpy() + 0.03 * noise[0], 0.03 * noise[1])
    nib.Nifti1Image(data.astype(np.float32), head.grid.affine).to_filename(out / "a_T1w.nii.gz")
    codes = np.where(head.tissues.prob.sum(0) > 0.5, head.tissues.prob.argmax(0) + 1, 0).astype(np.uint8)
    nib.Nifti1Image(codes, head.grid.affine).to_filename(out / "fast.nii.gz")
    bids = np.array([0, 3, 1, 2], np.uint8)[codes]
    nib.Nifti1Image(bids, head.grid.affine).to_filename(out / "bids.nii.gz")
    return out


def measured(folder, capsys, *options):
    """Tissues with their means, SNR and intervals."""
    assert main(["measure", str(folder / "a_T1w.nii.gz"), "--json", "--tissues", *map(str, options)]) == 0
    return json.loads(capsys.readouterr().out)["tissues"]


def test_codes_of_bids_are_refused_as_fasts_and_taken_when_they_are_named(folder, capsys):
    right = measured(folder, capsys, folder / "fast.nii.gz")
    arguments = ["measure", str(folder / "a_T1w.nii.gz"), "--tissues", str(folder / "bids.nii.gz")]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "do not fit the image" in error
    assert "--labels" in error
    assert "what was taken as CSF is GM, GM is WM, WM is CSF" in error
    assert measured(folder, capsys, folder / "bids.nii.gz", "--labels", "GM=1,WM=2,CSF=3") == right


def test_a_table_beside_the_map_says_the_same(folder, capsys, tmp_path):
    right = measured(folder, capsys, folder / "fast.nii.gz")
    (tmp_path / "x_dseg.nii.gz").write_bytes((folder / "bids.nii.gz").read_bytes())
    (tmp_path / "x_dseg.tsv").write_text("index\tname\n1\tGray Matter\n2\tWhite Matter\n3\tCSF\n")
    assert measured(folder, capsys, tmp_path / "x_dseg.nii.gz") == right


@pytest.mark.parametrize("text", ["GM=1", "GM=1,WM=1,CSF=3", "grey=1,WM=2,CSF=3", "GM=1,WM=2,CSF=x"])
def test_codes_that_say_too_little_are_refused(folder, capsys, text):
    with pytest.raises(SystemExit) as left:
        main(["measure", str(folder / "a_T1w.nii.gz"), "--tissues", str(folder / "bids.nii.gz"), "--labels", text])
    assert left.value.code == 2
    assert f"got '{text}'" in capsys.readouterr().err
