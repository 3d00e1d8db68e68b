import pytest

from tenfold_tools.check import check


def test_the_small_workspace_breaks_no_rule(repository):
    assert check(repository.workspace) == []


def only(repository):
    findings = check(repository.workspace)
    assert len(findings) == 1, findings
    return findings[0]


@pytest.mark.parametrize(
    ("path", "text", "line", "rule", "message"),
    [
        ("packages/one/src/tenfold/__init__.py", "", 1, "namespace", "delete this file"),
        ("shared/src/tenfold/__init__.py", "", 1, "namespace", "delete this file"),
        ("packages/one/src/tenfold/one/utils.py", "", 1, "names", "utils.py"),
        ("packages/one/src/tenfold/one/misc/__init__.py", "", 1, "names", "misc"),
        ("shared/src/tenfold/shared/helpers.py", "", 1, "names", "helpers.py"),
        ("packages/one/src/tenfold/one/a.py", "\nimport tenfold.two", 2, "arrows", "tenfold.two"),
        (
            "packages/one/src/tenfold/one/a.py",
            "from tenfold import two",
            1,
            "arrows",
            "tenfold.two",
        ),
        ("packages/one/src/tenfold/one/a.py", "from .. import two", 1, "arrows", "tenfold.two"),
        ("packages/one/src/tenfold/one/a.py", "from ..two import x", 1, "arrows", "tenfold.two.x"),
        ("packages/one/src/tenfold/one/a.py", "def f():\n  import tenfold.no", 2, "arrows", "no"),
        (
            "packages/one/src/tenfold/one/a.py",
            "import importlib as i\ni.import_module('tenfold.two.model')",
            2,
            "arrows",
            "tenfold.two.model",
        ),
        ("packages/one/src/tenfold/one/a.py", "import tenfold_tools", 1, "arrows", "tenfold_tools"),
        ("packages/one/tests/test_a.py", "import tenfold.two", 1, "arrows", "tenfold.two"),
        ("packages/one/benchmarks/a.py", "import tenfold.two", 1, "arrows", "tenfold.two"),
        ("shared/src/tenfold/shared/a.py", "import tenfold.one", 1, "arrows", "no package"),
        ("tools/src/tenfold_tools/a.py", "import tenfold.shared", 1, "arrows", "no other member"),
        ("shared/src/tenfold/shared/a.py", "import tenfold_tools.new", 1, "arrows", "no tools"),
        ("packages/one/src/tenfold/one/a.py", "x = (", 1, "syntax", "is not Python"),
    ],
)
def test_a_file_that_breaks_a_rule(repository, path, text, line, rule, message):
    repository.write(path, text)
    finding = only(repository)
    assert (finding.line, finding.rule) == (line, rule)
    assert message in str(finding)
    assert finding.path == path.removesuffix("/__init__.py") or finding.path == path


@pytest.mark.parametrize(
    "text",
    [
        "import tenfold.one.model",
        "import tenfold.shared.cli",
        "from tenfold import shared",
        "from . import model",
        "from .model import Model",
        "import tenfold",
        "import tenfolder",
    ],
)
def test_imports_that_are_allowed(repository, text):
    repository.write("packages/one/src/tenfold/one/a.py", text)
    assert check(repository.workspace) == []


def test_a_test_may_import_a_package_that_it_makes_up(repository):
    repository.write("shared/tests/test_a.py", "import tenfold.toy")
    assert check(repository.workspace) == []


@pytest.mark.parametrize(
    "text",
    [
        "import torch\ntorch.load(p)",
        "import torch\ntorch.load(p, weights_only=False)",
        "import torch as t\nt.load(p, weights_only=flag)",
        "from torch import load\nload(p)",
        "import numpy as np\nnp.load(p, allow_pickle=True)",
        "import numpy\nnumpy.load(p, allow_pickle=flag)",
        "import pickle\npickle.load(f)",
        "import pickle as p\np.loads(b)",
        "from pickle import Unpickler\nUnpickler(f).load()",
        "import joblib\njoblib.load(p)",
        "import pandas as pd\npd.read_pickle(p)",
    ],
)
def test_loading_that_may_run_code(repository, text):
    repository.write("packages/one/src/tenfold/one/a.py", text)
    finding = only(repository)
    assert (finding.line, finding.rule) == (2, "unsafe-load")


@pytest.mark.parametrize(
    "text",
    [
        "import torch\ntorch.load(p, weights_only=True)",
        "import numpy as np\nnp.load(p)\nnp.load(p, allow_pickle=False)",
        "import pickle\nclass Careful(pickle.Unpickler): pass\nCareful(f).load()",
        "import json\njson.load(f)",
        "model.load(p)",
    ],
)
def test_loading_that_runs_nothing(repository, text):
    repository.write("packages/one/src/tenfold/one/a.py", text)
    assert check(repository.workspace) == []


