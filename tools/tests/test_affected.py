import pytest

from tenfold_tools.affected import affected, is_documentation
from tenfold_tools.errors import InputError

EVERYTHING = {"shared", "tools", "one", "two"}


def names(repository, base="HEAD", head=None):
    return set(affected(repository.workspace, base, head).reasons)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("packages/one/src/tenfold/one/model.py", {"one"}),
        ("packages/one/pyproject.toml", {"one"}),
        ("packages/one/tests/data/table.md", {"one"}),
        ("packages/two/benchmarks/picture.png", {"two"}),
        ("shared/src/tenfold/shared/cli.py", {"shared", "one", "two"}),
        ("tools/src/tenfold_tools/new.py", {"tools"}),
        ("packages/one/README.md", set()),
        ("packages/one/CHANGELOG.md", set()),
        ("packages/one/docs/source.py", set()),
        ("README.md", set()),
        ("docs/index.html", set()),
        ("CITATION.cff", set()),
        ("LICENSE", set()),
        ("logo.svg", set()),
        (".github/ISSUE_TEMPLATE/bug.yml", set()),
        (".github/workflows/ci.yml", set()),
        (".ci/run", set()),
        ("packages/README", set()),
        ("Makefile", EVERYTHING),
        ("packages/größe name.py", set()),
        ("packages/one/größe name.py", {"one"}),
    ],
)
def test_a_file_affects(repository, file, expected):
    path = repository.root / file
    before = path.read_text() if path.is_file() else ""
    repository.write(file, f"{before}# changed\n")
    assert names(repository) == expected  # git does not know it
    base = repository.git("rev-parse", "HEAD")
    head = repository.commit()
    assert names(repository, base, head) == expected
    assert names(repository, base) == expected
    assert names(repository, head, head) == set()


def test_documentation_and_code_together(repository):
    repository.write("README.md", "changed")
    repository.write("packages/two/src/tenfold/two/model.py", "changed = 1")
    found = affected(repository.workspace, "HEAD")
    assert found.reasons == {"two": ["file: packages/two/src/tenfold/two/model.py"]}


def test_reasons_of_those_that_depend(repository):
    repository.write("shared/src/tenfold/shared/new.py", "")
    assert affected(repository.workspace, "HEAD").reasons == {
        "shared": ["file: shared/src/tenfold/shared/new.py"],
        "one": ["depends on shared"],
        "two": ["depends on shared"],
    }


def test_a_renamed_file_affects_both_sides(repository):
    repository.write("packages/one/tests/long.py", "content = 'the same on both sides'\n" * 20)
    base = repository.commit()
    repository.git("mv", "packages/one/tests/long.py", "packages/two/tests/long.py")
    assert names(repository, base, repository.commit()) == {"one", "two"}


def test_a_deleted_package_does_not_disturb(repository):
    base = repository.git("rev-parse", "HEAD")
    repository.git("rm", "-r", "--quiet", "packages/two")
    assert names(repository, base, repository.commit()) == set()


