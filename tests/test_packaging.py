"""The package as it is installed: quick to import, complete, and made of the folders that the repository has."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import neurallib

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def folder_of(package: str, project: dict[str, Any]) -> Path:
    """Where the modules of a package lie in the repository, as setuptools maps them."""
    mapping = project["tool"]["setuptools"]["package-dir"]
    parts = package.split(".")
    for length in range(len(parts), 0, -1):
        parent = ".".join(parts[:length])
        if parent in mapping:
            return ROOT.joinpath(mapping[parent], *parts[length:])
    raise AssertionError(f"{package} has no folder")


def test_import_is_quick_and_light() -> None:
    script = "import sys, time; t = time.perf_counter(); import neurallib\n"
    script += "print(time.perf_counter() - t, *sorted({'torch', 'transformers', 'numpy', 'typer'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    seconds, *heavy = done.stdout.split()
    assert heavy == []
    # A few milliseconds alone on a core; machines that run tests are busy.
    assert float(seconds) < 0.5


def test_every_public_name_is_there() -> None:
    for name in neurallib.__all__:
        assert getattr(neurallib, name) is not None
    assert set(neurallib.__all__) <= set(dir(neurallib))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = neurallib.nothing


def test_the_auto_classes_know_the_model_type() -> None:
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    config = neurallib.NeuralLibConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=300)
    assert type(AutoConfig.for_model("neurallib")) is neurallib.NeuralLibConfig
    # The configuration alone is enough to know the classes: they are not built here.
    assert AutoModel._model_mapping[type(config)] is neurallib.NeuralLibModel
    assert AutoModelForCausalLM._model_mapping[type(config)] is neurallib.NeuralLibForCausalLM


def test_every_folder_of_modules_is_a_listed_package(project: dict[str, Any]) -> None:
    packages = project["tool"]["setuptools"]["packages"]
    folders = {package: folder_of(package, project) for package in packages}
    for package, folder in folders.items():
        assert (folder / "__init__.py").is_file(), f"{package} is listed, but {folder} is no package"
        importlib.import_module(package)
    top = {folder.relative_to(ROOT).parts[0] for folder in folders.values()}
    found = {path.parent for name in top for path in (ROOT / name).rglob("*.py")}
    assert found == set(folders.values())


def test_one_version(project: dict[str, Any]) -> None:
    assert project["project"]["version"] == neurallib.__version__


def test_everything_that_is_no_module_is_package_data(project: dict[str, Any]) -> None:
    packages = project["tool"]["setuptools"]["packages"]
    data = project["tool"]["setuptools"]["package-data"]
    kept = set()
    for package, patterns in data.items():
        assert package in packages
        for pattern in patterns:
            kept |= {path for path in folder_of(package, project).glob(pattern) if path.is_file()}
    for package in packages:
        for path in folder_of(package, project).rglob("*"):
            if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts:
                assert path in kept, f"{path.relative_to(ROOT)} is in no package-data pattern, so no wheel has it"


@pytest.mark.slow
def test_a_wheel_has_every_module_and_all_data(tmp_path: Path, project: dict[str, Any]) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, ROOT],
        check=True,
        capture_output=True,
        timeout=300,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in project["tool"]["setuptools"]["packages"]:
        folder = folder_of(package, project)
        for path in folder.glob("*.py"):
            assert f"{package.replace('.', '/')}/{path.name}" in names
    assert "neurallib/model_cards/templates/explanation.html.jinja" in names
    assert "neurallib/modeling_neurallib/shipped/standard_library/library.safetensors" in names
