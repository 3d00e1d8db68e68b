import os
import subprocess
from pathlib import Path

import pytest

from tenfold_tools.workspace import Workspace

ROOT_PYPROJECT = """\
[project]
name = "tenfold"
version = "0"
requires-python = ">=3.11"

[tool.uv]
package = false

[tool.uv.workspace]
members = ["packages/*", "shared", "tools"]

[tool.uv.sources]
tenfold-shared = { workspace = true }

[tool.ruff]
line-length = 100

[tool.pytest.ini_options]
addopts = "-ra"
"""

LOCK_HEAD = """\
version = 1
requires-python = ">=3.11"

[manifest]
members = ["tenfold-one", "tenfold-shared", "tenfold-tools", "tenfold-two"]
"""


class Repository:
    """A small workspace in a git repository."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def replace(self, path: str, old: str, new: str) -> None:
        text = (self.root / path).read_text(encoding="utf-8")
        assert old in text
        self.write(path, text.replace(old, new))

    def git(self, *words: str) -> str:
        command = ["git", "-c", "user.name=T", "-c", "user.email=t@example.org", *words]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        return subprocess.run(
            command, cwd=self.root, env=environment, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self, message: str = "change") -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def lock(self, **changed: str) -> None:
        self.write("uv.lock", lockfile(**changed))

    @property
    def workspace(self) -> Workspace:
        return Workspace.find(self.root)

    def files(self) -> dict[str, bytes]:
        """Everything but git's own files."""
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and ".git" not in path.relative_to(self.root).parts
        }


def pyproject(name: str, module: str, dependencies: str = "", more: str = "") -> str:
    """A member's `pyproject.toml` that breaks no rule."""
    return f"""\
[project]
name = "tenfold-{name}"
version = "0.1.0"
description = "A member."
readme = "README.md"
license = "Apache-2.0"
requires-python = ">=3.11"
dependencies = [{dependencies}]
{more}
[dependency-groups]
dev = ["pytest>=8.4"]

[build-system]
requires = ["uv_build>=0.9,<1"]
build-backend = "uv_build"

[tool.uv.build-backend]
module-name = "{module}"
"""


def locked(name: str, version: str, dependencies: str = "", source: str = "") -> str:
    """One `[[package]]` of a lockfile."""
    source = source or 'registry = "https://pypi.org/simple"'
    return f"""
[[package]]
name = "{name}"
version = "{version}"
source = {{ {source} }}
dependencies = [{dependencies}]
"""


def lockfile(torch: str = "2.9.0", numpy_new: str = "2.4.0", marker: str = "< '3.12'") -> str:
    """A lockfile: one → shared, torch → sympy; two → numpy (two versions), torch[fast]."""
    group = '[package.dev-dependencies]\ndev = [{ name = "pytest" }]\n'
    old = (
        f'{{ name = "numpy", version = "1.26.0", marker = "python_full_version {marker}", '
        'source = { registry = "https://pypi.org/simple" } }'
    )
    new = (
        f'{{ name = "numpy", version = "{numpy_new}", '
        "marker = \"python_full_version >= '3.12'\", "
        'source = { registry = "https://pypi.org/simple" } }'
    )
    return "".join(
        [
            LOCK_HEAD,
            locked("numpy", "1.26.0"),
            locked("numpy", numpy_new),
            locked("pytest", "8.4.0"),
            locked("sympy", "1.14.0"),
            locked("torch", torch, '{ name = "sympy" }')
            + '[package.optional-dependencies]\nfast = [{ name = "triton" }]\n',
            locked("triton", "3.0.0"),
            locked("unused", "1.0.0"),
            locked("tenfold-shared", "0.1.0", "", 'editable = "shared"') + group,
            locked("tenfold-tools", "0.1.0", "", 'editable = "tools"') + group,
            locked(
                "tenfold-one",
                "0.1.0",
                '{ name = "tenfold-shared" }, { name = "torch" }',
                'editable = "packages/one"',
            )
            + group,
            locked(
                "tenfold-two",
                "0.1.0",
                f'{{ name = "tenfold-shared" }}, {old}, {new}',
                'editable = "packages/two"',
            )
            + '[package.optional-dependencies]\nlarge = [{ name = "torch", extra = ["fast"] }]\n'
            + group,
        ]
    )


CHANGELOG = """\
# Changelog

## [Unreleased]

### Added

- Something.

## [0.1.0] - 2026-01-02

### Added

- The beginning.
"""


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A workspace with shared, tools and the packages one and two, which breaks no rule."""
    made = Repository(tmp_path / "work")
    made.root.mkdir()
    made.write("pyproject.toml", ROOT_PYPROJECT)
    made.write("uv.lock", lockfile())
    made.write("README.md", "# Work\n\n<!-- results:begin -->\n<!-- results:end -->\n")
    made.write(".gitignore", "runs/\n.venv/\n.venvs/\n__pycache__/\n")
    for name, module in (("shared", "tenfold/shared"), ("tools", "tenfold_tools")):
        made.write(f"{name}/pyproject.toml", pyproject(name, module.replace("/", ".")))
        made.write(f"{name}/src/{module}/__init__.py", '"""A member."""\n')
    for name in ("one", "two"):
        points = f'\n[project.entry-points.tenfold]\n{name} = "tenfold.{name}.cli:app"\n'
        folder = f"packages/{name}"
        text = pyproject(name, f"tenfold.{name}", '"tenfold-shared>=0.1"', points)
        made.write(f"{folder}/pyproject.toml", text)
        source = f"{folder}/src/tenfold/{name}"
        made.write(f"{source}/__init__.py", '"""A package."""\n')
        made.write(f"{source}/cli.py", "import tenfold.shared\n\napp = tenfold.shared\n")
        made.write(f"{source}/published.toml", '[source]\ntitle = "A paper"\n')
        made.write(f"{source}/recipes/cora.toml", "epochs = 1\n")
        made.write(f"{folder}/benchmarks/speed.py", "")
    for member in made.workspace.members:
        made.write(f"{member.folder}/README.md", "# A member\n")
        made.write(f"{member.folder}/CHANGELOG.md", CHANGELOG)
        made.write(f"{member.folder}/tests/test_{member.name}.py", "def test(): pass\n")
        (member.source / "py.typed").write_text("")
    made.git("init", "--quiet", "--initial-branch", "main")
    made.commit("first")
    return made
