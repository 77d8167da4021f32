"""Tissues that contradict the image for which they were given."""

import itertools

import pytest
import torch
from operators import grid

from mrcore.data.volume import TISSUES, TissueMap, Volume
from mrcore.errors import BadInputError, GridMismatchError
from mrcore.phantom import digital_head, head_grid
from mrcore.segmentation.plausibility import require_order
from mrcore.segmentation.tissues import FLAIR_ORDER, T1W_ORDER, T2W_ORDER

LEVELS = {T1W_ORDER: (0.3, 0.7, 1.0), T2W_ORDER: (1.0, 0.6, 0.4), FLAIR_ORDER: (0.2, 1.0, 0.8)}


@pytest.fixture(scope="module")
def head():
    return digital_head(head_grid(32), seed=1)


def image_of(head, levels):
    signal = (head.tissues.prob * torch.tensor(levels)[:, None, None, None]).sum(0)
    noise = 0.05 * torch.randn(signal.shape, generator=torch.Generator().manual_seed(0))
    return Volume(signal + noise, head.grid)


@pytest.mark.parametrize("order", LEVELS)
def test_only_the_right_meaning_fits(head, order):
    image = image_of(head, LEVELS[order])
    for named in itertools.permutations(range(3)):
        given = TissueMap(head.tissues.prob[list(named)], TISSUES, head.grid)
        if named == (0, 1, 2):
            require_order(image, given, order, "the labels")
            continue
        with pytest.raises(BadInputError, match="the labels do not fit the image") as error:
            require_order(image, given, order, "the labels")
        meant = ", ".join(f"{TISSUES[i]} is {TISSUES[real]}" for i, real in enumerate(named))
        assert f"what was taken as {meant}" in str(error.value)


def test_tissues_that_are_alike_have_no_order(head):
    image = image_of(head, (0.3, 1.0, 0.99))
    require_order(image, head.tissues, T1W_ORDER, "the labels")
    require_order(image, head.tissues, FLAIR_ORDER, "the labels")


def test_another_grid_is_refused(head):
    image = Volume(torch.ones(4, 4, 4), grid((4, 4, 4), (2.0, 2.0, 2.0)))
    with pytest.raises(GridMismatchError, match="the labels"):
        require_order(image, head.tissues, T1W_ORDER, "the labels")
