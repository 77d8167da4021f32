import builtins
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from mrcore.errors import BadInputError, MissingExtraError
from mrcore.phantom import digital_head, head_grid
from mrcore.segmentation.backends import atropos_segmenter, dipy_segmenter, fast_segmenter
from mrcore.segmentation.tissues import FLAIR_ORDER, T1W_ORDER, T2W_ORDER

HEAD = digital_head(head_grid(32))

FAKE_FAST = """#!{python}
import sys
import nibabel as nib
import numpy as np
args = sys.argv[1:]
image = nib.load(args[-1])
data = np.asarray(image.dataobj)
out = next(a for a in args if a.startswith("--out=")).split("=", 1)[1]
edges = [0.0, 0.5, 0.9, 9.0]
open({log!r}, "w").write(" ".join(args))
for k in range({n_maps}):
    inside = (data > edges[k]) & (data <= edges[k + 1])
    nib.save(nib.Nifti1Image(inside.astype(np.float32), image.affine), f"{{out}}_pve_{{k}}.nii.gz")
"""


def install_fast(folder: Path, monkeypatch, n_maps: int = 3) -> Path:
    (folder / "bin").mkdir()
    log = folder / "called"
    script = folder / "bin" / "fast"
    script.write_text(FAKE_FAST.format(python=sys.executable, log=str(log), n_maps=n_maps))
    script.chmod(0o755)
    monkeypatch.setenv("FSLDIR", str(folder))
    _point_fslpy_at(folder, monkeypatch)
    return log


def _point_fslpy_at(folder: Path, monkeypatch) -> None:
    # fslpy reads FSLDIR when it is first imported.
    platform = pytest.importorskip("fsl.utils.platform").platform
    before = platform.fsldir
    monkeypatch.setattr(type(platform), "fsldir", property(lambda self: str(folder)), raising=False)
    assert platform.fsldir == str(folder) or before is None


def test_fast_is_called_on_the_masked_image_and_its_maps_are_read(tmp_path, monkeypatch):
    log = install_fast(tmp_path, monkeypatch)
    found = fast_segmenter()(HEAD.image, HEAD.mask)
    called = log.read_text().split()
    assert "--class" in called or any(a.startswith("--class") for a in called)
    assert called[called.index("-t") + 1] == "1"
    inside = found.tissues.prob.sum(0)
    assert torch.allclose(inside, HEAD.mask.float())
    values = HEAD.image.data
    assert bool((found.tissues.of("WM") == ((values > 0.9) & HEAD.mask)).all())
    assert found.method == "FSL FAST"
    assert found.mean[0] < found.mean[1] < found.mean[2]


def test_fast_without_its_output_says_so(tmp_path, monkeypatch):
    install_fast(tmp_path, monkeypatch, n_maps=2)
    with pytest.raises(BadInputError, match="without writing out_pve_2"):
        fast_segmenter()(HEAD.image, HEAD.mask)


def test_fast_without_fsl_says_what_to_do(monkeypatch):
    monkeypatch.delenv("FSLDIR", raising=False)
    with pytest.raises(MissingExtraError, match="FSLDIR is not set"):
        fast_segmenter()


def test_fast_knows_no_flair():
    with pytest.raises(BadInputError, match="T1w and T2w"):
        fast_segmenter(FLAIR_ORDER)


@pytest.mark.parametrize(("factory", "package"), [(atropos_segmenter, "ants"), (dipy_segmenter, "dipy")])
def test_a_missing_package_names_its_extra(factory, package, monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    for name in [n for n in sys.modules if n.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setattr("importlib.import_module", lambda name: refuse(name))
    with pytest.raises(MissingExtraError, match=rf'pip install "mrkit\[{package}\]"'):
        factory()


def fake_ants(monkeypatch, maps: list[np.ndarray]) -> None:
    wrapped = [SimpleNamespace(numpy=lambda m=m: m) for m in maps]
    module = ModuleType("ants")
    module.from_numpy = lambda data, spacing: data
    module.atropos = lambda **given: {"probabilityimages": wrapped}
    monkeypatch.setitem(sys.modules, "ants", module)


def shuffled_truth() -> list[np.ndarray]:
    prob = HEAD.tissues.prob.numpy()
    return [prob[2], prob[0], prob[1]]


def test_atropos_classes_are_named_by_brightness(monkeypatch):
    fake_ants(monkeypatch, shuffled_truth())
    found = atropos_segmenter(T1W_ORDER)(HEAD.image, HEAD.mask)
    assert torch.allclose(found.tissues.prob, HEAD.tissues.prob * HEAD.mask, atol=1e-3)
    swapped = atropos_segmenter(T2W_ORDER)(HEAD.image, HEAD.mask)
    assert torch.allclose(swapped.tissues.of("CSF"), found.tissues.of("WM"))


def test_classes_that_are_not_numbers_are_refused(monkeypatch):
    maps = shuffled_truth()
    maps[1] = np.full_like(maps[1], np.nan)
    fake_ants(monkeypatch, maps)
    with pytest.raises(BadInputError, match="not numbers"):
        atropos_segmenter()(HEAD.image, HEAD.mask)


def test_an_empty_class_is_refused(monkeypatch):
    maps = shuffled_truth()
    fake_ants(monkeypatch, [maps[0], maps[1] + maps[2], 0 * maps[2]])
    with pytest.raises(BadInputError, match="found no"):
        atropos_segmenter()(HEAD.image, HEAD.mask)


def test_a_brain_left_without_tissue_is_refused(monkeypatch):
    fake_ants(monkeypatch, [0.2 * m for m in shuffled_truth()])
    with pytest.raises(BadInputError, match="without a tissue"):
        atropos_segmenter()(HEAD.image, HEAD.mask)


def test_dipy_gets_double_precision(monkeypatch):
    given = {}

    class Classifier:
        def __init__(self, verbose):
            given["verbose"] = verbose

        def classify(self, image, n_classes, beta):
            given.update(dtype=image.dtype, outside=float(np.abs(image[~HEAD.mask.numpy()]).max()))
            return None, None, np.moveaxis(np.stack(shuffled_truth()), 0, -1)

    module = ModuleType("dipy.segment.tissue")
    module.TissueClassifierHMRF = Classifier
    monkeypatch.setitem(sys.modules, "dipy", ModuleType("dipy"))
    monkeypatch.setitem(sys.modules, "dipy.segment", ModuleType("dipy.segment"))
    monkeypatch.setitem(sys.modules, "dipy.segment.tissue", module)
    found = dipy_segmenter()(HEAD.image, HEAD.mask)
    assert given == {"verbose": False, "dtype": np.dtype("float64"), "outside": 0.0}
    assert found.method == "dipy HMRF"