@pytest.mark.parametrize(
    "path",
    [
        "pyproject.toml-entry",
        "README.md",
        "CHANGELOG.md",
        "src/tenfold/one/py.typed",
        "src/tenfold/one/cli.py",
        "src/tenfold/one/published.toml",
        "src/tenfold/one/recipes/cora.toml",
        "tests/test_one.py",
    ],
)
def test_a_missing_contract_file(repository, path):
    if path == "pyproject.toml-entry":
        repository.replace("packages/one/pyproject.toml", "one.cli:app", "one.main:app")
        assert only(repository).message.startswith("[project.entry-points.tenfold] is")
        return
    (repository.root / "packages/one" / path).unlink()
    finding = only(repository)
    assert finding.rule == "contract"
    assert finding.path in (f"packages/one/{path}", f"packages/one/{path.rsplit('/', 1)[0]}")


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('name = "tenfold-one"', 'name = "tenfold_one"', "name is"),
        ("Apache-2.0", "MIT", "license is 'MIT', expected 'Apache-2.0'"),
        (">=3.11", ">=3.10", "requires-python is"),
        (">=3.11", "*", "requires-python is"),
        ('module-name = "tenfold.one"', 'module-name = "one"', "module-name is"),
        ('build-backend = "uv_build"', 'build-backend = "hatchling.build"', "build-backend is"),
        ('"pytest>=8.4"', '"hypothesis"', "has no pytest"),
        ("A member.", "", "description is missing"),
    ],
)
def test_a_wrong_line_of_pyproject(repository, old, new, key):
    repository.replace("packages/one/pyproject.toml", old, new)
    finding = only(repository)
    assert key in finding.message
    line = (repository.root / finding.path).read_text().splitlines()[finding.line - 1]
    assert key.split(" ")[0] in line or key == "has no pytest"


def test_a_member_may_ask_for_a_newer_python(repository):
    repository.replace("packages/one/pyproject.toml", ">=3.11", ">=3.12,<3.14")
    assert check(repository.workspace) == []


def test_a_dependency_against_the_arrows(repository):
    repository.replace("packages/one/pyproject.toml", '0.1"', '0.1", "tenfold-two"')
    assert only(repository).rule == "arrows"


def test_a_package_needs_shared(repository):
    repository.replace("packages/one/pyproject.toml", '"tenfold-shared>=0.1"', "")
    assert "tenfold-shared is missing" in only(repository).message


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("## [0.1.0]", "## [0.2.0]", "the newest version is 0.2.0, but pyproject.toml says 0.1.0"),
        ("## [0.1.0] - 2026-01-02", "## [0.1.0]", "expected `## [0.1.0] - YYYY-MM-DD`"),
        ("## [Unreleased]\n", "", "the first section is not `## [Unreleased]`"),
    ],
)
def test_the_changelog(repository, old, new, message):
    repository.replace("packages/one/CHANGELOG.md", old, new)
    finding = only(repository)
    assert finding.rule == "changelog"
    assert finding.message == message


def test_a_package_that_was_never_released_has_no_version_in_its_changelog(repository):
    text = (repository.root / "packages/one/CHANGELOG.md").read_text().split("## [0.1.0]")[0]
    repository.write("packages/one/CHANGELOG.md", text)
    assert check(repository.workspace) == []


def test_a_version_that_is_none(repository):
    repository.replace("packages/one/pyproject.toml", 'version = "0.1.0"', 'version = "first"')
    assert only(repository).message == "version is 'first', expected like '1.2.3'"


def test_the_lockfile_takes_everything_from_pypi(repository):
    repository.write(
        "uv.lock",
        (repository.root / "uv.lock").read_text()
        + '\n[[package]]\nname = "a"\nversion = "1"\nsource = { registry = "https://evil.org/" }\n'
        + '\n[[package]]\nname = "b"\nversion = "1"\nsource = { git = "https://evil.org/b" }\n'
        + '\n[[package]]\nname = "c"\nversion = "1"\nsource = { url = "https://evil.org/c.whl" }\n',
    )
    found = check(repository.workspace)
    assert [item.rule for item in found] == ["lock"] * 3
    lines = (repository.root / "uv.lock").read_text().splitlines()
    assert all("evil.org" in lines[item.line - 1] for item in found)


def test_the_lockfile_knows_every_member(repository):
    repository.replace("uv.lock", '"tenfold-two"\nversion', '"tenfold-old"\nversion')
    assert only(repository).message == "does not know tenfold-two; run `uv lock`"


def test_a_missing_lockfile(repository):
    (repository.root / "uv.lock").unlink()
    assert only(repository).message == "is missing; run `uv lock`"


def test_mypy_knows_every_member(repository):
    path = "shared/src:tools/src:packages/one/src"
    repository.replace(
        "pyproject.toml", "[tool.ruff]", f'[tool.mypy]\nmypy_path = "{path}"\n[tool.ruff]'
    )
    assert only(repository).message == "mypy_path lacks packages/two/src"