def test_what_the_base_branch_did_meanwhile_does_not_count(repository):
    repository.git("checkout", "--quiet", "-b", "feature")
    repository.write("packages/one/tests/test_more.py", "")
    repository.commit()
    repository.git("checkout", "--quiet", "main")
    repository.write("packages/two/tests/test_more.py", "")
    repository.commit()
    repository.git("checkout", "--quiet", "feature")
    assert names(repository, "main", "feature") == {"one"}
    assert names(repository, "main") == {"one"}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("line-length = 100", "line-length = 80", set()),
        ('addopts = "-ra"', 'addopts = "-rA"', EVERYTHING),
        ("package = false", "package = false\nno-binary = true", EVERYTHING),
        ('">=3.11"', '">=3.12"', EVERYTHING),
        ("[tool.uv.sources]", "[tool.uv.sources]\ntenfold-one = { workspace = true }", set()),
    ],
)
def test_the_root_pyproject(repository, old, new, expected):
    repository.replace("pyproject.toml", old, new)
    assert names(repository) == expected


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"torch": "2.9.1"}, {"one": "torch 2.9.0 → 2.9.1", "two": "torch 2.9.0 → 2.9.1"}),
        ({"numpy_new": "2.5.0"}, {"two": "numpy 1.26.0, 2.4.0 → 1.26.0, 2.5.0"}),
        (
            {"marker": "< '3.13'"},
            {"two": "numpy 1.26.0, 2.4.0 is installed under other conditions"},
        ),
    ],
)
def test_the_lockfile(repository, changed, expected):
    repository.lock(**changed)
    found = affected(repository.workspace, "HEAD").reasons
    assert found == {name: [f"lock: {line}"] for name, line in expected.items()}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"unused"\nversion = "1.0.0"', '"unused"\nversion = "2.0.0"', set()),
        ('"sympy"\nversion = "1.14.0"', '"sympy"\nversion = "1.15.0"', {"one", "two"}),  # by torch
        ('"triton"\nversion = "3.0.0"', '"triton"\nversion = "3.1.0"', {"two"}),  # by torch[fast]
        ('"pytest"\nversion = "8.4.0"', '"pytest"\nversion = "8.5.0"', EVERYTHING),  # dev groups
        ("version = 1\n", "version = 1\nrevision = 3\n", set()),
        ('name = "sympy" }]', 'name = "sympy" }, { name = "triton" }]', {"one"}),
    ],
)
def test_the_closure_in_the_lockfile(repository, old, new, expected):
    repository.replace("uv.lock", old, new)
    assert names(repository) == expected


def test_another_source_of_the_same_version(repository):
    old = 'version = "1.14.0"\nsource = { registry = "https://pypi.org/simple" }'
    new = 'version = "1.14.0"\nsource = { registry = "https://example.org/simple" }'
    repository.replace("uv.lock", old, new)
    reasons = affected(repository.workspace, "HEAD").reasons
    assert reasons["one"] == ["lock: sympy 1.14.0 has another source"]


def test_a_new_member_is_affected(repository):
    repository.replace("uv.lock", 'name = "tenfold-one"', 'name = "tenfold-other"')
    reasons = affected(repository.workspace, "HEAD").reasons
    assert reasons == {"one": ["lock: not in the lockfile now"]}


def test_a_broken_lockfile_is_named(repository):
    repository.write("uv.lock", "[[package]\n")
    with pytest.raises(InputError, match=r"uv\.lock at the working tree: not TOML"):
        names(repository)


@pytest.mark.parametrize("base", ["", "0" * 40, "no-such-branch", "a" * 40])
def test_without_a_base_everything_is_affected(repository, base):
    found = affected(repository.workspace, base)
    assert set(found.reasons) == EVERYTHING
    assert "everything is affected" in found.note


def test_unrelated_history_affects_everything(repository):
    repository.git("checkout", "--quiet", "--orphan", "other")
    repository.commit()
    assert names(repository, "main", "other") == EVERYTHING


def test_a_shallow_clone_affects_everything(repository, tmp_path):
    base = repository.git("rev-parse", "HEAD")
    repository.write("packages/one/tests/test_more.py", "")
    repository.commit()
    repository.git(
        "clone", "--quiet", "--depth", "1", f"file://{repository.root}", str(tmp_path / "c")
    )
    clone = type(repository)(tmp_path / "c")
    assert names(clone, base, "HEAD") == EVERYTHING


def test_a_wrong_head_is_an_error(repository):
    with pytest.raises(InputError, match="'no-such' is not a commit"):
        names(repository, "HEAD", "no-such")


def test_an_option_is_not_taken_for_a_commit(repository):
    assert names(repository, "--output=stolen") == EVERYTHING
    assert not (repository.root / "stolen").exists()


def test_documentation_by_name():
    assert is_documentation("packages/one/docs/deep/figure.py")
    assert not is_documentation("packages/one/src/tenfold/one/labels.md")
    assert not is_documentation("packages/one/docs.py")
