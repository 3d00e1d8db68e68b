import pytest

from tenfold_tools.errors import InputError
from tenfold_tools.workspace import Workspace


def test_members_names_and_modules(repository):
    members = repository.workspace.members
    assert [member.name for member in members] == ["shared", "tools", "one", "two"]
    assert [member.module for member in members[:3]] == [
        "tenfold.shared",
        "tenfold_tools",
        "tenfold.one",
    ]
    assert members[2].distribution == "tenfold-one"
    assert members[2].version == "0.1.0"


def test_the_root_is_found_from_below(repository):
    below = repository.root / "packages" / "one" / "src"
    assert Workspace.find(below).root == repository.root


def test_a_folder_outside_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not in a workspace"):
        Workspace.find(tmp_path)


def test_a_hyphen_becomes_an_underscore(repository):
    text = (repository.root / "packages/one/pyproject.toml").read_text()
    repository.write("packages/l2w-den/pyproject.toml", text)
    assert repository.workspace.member("tenfold-l2w-den").module == "tenfold.l2w_den"


def test_dependencies_are_transitive(repository):
    workspace = repository.workspace
    assert workspace.dependencies(workspace.member("one")) == {"shared"}
    assert workspace.dependencies(workspace.member("shared")) == set()
    repository.replace("packages/two/pyproject.toml", "tenfold-shared>=0.1", "tenfold_one")
    workspace = repository.workspace
    assert workspace.dependencies(workspace.member("two")) == {"one", "shared"}


def test_an_unknown_member_gets_the_nearest_name(repository):
    with pytest.raises(InputError, match="did you mean 'shared'"):
        repository.workspace.member("shard")


def test_broken_toml_is_named(repository):
    repository.write("packages/one/pyproject.toml", "[project\n")
    with pytest.raises(InputError, match=r"one/pyproject\.toml: not a TOML file"):
        repository.workspace  # noqa: B018
