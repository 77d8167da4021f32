"""The device of fits: what is there is taken, what is not is refused with what there is."""

import pytest
import torch

from mrcore.errors import BadInputError
from mrkit.devices import device_of


def test_the_cpu_is_always_there():
    assert device_of("cpu") == device_of(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["meta", "cuda:99", "graphics card"])
def test_what_is_not_there_is_refused(name):
    with pytest.raises(BadInputError, match=rf"the device '{name}' cannot be used here: .*this machine has cpu"):
        device_of(name)
