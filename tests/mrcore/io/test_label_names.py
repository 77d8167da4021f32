"""What the codes of a label map mean: stated beside it, said by the user, or assumed."""

import json

import nibabel as nib
import numpy as np
import pytest

from mrcore.data.volume import TISSUES
from mrcore.errors import BadInputError
from mrcore.io.tissues import load_tissues

SHAPE = (6, 5, 4)
BIDS_TABLE = (
    "index\tname\tabbreviation\n0\tBackground\tBG\n1\tGray Matter\tGM\n2\tWhite Matter\tWM\n"
    "3\tCerebrospinal Fluid\tCSF\n"
)


def write(path, *codes, dtype=np.int16):
    data = np.zeros(SHAPE, dtype)
    for number, code in enumerate(codes, start=1):
        data[number] = code
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(data, np.diag([2.0, 2.0, 2.0, 1.0])).to_filename(path)
    return path


def planes(tissues):
    """The tissue of each plane along the first axis."""
    return [next((n for n in TISSUES if (tissues.of(n)[i] == 1).all()), None) for i in range(SHAPE[0])]


@pytest.mark.parametrize("label_map", [{"GM": 1, "WM": 2, "CSF": 3}, {"1": "GM", "2": "White Matter", "3": "csf"}])
def test_the_sidecar_states_it(tmp_path, label_map):
    path = write(tmp_path / "sub-01_dseg.nii.gz", 1, 2, 3)
    (tmp_path / "sub-01_dseg.json").write_text(json.dumps({"LabelMap": label_map}))
    assert planes(load_tissues(path))[1:4] == ["GM", "WM", "CSF"]


@pytest.mark.parametrize("name", ["anat/sub-01_dseg.tsv", "anat/dseg.tsv", "dseg.tsv"])
def test_a_bids_table_states_it(tmp_path, name):
    (tmp_path / "dataset_description.json").write_text("{}")
    path = write(tmp_path / "anat" / "sub-01_dseg.nii.gz", 1, 2, 3)
    (tmp_path / name).write_text(BIDS_TABLE)
    assert planes(load_tissues(path))[1:4] == ["GM", "WM", "CSF"]


def test_a_table_outside_the_dataset_says_nothing(tmp_path):
    (tmp_path / "dseg.tsv").write_text(BIDS_TABLE)
    path = write(tmp_path / "data" / "sub-01_dseg.nii.gz", 1, 2, 3)
    (tmp_path / "data" / "dataset_description.json").write_text("{}")
    assert planes(load_tissues(path))[1:4] == ["CSF", "GM", "WM"]


def test_a_table_of_structures_leaves_freesurfers_codes(tmp_path):
    path = write(tmp_path / "sub-01_dseg.nii.gz", 41, 42, 43)
    (tmp_path / "sub-01_dseg.tsv").write_text("index\tname\n41\tRight-Cerebral-White-Matter\n42\tctx\n43\tventricle\n")
    assert planes(load_tissues(path))[1:4] == ["WM", "GM", "CSF"]


def test_a_code_that_the_table_lacks_is_refused(tmp_path):
    path = write(tmp_path / "sub-01_dseg.nii.gz", 1, 2, 3, 7)
    (tmp_path / "sub-01_dseg.tsv").write_text(BIDS_TABLE)
    with pytest.raises(BadInputError, match=r"not stated: 7; stated are 0 background, 1 GM, 2 WM, 3 CSF"):
        load_tissues(path)


def test_what_the_user_says_comes_first_and_the_rest_is_background(tmp_path):
    path = write(tmp_path / "sub-01_dseg.nii.gz", 1, 2, 3, 7)
    (tmp_path / "sub-01_dseg.tsv").write_text(BIDS_TABLE)
    found = load_tissues(path, {7: "WM", 2: "GM", 3: "CSF"})
    assert planes(found)[1:5] == [None, "GM", "CSF", "WM"]
    with pytest.raises(BadInputError, match="no voxel is WM"):
        load_tissues(path, {9: "WM", 2: "GM", 3: "CSF"})
    with pytest.raises(BadInputError, match="one label map"):
        load_tissues([path, path, path], {1: "GM"})


def test_whole_numbers_are_whole_to_half_a_step_of_the_files_scaling(tmp_path):
    data = np.zeros(SHAPE, np.float64)
    data[1], data[2], data[3] = 1, 2, 3
    image = nib.Nifti1Image(np.rint(data / 0.0117).astype(np.uint16), np.diag([2.0, 2.0, 2.0, 1.0]))
    image.header.set_slope_inter(0.0117, 0.0)
    image.to_filename(tmp_path / "seg.nii")
    raw = bytearray((tmp_path / "seg.nii").read_bytes())
    raw[112:116] = np.float32(0.0117).tobytes()  # scl_slope, which the library sets anew on writing
    (tmp_path / "seg.nii").write_bytes(raw)
    stored = np.asarray(nib.load(tmp_path / "seg.nii").dataobj)
    assert 0 < np.abs(stored - np.rint(stored)).max() < 0.006
    assert planes(load_tissues(tmp_path / "seg.nii"))[1:4] == ["CSF", "GM", "WM"]


def test_values_between_whole_numbers_are_no_labels(tmp_path):
    with pytest.raises(BadInputError, match="between whole numbers"):
        load_tissues(write(tmp_path / "seg.nii.gz", 0.9, 2, 3, dtype=np.float32))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "latin-1"])
def test_tables_of_any_encoding_are_read(tmp_path, encoding):
    path = write(tmp_path / "sub-01_dseg.nii.gz", 1, 2, 3)
    table = BIDS_TABLE.replace("Background", "R\u00fcckseite")
    (tmp_path / "dseg.tsv").write_bytes(table.encode(encoding))
    assert planes(load_tissues(path))[1:4] == ["GM", "WM", "CSF"]
