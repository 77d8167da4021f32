import subprocess
import sys

import pytest
import torch
from safetensors import safe_open

from mrcore.errors import BadInputError
from mrcore.io.tensors import save_tensors

FACTS = {f"key {n}": f"value {n} \N{MICRO SIGN}" for n in range(12)}
TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor([1, 2], dtype=torch.int16)}


def test_tensors_and_facts_are_read_back(tmp_path):
    save_tensors(TENSORS, tmp_path / "t.safetensors", FACTS)
    with safe_open(tmp_path / "t.safetensors", "pt") as file:
        assert file.metadata() == FACTS
        for name, tensor in TENSORS.items():
            assert torch.equal(file.get_tensor(name), tensor)
            assert file.get_tensor(name).dtype == tensor.dtype


def test_the_same_bytes_in_any_order_and_in_another_process(tmp_path):
    save_tensors(TENSORS, tmp_path / "one.safetensors", FACTS)
    other = dict(reversed(FACTS.items()))
    save_tensors(dict(reversed(TENSORS.items())), tmp_path / "two.safetensors", other)
    code = (
        "import sys, torch; from pathlib import Path; from mrcore.io.tensors import save_tensors\n"
        "facts = {f'key {n}': f'value {n} \\N{MICRO SIGN}' for n in range(12)}\n"
        "tensors = {'b': torch.arange(6.0).reshape(2, 3), 'a': torch.tensor([1, 2], dtype=torch.int16)}\n"
        "save_tensors(tensors, Path(sys.argv[1]), facts)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "three.safetensors")], check=True)
    files = [(tmp_path / f"{name}.safetensors").read_bytes() for name in ("one", "two", "three")]
    assert files[0] == files[1] == files[2]


def test_views_of_one_tensor_are_written_whole(tmp_path):
    whole = torch.arange(24.0).reshape(4, 6)
    save_tensors({"t": whole.T, "part": whole[1:3, ::2]}, tmp_path / "t.safetensors", {})
    with safe_open(tmp_path / "t.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("t"), whole.T)
        assert torch.equal(file.get_tensor("part"), whole[1:3, ::2])


def test_nothing_is_overwritten_unasked(tmp_path):
    path = tmp_path / "t.safetensors"
    save_tensors({"a": torch.ones(2)}, path, {})
    before = path.read_bytes()
    with pytest.raises(BadInputError, match="exists"):
        save_tensors({"a": torch.zeros(2)}, path, {})
    assert path.read_bytes() == before
    save_tensors({"a": torch.zeros(2)}, path, {}, force=True)
    assert path.read_bytes() != before
