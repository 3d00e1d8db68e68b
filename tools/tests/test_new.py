import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tenfold_tools.check import check
from tenfold_tools.errors import CommandError, InputError
from tenfold_tools.new import new
from tenfold_tools.workspace import Workspace

HERE = Path(__file__).resolve().parents[2]  # the workspace that these tests belong to
PAPER = {"title": 'A "Paper" on C:\\graphs, it\'s ' + "very " * 20 + "long", "arxiv": "2301.01098"}


def make(repository, name="l2w-den", **more):
    return new(repository.workspace, name, **(PAPER | {"lock": False} | more))


def test_the_package_breaks_no_rule(repository):
    made = make(repository, authors="A. Person", venue="AAAI 2023")
    assert made.distribution == "tenfold-l2w-den"
    assert made.module == "tenfold.l2w_den"
    assert made.folder == "packages/l2w-den"
    assert all((repository.root / file).is_file() for file in made.files)
    findings = check(repository.workspace)
    assert [item.message for item in findings] == ["does not know tenfold-l2w-den; run `uv lock`"]


def test_texts_survive_quoting(repository):
    make(repository)
    folder = repository.root / "packages/l2w-den"
    source = folder / "src/tenfold/l2w_den"
    title = " ".join(PAPER["title"].split())
    assert tomllib.loads((source / "published.toml").read_text())["source"]["title"] == title
    assert tomllib.loads((folder / "pyproject.toml").read_text())["project"]["description"] == title
    line = (source / "cli.py").read_text().split("PAPER = ", 1)[1].split("\n\napp", 1)[0]
    assert eval(line) == title
    compile((source / "__init__.py").read_text(), "__init__.py", "exec")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "L2W"}, "lower-case"),
        ({"name": "l2w_den"}, "lower-case"),
        ({"name": "l2w--den"}, "lower-case"),
        ({"name": "-l2w"}, "lower-case"),
        ({"name": "2l"}, "lower-case"),
        ({"name": "../l2w"}, "lower-case"),
        ({"name": ""}, "lower-case"),
        ({"name": "shared"}, "is taken"),
        ({"name": "class"}, "is taken"),
        ({"name": "one"}, "packages/one exists already"),
        ({"title": "  "}, "--title is empty"),
        ({"title": "bell \a"}, "printable"),
        ({"arxiv": "https://arxiv.org/abs/2301.01098"}, "--arxiv"),
        ({"owner": "someone"}, "--owner"),
    ],
)
def test_wrong_arguments_are_refused_and_leave_nothing(repository, changed, message):
    before = repository.files()
    arguments = PAPER | {"name": "fresh", "lock": False} | changed
    with pytest.raises(InputError, match=message):
        new(repository.workspace, **arguments)
    assert repository.files() == before


def test_a_failure_leaves_nothing_behind(repository):
    repository.write(".github/CODEOWNERS", "* @all\n")
    repository.replace("shared/pyproject.toml", "dependencies = []", 'dependencies = ["no==such"]')
    before = repository.files()
    with pytest.raises(CommandError, match="uv lock"):
        make(repository, lock=True)
    assert repository.files() == before
    assert not (repository.root / "packages/l2w-den").exists()


def test_lists_are_updated(repository):
    table = "| package | paper | state |\n|---|---|---|\n| [one](packages/one) | P | done |\n"
    text = f"# Work\n<!-- packages:begin -->\n{table}<!-- packages:end -->\n"
    repository.write("README.md", text)
    repository.write(".github/CODEOWNERS", "# Who\n* @all\n")
    path = '[tool.mypy]\nmypy_path = "shared/src:tools/src:packages/one/src:packages/two/src"\n'
    repository.replace("pyproject.toml", "[tool.ruff]", f"{path}[tool.ruff]")
    made = make(repository, "three", title="A | B")
    assert made.changed == ("README.md", "pyproject.toml", ".github/CODEOWNERS")
    row = "| [three](packages/three) | A \\| B |  |\n<!-- packages:end -->"
    assert row in (repository.root / "README.md").read_text()
    assert (repository.root / ".github/CODEOWNERS").read_text().endswith("/packages/three/ @all\n")
    assert not [item for item in check(repository.workspace) if item.rule == "types"]


def test_a_planned_row_becomes_a_link(repository):
    head = "<!-- packages:begin -->\n| package | paper | state |\n|---|---|---|\n"
    rows = "| `den` | D | planned |\n| `l2w-den` | {} |\n<!-- packages:end -->\n"
    repository.write("README.md", head + rows.format("P | planned"))
    make(repository, owner="@someone")
    linked = rows.format("P | 0.0.0").replace("`l2w-den`", "[`l2w-den`](packages/l2w-den)")
    assert (repository.root / "README.md").read_text() == head + linked


def test_the_readme_of_this_workspace_marks_its_table():
    if not (HERE / "README.md").is_file():
        pytest.skip("needs the whole workspace, not the wheel alone")
    text = (HERE / "README.md").read_text(encoding="utf-8")
    assert text.index("<!-- packages:begin -->") < text.index("| `cmt` |")
    assert text.index("| `cmt` |") < text.index("<!-- packages:end -->")


@pytest.mark.slow  # trains, draws and resolves: about half a minute
def test_the_package_passes_lint_types_and_its_tests(tmp_path):
    if not (HERE / "uv.lock").is_file():
        pytest.skip("needs the whole workspace, not the wheel alone")
    root = tmp_path / "work"
    skipped = shutil.ignore_patterns(".*", "__pycache__", "runs", "dist")
    shutil.copytree(HERE, root, ignore=skipped)
    for kept in (HERE / "packages").iterdir():  # the new one must not need them
        shutil.rmtree(root / "packages" / kept.name, ignore_errors=True)
    (root / "packages").mkdir(exist_ok=True)
    made = new(Workspace.find(root), "l2w-den", **PAPER)
    environment = os.environ | {"UV_PROJECT_ENVIRONMENT": str(tmp_path / "environment")}
    environment.pop("VIRTUAL_ENV", None)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def run(*command):
        answer = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, check=False
        )
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout

    run("uv", "sync", "--locked", "--package", made.distribution)
    out = run("uv", "run", "--no-sync", "--package", made.distribution, "pytest", made.folder)
    assert " passed" in out
    run("uvx", "ruff", "check", made.folder, "shared/src")
    run("uvx", "ruff", "format", "--check", made.folder)
    python = str(tmp_path / "environment" / "bin" / "python")
    run("uvx", "mypy", "--python-executable", python, f"{made.folder}/src")
    findings = check(Workspace.find(root))
    assert not [item for item in findings if item.path.startswith((made.folder, "uv.lock"))]
