"""Masks, label maps and probability maps from files."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch

from mrcore.data.grid import Grid
from mrcore.data.volume import TISSUES, TissueMap
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.io.label_codes import FAST_CODES, FREESURFER_CODES
from mrcore.io.tissues import load_mask, load_tissues, probability_paths, save_tissues

SHAPE = (6, 5, 4)
AFFINE = np.diag([-1.5, 1.5, 3.0, 1.0])
GRID = Grid(SHAPE, AFFINE)


def write(path, data, affine=AFFINE):
    nib.Nifti1Image(np.asarray(data), affine).to_filename(path)
    return path


def labels(*codes):
    """Planes along the first axis: background, then the codes."""
    out = np.zeros(SHAPE, np.int16)
    for number, code in enumerate(codes, start=1):
        out[number] = code
    return out


def test_fast_codes_become_tissues(tmp_path):
    tissues = load_tissues([write(tmp_path / "seg.nii.gz", labels(3, 1, 2))])
    assert tissues.names == TISSUES
    assert (tissues.of("WM")[1] == 1).all()
    assert (tissues.of("CSF")[2] == 1).all()
    assert (tissues.of("GM")[3] == 1).all()
    assert (tissues.prob[:, [0, 4, 5]] == 0).all()


@pytest.mark.parametrize(("code", "tissue"), [
    (2, "WM"), (41, "WM"), (77, "WM"), (251, "WM"), (3001, "WM"), (16, "WM"), (3, "GM"), (42, "GM"), (10, "GM"),
    (53, "GM"), (1035, "GM"), (2000, "GM"), (12101, "GM"), (4, "CSF"), (24, "CSF"), (31, "CSF"), (15, "CSF"),
    (0, None), (507, None),
])  # fmt: skip
def test_freesurfer_codes_become_tissues(tmp_path, code, tissue):
    tissues = load_tissues([write(tmp_path / "aseg.nii.gz", labels(41, 42, 43, code))])
    expected = [1.0 if name == tissue else 0.0 for name in TISSUES]
    assert tissues.prob[:, 4, 0, 0].tolist() == expected


def test_no_freesurfer_code_has_two_tissues():
    white = {code for code, name in FREESURFER_CODES.items() if name == "WM"}
    grey = {code for code, name in FREESURFER_CODES.items() if name == "GM"}
    assert (len(white), len(grey)) > (80, 200)
    assert set(FAST_CODES) == {0, 1, 2, 3}


def test_unknown_codes_are_refused_by_number(tmp_path):
    with pytest.raises(BadInputError, match="label codes that are not known: 7777, 8888"):
        load_tissues([write(tmp_path / "seg.nii.gz", labels(1, 2, 3, 7777, 8888))])


def test_codes_far_outside_are_refused(tmp_path):
    with pytest.raises(BadInputError, match="not known: -5, 30000"):
        load_tissues([write(tmp_path / "seg.nii.gz", labels(1, 2, 3, -5, 30000))])


def test_tissue_without_voxels_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="no voxel is CSF; all of CSF, GM, WM are needed"):
        load_tissues([write(tmp_path / "seg.nii.gz", labels(2, 3))])


def test_an_image_is_no_label_map(tmp_path):
    data = np.random.default_rng(0).uniform(0, 3, SHAPE).astype(np.float32)
    with pytest.raises(BadInputError, match="is not a label map"):
        load_tissues([write(tmp_path / "t1.nii.gz", data)])


def test_two_files_are_refused(tmp_path):
    with pytest.raises(BadInputError, match="three probability maps in the order CSF GM WM; got 2 files"):
        load_tissues([tmp_path / "a.nii", tmp_path / "b.nii"])


def write_maps(folder, prob):
    return [
        write(folder / f"{name}.nii.gz", values.astype(np.float32)) for name, values in zip(TISSUES, prob, strict=True)
    ]


def test_probability_maps_sum_to_one_inside_and_zero_outside(tmp_path):
    prob = np.zeros((3, *SHAPE))
    prob[0, 1], prob[1, 1] = 0.9, 0.06
    prob[1, 2], prob[2, 3], prob[2, 4] = 1, 1, 0.3
    tissues = load_tissues(write_maps(tmp_path, prob))
    total = tissues.prob.sum(0)
    assert torch.allclose(total[1:4], torch.ones(()))
    assert (total[[0, 4, 5]] == 0).all()
    assert float(tissues.of("CSF")[1, 0, 0]) == pytest.approx(0.9 / 0.96, rel=1e-6)


def test_maps_in_percent_are_refused(tmp_path):
    prob = np.stack([100.0 * (labels(1, 2, 3) == code) for code in (1, 2, 3)])
    with pytest.raises(BadInputError, match=r"from 0 to 1 and sum to at most 1.*0 to 100"):
        load_tissues(write_maps(tmp_path, prob))


def test_maps_on_different_grids_are_refused(tmp_path):
    paths = write_maps(tmp_path, np.stack([(labels(1, 2, 3) == code) * 1.0 for code in (1, 2, 3)]))
    other = AFFINE.copy()
    other[0, 3] = 2.0
    write(paths[2], (labels(1, 2, 3) == 3).astype(np.float32), other)
    with pytest.raises(GridMismatchError, match="not on the same grid"):
        load_tissues(paths)


def test_saved_tissues_come_back_from_maps_and_from_labels(tmp_path):
    prob = torch.zeros((3, *SHAPE))
    prob[0, 1], prob[1, 2], prob[2, 3] = 1, 1, 1
    prob[0, 4], prob[1, 4] = 0.25, 0.75
    tissues = TissueMap(prob, TISSUES, GRID)
    written = save_tissues(tissues, tmp_path / "out", "sub-01", sidecar={"Seed": 1})
    assert written == probability_paths(tmp_path / "out", "sub-01")
    assert [path.name for path in written] == [
        "sub-01_dseg.nii.gz", "sub-01_label-CSF_probseg.nii.gz", "sub-01_label-GM_probseg.nii.gz",
        "sub-01_label-WM_probseg.nii.gz",
    ]  # fmt: skip
    assert torch.allclose(load_tissues(written[1:]).prob, prob)
    hard = load_tissues(written[:1])
    assert (hard.of("GM")[4] == 1).all()
    assert torch.equal(hard.mask, tissues.mask)
    sidecar = json.loads((tmp_path / "out" / "sub-01_dseg.json").read_text())
    assert sidecar["LabelMap"] == {"CSF": 1, "GM": 2, "WM": 3}


@pytest.mark.parametrize("high", [1, 255])
def test_mask_of_two_values(tmp_path, high):
    mask = load_mask(write(tmp_path / "mask.nii.gz", (labels(1, 1) * high).astype(np.uint8)), GRID)
    assert mask.dtype == torch.bool
    assert mask.sum() == 2 * 5 * 4
    assert mask[1].all()


def test_soft_mask_is_cut_at_one_half(tmp_path):
    data = labels(0, 0, 0).astype(np.float32)
    data[1], data[2], data[3] = 0.49, 0.5, 1.0
    assert load_mask(write(tmp_path / "mask.nii.gz", data), GRID).sum() == 2 * 5 * 4


def test_image_is_no_mask(tmp_path):
    with pytest.raises(BadInputError, match="is not a mask: it holds values from 0 to 110"):
        load_mask(write(tmp_path / "t1.nii.gz", labels(110, 80, 30)), GRID)


def test_image_that_was_normalised_to_1_is_no_mask(tmp_path):
    data = np.random.default_rng(0).uniform(0.2, 0.9, labels().shape).astype(np.float32)
    data[0], data[1, 0, 0] = 0, 1
    with pytest.raises(BadInputError, match=r"not a mask but an image.*from 0 to 1 \(median 0\."):
        load_mask(write(tmp_path / "t1.nii.gz", data), GRID)


def test_empty_mask_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="every voxel is 0"):
        load_mask(write(tmp_path / "mask.nii.gz", labels()), GRID)


def test_mask_on_another_grid_is_refused(tmp_path):
    other = np.diag([1.5, 1.5, 3.0, 1.0])
    with pytest.raises(GridMismatchError, match=r"the mask .* and the image are not on the same grid"):
        load_mask(write(tmp_path / "mask.nii.gz", labels(1), other), GRID)


@pytest.mark.parametrize(("name", "least"), [
    ("labels/visualqc_id001_aparc+aseg.mgz", (40e3, 5e5, 5e5)),
    ("labels/synthsr_brain1_labels.nii.gz", (1e4, 5e5, 4e5)),
    ("copyleft/eve_fast/eve_FAST_seg.nii.gz", (4e5, 8e5, 5e5)),
])  # fmt: skip
def test_real_label_maps_are_understood(shared_data, name, least):
    tissues = load_tissues([shared_data / name])
    assert all(float(values.sum()) > count for values, count in zip(tissues.prob, least, strict=True))
