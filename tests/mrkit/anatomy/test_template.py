"""The template of nilearn, and its place in the scanner."""

import pytest
import torch

from mrcore.data.volume import TISSUES
from mrcore.errors import MissingExtraError
from mrkit.anatomy import template
from mrkit.anatomy.template import load_template


@pytest.fixture(scope="module")
def loaded():
    pytest.importorskip("nilearn", reason="the template comes with nilearn")
    return load_template()


def test_template_is_a_brain_of_plausible_size(loaded):
    assert loaded.t1.grid.spacing_mm == (1.0, 1.0, 1.0)
    assert loaded.t1.grid.orientation == "RAS"
    assert 1.5e6 < float(loaded.mask.sum()) < 2.1e6
    # The origin of MNI space, near the anterior commissure, is inside the brain.
    assert bool(loaded.mask[98, 134, 72])


def test_tissues_fill_the_brain_and_nothing_else(loaded):
    total = loaded.tissues.prob.sum(0)
    assert torch.allclose(total[loaded.mask], torch.ones(()), atol=1e-5)
    assert float(total[~loaded.mask].abs().max()) == 0
    means = [float((loaded.t1.data * p).sum() / p.sum()) for p in loaded.tissues.prob]
    assert means == sorted(means)
    assert loaded.tissues.names == TISSUES


def test_missing_nilearn_is_said_with_its_cure(monkeypatch):
    monkeypatch.setattr(template, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r'pip install "mrkit\[demo\]"'):
        load_template()
