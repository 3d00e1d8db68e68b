import datetime
import shutil

import pytest

from tenfold_tools.changelog import move_unreleased
from tenfold_tools.check import check
from tenfold_tools.errors import CommandError, InputError
from tenfold_tools.release import bump, release

DAY = datetime.date(2026, 5, 6)


@pytest.mark.parametrize(
    ("level", "expected"), [("patch", "1.2.4"), ("minor", "1.3.0"), ("major", "2.0.0")]
)
def test_bump(level, expected):
    assert bump("1.2.3", level, "here") == expected


@pytest.mark.parametrize("version", ["", "1", "1.2", "1.2.3.4", "1.2.3rc1", "1.2.3+x", "v1.2.3"])
def test_bump_refuses_another_form(version):
    with pytest.raises(InputError, match=r"here: version is .* expected X\.Y\.Z"):
        bump(version, "patch", "here")


def test_move_unreleased():
    text = "# C\n\n## [Unreleased]\n\n- New.\n\n## [0.1.0] - 2026-01-02\n\n- Old.\n"
    expected = (
        "# C\n\n## [Unreleased]\n\n## [0.2.0] - 2026-05-06\n\n- New.\n\n"
        "## [0.1.0] - 2026-01-02\n\n- Old.\n"
    )
    assert move_unreleased(text, "0.2.0", DAY, "C") == expected


def test_the_first_release_of_all():
    moved = move_unreleased("# C\n\n## [Unreleased]\n\n- New.\n", "0.1.0", DAY, "C")
    assert moved == "# C\n\n## [Unreleased]\n\n## [0.1.0] - 2026-05-06\n\n- New.\n"


def test_links_stay_at_the_end():
    text = "## [Unreleased]\n- New.\n\n[0.1.0]: https://example.org\n"
    moved = move_unreleased(text, "0.2.0", DAY, "C")
    assert moved.endswith("- New.\n\n[0.1.0]: https://example.org\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# C\n", "there is no section"),
        ("## [Unreleased]\n\n### Added\n\n## [0.1.0] - 2026-01-02\n", "is empty"),
        ("## [Unreleased]\n- New.\n## [0.2.0] - 2026-01-02\n", "a section for 0.2.0 already"),
    ],
)
def test_a_changelog_that_cannot_be_moved(text, message):
    with pytest.raises(InputError, match=message):
        move_unreleased(text, "0.2.0", DAY, "C")


def test_dry_run_changes_nothing(repository):
    repository.write("packages/one/notes.txt", "not committed")
    before = repository.files()
    made = release(repository.workspace, "one", "minor", dry_run=True, today=DAY)
    assert repository.files() == before
    assert (made.old, made.new, made.tag) == ("0.1.0", "0.2.0", "one-v0.2.0")
    assert '-version = "0.1.0"\n+version = "0.2.0"' in made.diff
    assert "+## [0.2.0] - 2026-05-06" in made.diff
    assert "b/packages/one/CHANGELOG.md" in made.diff


def test_uncommitted_changes_are_refused(repository):
    repository.write("notes.txt", "")
    with pytest.raises(InputError, match=r"1 files are not committed \(notes\.txt\)"):
        release(repository.workspace, "one", "patch")


def test_a_tag_that_exists_is_refused(repository):
    repository.git("tag", "one-v0.1.1")
    with pytest.raises(InputError, match=r"the tag one-v0\.1\.1 exists already"):
        release(repository.workspace, "one", "patch", dry_run=True)


def test_only_the_version_of_the_project_changes(repository):
    path = "packages/one/pyproject.toml"
    text = (repository.root / path).read_text()
    repository.write(path, '[tool.other]\nversion = "0.1.0"\n\n' + text)
    made = release(repository.workspace, "one", "patch", dry_run=True)
    assert made.diff.count('-version = "0.1.0"') == 1
    assert made.diff.index("[project]") < made.diff.index('-version = "0.1.0"')


@pytest.fixture
def buildable(repository):
    """The workspace with a command `tenfold list`, and locked by uv itself."""
    scripts = '\n[project.scripts]\ntenfold = "tenfold.shared:main"\n'
    repository.replace(
        "shared/pyproject.toml", "\n[dependency-groups]", f"{scripts}\n[dependency-groups]"
    )
    repository.write(
        "shared/src/tenfold/shared/__init__.py",
        '"""Shared."""\nfrom importlib.metadata import entry_points\n\n\n'
        "def main():\n    print(*[point.name for point in entry_points(group='tenfold')])\n",
    )
    for name in ("one", "two"):
        path = f"packages/{name}/pyproject.toml"
        repository.replace(path, '"pytest>=8.4"', "")
    for name in ("shared", "tools"):
        repository.replace(f"{name}/pyproject.toml", '"pytest>=8.4"', "")
    (repository.root / "uv.lock").unlink()
    from tenfold_tools.processes import run

    run("uv", "lock", cwd=repository.root)
    repository.commit()
    return repository


@pytest.mark.skipif(shutil.which("uv") is None, reason="needs uv")
def test_a_release_builds_installs_and_imports(buildable):
    made = release(buildable.workspace, "one", "minor", today=DAY)
    assert made.wheels == (
        "tenfold_one-0.2.0-py3-none-any.whl",
        "tenfold_shared-0.1.0-py3-none-any.whl",
    )
    changed = buildable.git("status", "--porcelain").split("\n")
    assert [line.split()[-1] for line in changed] == [
        "packages/one/CHANGELOG.md",
        "packages/one/pyproject.toml",
        "uv.lock",
    ]
    assert buildable.workspace.member("one").version == "0.2.0"
    assert 'name = "tenfold-one"\nversion = "0.2.0"' in (buildable.root / "uv.lock").read_text()
    assert not [item for item in check(buildable.workspace) if item.rule == "changelog"]


@pytest.mark.skipif(shutil.which("uv") is None, reason="needs uv")
@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("packages/one/src/tenfold/one/__init__.py", "import no_such_module\n", "no_such_module"),
        ("packages/one/README.md", None, "README"),
    ],
)
def test_a_failure_restores_every_file(buildable, path, text, message):
    if text is None:
        (buildable.root / path).unlink()
    else:
        buildable.write(path, text)
    buildable.commit()
    before = buildable.files()
    with pytest.raises(CommandError, match=message):
        release(buildable.workspace, "one", "patch")
    assert buildable.files() == before


def test_an_unknown_member(repository):
    with pytest.raises(InputError, match="no member 'three'"):
        release(repository.workspace, "three", "patch")
