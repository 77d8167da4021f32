"""Which sources a result depends on, read off their imports, so that no list has to be kept by hand."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType

from common.store import ROOT, code_version

WEIGHTS = {"mrcore/denoisers/files.py": ("mrcore/denoisers/weights/*.safetensors",)}
"""What modules read beside their code, by patterns from the project's root."""
PACKAGES = ("mrcore", "ulfsim", "inr", "recon", "iqt", "mrkit")


def sources_of(*modules: str, root: Path = ROOT) -> tuple[str, ...]:
    """Return the files (from `root`) of first-party modules and of all that they import, at any depth, sorted.

    A module is named in full, such as `mrcore.io.volumes`; those of benchmarks begin with their folder.
    """
    found: dict[str, None] = {}
    waiting = [file for module in modules for file in _files(module, root)]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found[file] = None
            waiting += [other for module in _imports(root / file) for other in _files(module, root)]
    weights = [w for file in found for w in WEIGHTS.get(file, ())]
    return tuple(sorted({*found, *(p.relative_to(root).as_posix() for w in weights for p in root.glob(w))}))


def version_of(function: Callable[..., object]) -> str:
    """Return a digest of all that decides what `function` does.

    That is its own text; that of the functions, classes and plain values of its file that it names, at any depth; the
    files of the first-party modules from which these are imported, with all that they import; and the versions of
    packages. Another function of the same file does not change it.
    """
    texts: dict[str, str] = {}
    modules: set[str] = set()
    imported = _imported_names(Path(inspect.getfile(function)))
    waiting = [function]
    while waiting:
        code = waiting.pop()
        texts[code.__qualname__] = inspect.getsource(code)
        for name in _names(code.__code__):
            value = code.__globals__.get(name)
            if name in imported:
                modules |= {imported[name]}
            elif inspect.isfunction(value) and value.__qualname__ not in texts:
                waiting.append(value)
            elif inspect.isclass(value) and value.__module__ == function.__module__ and name not in texts:
                texts[name] = inspect.getsource(value)
                waiting += [f for f in _methods(value) if f.__code__.co_filename == function.__code__.co_filename]
            elif isinstance(value, (bool, int, float, str, tuple)):
                texts[name] = repr(value)
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode())
    digest.update(code_version(sources_of(*sorted(modules))).encode())
    return digest.hexdigest()[:20]


def _imported_names(path: Path) -> dict[str, str]:
    """Return the module that each imported name of a file comes from."""
    nodes = [n for n in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(n, ast.ImportFrom) and n.module]
    return {name.asname or name.name: str(node.module) for node in nodes for name in node.names}


def _methods(kind: type) -> Iterator[FunctionType]:
    """Yield methods and getters of a class, those that were generated too."""
    for value in vars(kind).values():
        plain = value.fget if isinstance(value, property) else value
        if isinstance(plain, FunctionType):
            yield plain


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for value in code.co_consts:
        if isinstance(value, CodeType):
            yield from _names(value)


def _files(module: str, root: Path) -> list[str]:
    """Return the file of a module, or none for third-party ones; packages have empty `__init__` or re-export."""
    parts = module.split(".")
    place = Path(*parts) if parts[0] in PACKAGES else Path("benchmarks", *parts)
    candidates = (place.with_suffix(".py"), place / "__init__.py")
    return [candidate.as_posix() for candidate in candidates if (root / candidate).is_file()][:1]


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            # `from package import module` names a file too.
            yield from (f"{node.module}.{name.name}" for name in node.names)
