"""Arrays of MATLAB files: version 5 to 7.2 by scipy, version 7.3, which is HDF5, by h5py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from mrcore.errors import MissingExtraError

_HDF5 = b"\x89HDF\r\n\x1a\n"
_USER_BLOCK = 512  # bytes of MATLAB's own header before that of HDF5


def mat_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the numeric arrays of a MATLAB file by name, fields of structures by the name of the field.

    Of several with one name the first is returned.

    Raises:
        MissingExtraError: a file of version 7.3, and h5py is not installed.
        Exception: whatever scipy or h5py raise for files that are damaged.
    """
    found: dict[str, NDArray[Any]] = {}
    for name, values in _of_hdf5(path) if _is_hdf5(path) else _of_fields(loadmat(path)):
        found.setdefault(name, values)
    return found


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(_USER_BLOCK + len(_HDF5))
    return start.startswith(_HDF5) or start.endswith(_HDF5)


def _of_fields(fields: Mapping[str, Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    for name, values in fields.items():
        if not isinstance(values, np.ndarray):
            continue
        if values.dtype.names and values.size == 1:
            record = values.reshape(-1)[0]
            yield from _of_fields({field: record[field] for field in values.dtype.names})
        elif np.issubdtype(values.dtype, np.number):
            yield name, values


def _of_hdf5(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    try:
        h5py: Any = import_module("h5py")
    except ImportError as error:
        raise MissingExtraError("MATLAB files of version 7.3 need h5py: pip install 'mrkit[ismrmrd]'") from error
    with h5py.File(path, "r") as file:
        yield from _of_group(file)


def _of_group(group: Any) -> Iterator[tuple[str, NDArray[Any]]]:  # noqa: ANN401  a library without types
    for name, item in group.items():
        if name.startswith("#"):  # what cells refer to
            continue
        if hasattr(item, "items"):
            yield from _of_group(item)
        elif item.attrs.get("MATLAB_class", b"double") not in (b"char", b"cell", b"logical", b"function_handle"):
            values = item[()]
            if values.dtype.names == ("real", "imag"):
                values = values["real"] + 1j * values["imag"]
            if np.issubdtype(values.dtype, np.number):
                yield name, np.asarray(values).T  # MATLAB counts along the first axis first
