"""An extra that needs NumPy 1.x resolves in one lockfile with packages that need NumPy 2."""

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[2]
EXTRA = '{ package = "tenfold-old", extra = "old" }'
MEMBER = """\
[project]
name = "tenfold-old"
version = "0.0.0"
requires-python = ">=3.11"
dependencies = ["tenfold-shared"]

[project.optional-dependencies]
old = ["numpy<2; python_version < '3.13'"]

[build-system]
requires = ["uv_build>=0.9,<1"]
build-backend = "uv_build"
"""


@pytest.mark.slow  # asks the package index about every dependency
def test_an_extra_for_numpy_1_lives_beside_the_packages(tmp_path):
    if not (HERE / "uv.lock").is_file():
        pytest.skip("needs the whole workspace, not the wheel alone")
    for path in (HERE / "uv.lock", HERE / "pyproject.toml", *HERE.glob("*/pyproject.toml")):
        _copy(path, tmp_path)
    members = list((HERE / "packages").glob("*/pyproject.toml"))
    for path in members:
        _copy(path, tmp_path)
    pairs = []
    for path in members:
        project = tomllib.loads(path.read_text(encoding="utf-8"))
        name = project["project"]["name"]
        pairs.append(f'[{EXTRA}, {{ package = "{name}" }}]')
        if any(str(need).startswith(f"{name}[") for need in project["dependency-groups"]["dev"]):
            pairs.append(f'[{EXTRA}, {{ package = "{name}", group = "dev" }}]')
    root = tmp_path / "pyproject.toml"
    text = root.read_text(encoding="utf-8")
    assert "conflicts = [" in text
    root.write_text(text.replace("conflicts = [", f"conflicts = [{', '.join(pairs)}, "), "utf-8")
    old = tmp_path / "packages" / "old" / "pyproject.toml"
    old.parent.mkdir()
    old.write_text(MEMBER, encoding="utf-8")
    made = subprocess.run(["uv", "lock"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stderr
    lock = tomllib.loads((tmp_path / "uv.lock").read_text(encoding="utf-8"))
    found = {
        package["version"].split(".")[0]
        for package in lock["package"]
        if package["name"] == "numpy"
    }
    assert found == {"1", "2"}


def _copy(path: Path, root: Path) -> None:
    target = root / path.relative_to(HERE)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)
