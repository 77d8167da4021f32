"""What `mrkit info` says of a file is what every verb that takes a scan does with it."""

import json

import nibabel as nib
import numpy as np
import pytest

from mrcore.noise import add_noise
from mrcore.phantom import digital_head, head_grid
from mrcore.random import seeded
from mrkit.cli import main
from mrkit.info.inspection import inspect_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A head in all the ways that files hold it, a sound one, its tissues, and a transfer function."""
    out = tmp_path_factory.mktemp("kinds")
    head = digital_head(head_grid(32, 192.0), seed=3, skull=False)
    affine = head.grid.affine
    clean, tissues = 1000 * head.image.data, head.tissues.prob
    scan = add_noise(clean, 20.0, seeded(1, "kinds")).numpy()
    brain = tissues.sum(0).numpy() > 0.5
    codes = np.where(brain, tissues.argmax(0).numpy() + 1, 0).astype(np.uint8)
    stripped = np.where(brain, scan, 0)
    kinds = {
        "sound": scan,
        "minus_one": stripped - 1024,
        "normalised": 2 * scan / scan.max() - 1,
        "nan": np.where(brain, scan, np.nan),
        "cut": np.minimum(scan, np.percentile(scan[brain], 97)),
        "z": np.where(brain, (scan - scan[brain].mean()) / scan[brain].std(), 0),
        "real": clean.numpy() + 20 * np.random.default_rng(0).normal(size=scan.shape),
        "wrapped": (scan * 45).astype(np.int64).astype(np.uint16).view(np.int16),
        "constant": np.full_like(scan, 3),
        "labels": codes,
        "mask": brain.astype(np.uint8),
        "t1map": scan / 500,
        "ms": scan,
    }
    for name, data in kinds.items():
        data = data if data.dtype in (np.uint8, np.int16) else data.astype(np.float32)
        nib.Nifti1Image(data, affine).to_filename(out / f"{name}_T1w.nii.gz")
    (out / "t1map_T1w.json").write_text(json.dumps({"Units": "s"}))
    (out / "ms_T1w.json").write_text(json.dumps({"EchoTime": 4.2}))
    nib.Nifti1Image(codes, affine).to_filename(out / "seg.nii.gz")
    pair = [str(out / "sound_T1w.nii.gz")] * 2
    assert main(["transfer", "fit", *pair, "--out", str(out / "tf.npz"), "--smoothness", "1"]) == 0
    return out


VERBS = {
    "simulate": "simulate {file} {out} --tissues {seg} --no-report",
    "simulate, like it": "simulate {sound} {out} --like {file} --tissues {seg}",
    "superresolve": "superresolve {file} {out} --tissues {seg} --voxel 6 --preview",
    "superresolve, second scan": "superresolve {sound} {file} {out} --tissues {seg} --voxel 6 --preview",
    "superresolve, start": "superresolve {sound} {out} --init {file} --voxel 6",
    "superresolve, contrast": "superresolve {sound} {out} --contrast-of {file} --voxel 6",
    "measure": "measure {file} --tissues {seg}",
    "transfer fit": "transfer fit {sound} {file} --out {out}/tf.npz --smoothness 1",
    "transfer apply": "transfer apply {file} {tf} {out}",
    "fidelity": "fidelity --sim {file} --real {file} --out {out}",
    "train-denoiser": "train-denoiser {out}/net.safetensors --images {file} --steps 1",
}

REFUSED = {
    "z": "this is no magnitude",
    "real": "this is no magnitude",
    "wrapped": "integers overflowed",
    "constant": "the image is constant",
    "labels": "this is a label map (4 whole numbers from 0 to 3",
    "mask": "this is a mask (0 and 1)",
    "t1map": "the sidecar says that this is a map in s",
}
DOUBTED = {
    "minus_one": "the background is -1024 everywhere, not 0",
    "normalised": "the noise in the air begins at -",
    "nan": "they are the background, and were set to 0",
    "cut": "intensities were cut off",
    "ms": "is it in ms",
}


def run(folder, out, verb, kind, *options):
    names = {name: folder / f"{name}_T1w.nii.gz" for name in ("sound",)}
    names |= {"file": folder / f"{kind}_T1w.nii.gz", "out": out, "seg": folder / "seg.nii.gz", "tf": folder / "tf.npz"}
    return main([*VERBS[verb].format(**names).split(), *options])


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("verb", VERBS)
def test_what_info_refuses_every_verb_refuses(folder, tmp_path, capsys, verb, kind):
    report = inspect_file(folder / f"{kind}_T1w.nii.gz")
    text = next(problem.text for problem in report.problems if problem.fatal)
    assert REFUSED[kind] in text
    assert run(folder, tmp_path / "out", verb, kind) == 2
    assert " ".join(text.split()) in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*.nii*"))


@pytest.mark.parametrize("kind", DOUBTED)
@pytest.mark.parametrize("verb", VERBS)
def test_what_info_doubts_every_verb_warns_of(folder, tmp_path, capsys, verb, kind):
    report = inspect_file(folder / f"{kind}_T1w.nii.gz")
    text = next(problem.text for problem in report.problems if DOUBTED[kind] in problem.text)
    assert report.usable
    # Strict stops at the first warning, so that no verb need run to its end.
    assert run(folder, tmp_path / "out", verb, kind, "--strict") == 2
    error = capsys.readouterr().err
    assert f"{kind}_T1w.nii.gz: {' '.join(text.split())}" in error
    assert "--strict was asked for" in error


def test_a_scan_on_which_nothing_is_wrong_has_no_finding(folder):
    assert inspect_file(folder / "sound_T1w.nii.gz").problems == ()


@pytest.mark.parametrize("kind", ["minus_one", "nan"])
def test_a_zero_put_right_changes_no_number_and_is_said_once(folder, tmp_path, capsys, kind):
    found = {}
    for name in ("stripped", kind):
        if name == "stripped":
            image = nib.load(folder / "nan_T1w.nii.gz")
            path = tmp_path / "stripped_T1w.nii.gz"
            nib.Nifti1Image(np.nan_to_num(np.asarray(image.dataobj)), image.affine).to_filename(path)
        else:
            path = folder / f"{kind}_T1w.nii.gz"
        assert main(["measure", str(path), "--tissues", str(folder / "seg.nii.gz"), "--json"]) == 0
        said = capsys.readouterr()
        found[name] = json.loads(said.out)
    assert sum(DOUBTED[kind] in line for line in said.err.splitlines()) == 1
    assert sum(DOUBTED[kind] in note for note in found[kind]["notes"]) == 1
    for tissue, facts in found["stripped"]["tissues"].items():
        assert found[kind]["tissues"][tissue]["snr"] == pytest.approx(facts["snr"], rel=1e-4)


def swapped(folder, path):
    """The tissues by the codes of BIDS, 1 GM, 2 WM, 3 CSF, without a file that says so."""
    image = nib.load(folder / "seg.nii.gz")
    nib.Nifti1Image(np.array([0, 3, 1, 2], np.uint8)[np.asarray(image.dataobj)], image.affine).to_filename(path)
    return path


def test_tissues_of_a_real_scan_that_contradict_it_are_refused(folder, tmp_path, capsys):
    scan, tissues = str(folder / "sound_T1w.nii.gz"), str(swapped(folder, tmp_path / "bids.nii.gz"))
    common = ["simulate", scan, str(tmp_path / "out"), "--tissues", str(folder / "seg.nii.gz"), "--like", scan]
    assert main([*common, "--like-tissues", tissues]) == 2
    error = capsys.readouterr().err
    assert "the tissues given for --like do not fit the image" in error
    assert "what was taken as CSF is GM, GM is WM, WM is CSF" in error
    assert "state it in the sidecar's LabelMap" in error
    assert "--labels" not in error


def test_labels_beside_a_scan_that_contradict_it_are_refused(folder, tmp_path, capsys):
    (tmp_path / "a_T1w.nii.gz").write_bytes((folder / "sound_T1w.nii.gz").read_bytes())
    swapped(folder, tmp_path / "a_T1w_dseg.nii.gz")
    scan = str(tmp_path / "a_T1w.nii.gz")
    assert main(["fidelity", "--sim", scan, "--real", scan, "--labels", "beside", "--out", str(tmp_path / "out")]) == 2
    assert "the labels in a_T1w_dseg.nii.gz do not fit the image" in capsys.readouterr().err
