"""The wheel holds every file of the package that git tracks; .ci/wheel builds one and uses it."""

import subprocess
import tomllib
from pathlib import Path

import bestofn

PACKAGE = Path(bestofn.__file__).parent
ROOT = PACKAGE.parent


def tracked() -> set[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "bestofn"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {ROOT / name for name in listed.stdout.split("\0") if name}


def declared() -> set[Path]:
    """The files that the patterns of pyproject.toml find, each within its package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]
    return {
        file
        for package, globs in patterns.items()
        for pattern in globs
        for file in (ROOT / package.replace(".", "/")).glob(pattern)
        if file.suffix != ".py"
    }


def test_files_that_are_no_code_are_declared_as_data() -> None:
    data = {file for file in tracked() if file.suffix != ".py"}
    assert {file.name for file in data} > {"page.css", "page.html.jinja", "py.typed"}
    assert data == declared()


def test_every_folder_with_code_is_a_package() -> None:
    folders = {file.parent for file in tracked() if file.suffix == ".py"}
    assert {folder for folder in folders if not (folder / "__init__.py").exists()} == set()
