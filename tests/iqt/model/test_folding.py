import pytest
import torch

from iqt.model.folding import fold, unfold
from mrcore.errors import BadInputError


def test_neighbours_of_a_voxel_become_its_channels():
    image = torch.arange(4 * 4 * 10.0).reshape(1, 1, 4, 4, 10)
    folded = fold(image, (2, 2, 5))
    assert folded.shape == (1, 20, 2, 2, 2)
    assert sorted(folded[0, :, 1, 0, 1].tolist()) == sorted(image[0, 0, 2:4, 0:2, 5:10].reshape(-1).tolist())


def test_unfold_undoes_fold_channel_by_channel():
    images = torch.randn((2, 3, 4, 6, 10), generator=torch.Generator().manual_seed(0))
    assert torch.equal(unfold(fold(images, (2, 3, 5)), (2, 3, 5)), images)


def test_other_sizes_are_refused():
    with pytest.raises(BadInputError, match="multiples"):
        fold(torch.zeros((1, 1, 4, 4, 9)), (2, 2, 5))
