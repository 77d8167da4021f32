"""The house: public names, what an import loads, the size of rooms."""

import ast
import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("mrcore", "ulfsim", "inr", "recon", "iqt", "mrkit")
PUBLIC = [
    ".".join(path.parent.relative_to(ROOT).parts) for name in PACKAGES for path in (ROOT / name).rglob("__init__.pyi")
]
SOURCES = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def imports(code: str) -> list[tuple[str, str]]:
    """Return (module, name) of what code takes from the packages; an imported module has the name ''."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
    return [(module, name) for module, name in found if module.partition(".")[0] in PACKAGES]


def loaded(code: str, *names: str) -> set[str]:
    """Return which of the packages `names` are loaded once `code` has run in a process of its own."""
    code = f"import sys\n{code}\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return {word.partition(".")[0] for word in done.stdout.splitlines()[-1].split()} & set(names)


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names_resolve_and_are_documented(package):
    module = importlib.import_module(package)
    names = module.__all__
    assert names == sorted(set(names), key=names.index)
    for name in names:
        value = getattr(module, name)
        assert not isinstance(value, ModuleType), f"{package}.{name} is hidden by a module of its name"
        if inspect.isfunction(value) or inspect.isclass(value):
            assert value.__doc__, f"{package}.{name} has no docstring"
    with pytest.raises(AttributeError):
        _ = module.no_such_name


def test_public_records_of_arrays_have_a_short_repr():
    """The `repr` of a dataclass would print every number."""
    modules = [importlib.import_module(package) for package in PUBLIC]
    public = [getattr(module, name) for module in modules for name in module.__all__]
    records = [cls for cls in public if inspect.isclass(cls) and dataclasses.is_dataclass(cls)]
    arrays = [cls for cls in records if any("Tensor" in str(f.type) for f in dataclasses.fields(cls))]
    assert len(arrays) > 20
    for cls in arrays:
        made_by_dataclass = inspect.unwrap(cls.__repr__).__code__.co_filename == "<string>"
        assert not made_by_dataclass, cls.__name__


def test_every_package_has_a_door():
    assert set(PACKAGES) <= set(PUBLIC)


@pytest.mark.parametrize("path", [*EXAMPLES, *DOCUMENTS], ids=lambda path: path.name)
def test_examples_and_documents_use_public_names_only(path):
    text = path.read_text()
    blocks = [text] if path.suffix == ".py" else re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for module, name in (each for block in blocks for each in imports(block)):
        assert module in PUBLIC, f"{path.name} imports from {module}"
        assert not name or name in importlib.import_module(module).__all__, f"{module}.{name} is not public"


def test_links_in_the_documents_lead_somewhere():
    for path in (*DOCUMENTS, ROOT / "CONTRIBUTING.md"):
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
            if not link.startswith("http"):
                assert (path.parent / link).exists(), f"{path.name}: {link}"


@pytest.mark.parametrize("folder", sorted({path.parent for path in SOURCES}), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_folder_can_be_taken_in(folder):
    files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert len(files) <= 13
    for path in files:
        assert len(path.read_text().splitlines()) <= 400, path


@pytest.mark.parametrize(
    ("code", "never"),
    [
        ("import mrkit, mrcore, ulfsim, inr, recon", ("torch", "numpy", "nibabel", "scipy")),
        ("from mrkit.cli import build_parser; build_parser().format_help()", ("torch", "numpy", "nibabel", "scipy")),
        ("from mrkit import quantify", ("inr", "ulfsim")),
        ("from mrkit import measure", ("inr", "recon")),
        ("from mrkit import superresolve", ("recon",)),
        ("from mrkit import simulate_ulf", ("recon", "inr")),
    ],
)
def test_an_import_loads_no_more_than_it_needs(code, never):
    assert loaded(code, *never) == set()
