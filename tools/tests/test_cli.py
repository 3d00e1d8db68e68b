import json

import pytest

from tenfold_tools import cli


@pytest.fixture(autouse=True)
def inside(repository, monkeypatch):
    monkeypatch.chdir(repository.root)


def call(capsys, *arguments):
    code = cli.run([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_affected(repository, capsys):
    repository.write("shared/src/tenfold/shared/new.py", "")
    code, answer = call(capsys, "affected", "--base", "HEAD")
    assert code == 0
    assert answer["packages"] == ["one", "two"]
    assert (answer["shared"], answer["tools"]) == (True, False)
    assert answer["members"][1] == {
        "name": "one",
        "distribution": "tenfold-one",
        "folder": "packages/one",
    }
    assert answer["reasons"]["one"] == ["depends on shared"]
    assert cli.run(["affected", "--base", "HEAD"]) == 0
    assert "one        depends on shared\n" in capsys.readouterr().out


def test_nothing_is_affected(capsys):
    code, answer = call(capsys, "affected", "--base=HEAD", "--head=HEAD")
    assert (code, answer["members"], answer["reasons"]) == (0, [], {})


def test_check(repository, capsys):
    assert call(capsys, "check") == (0, {"findings": []})
    repository.write("packages/one/src/tenfold/__init__.py", "")
    code, answer = call(capsys, "check")
    assert code == 1
    assert answer["findings"][0]["path"] == "packages/one/src/tenfold/__init__.py"
    assert cli.run(["check"]) == 1
    printed = capsys.readouterr().out
    assert printed.startswith("packages/one/src/tenfold/__init__.py:1: namespace: ")


def test_release(capsys):
    code, answer = call(capsys, "release", "one", "major", "--dry-run")
    assert (code, answer["tag"], answer["dry_run"]) == (0, "one-v1.0.0", True)


def test_results(repository, capsys):
    content = {
        "package": "one",
        "command": "tenfold one reproduce",
        "date": "2026-03-01T10:00:00+00:00",
        "results": [{"dataset": "cora", "method": "One", "metric": "ACC", "value": 1.0}],
    }
    repository.write("runs/one/a/result.json", json.dumps(content))
    assert call(capsys, "results", "--check")[0] == 1
    assert "cora" not in (repository.root / "README.md").read_text()
    code, answer = call(capsys, "results")
    assert (code, answer["up_to_date"], len(answer["rows"])) == (0, False, 1)
    assert "| one | One | cora |" in (repository.root / "README.md").read_text()
    assert call(capsys, "results", "--check")[1]["up_to_date"]


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_test_prints_the_closing_lines(repository, capsys, jobs, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert cli.run(["test", "one", "two", "--here", "--jobs", jobs]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("1 passed in") == 2
    assert captured.out.count("1 passed in") == 2
    assert captured.out.splitlines()[-1].startswith("2 passed, 0 failed, 0 skipped in ")
    repository.write("packages/two/tests/test_two.py", "")
    code, answer = call(capsys, "test", "two", "--here")
    assert code == 1
    assert "no tests" in answer["suites"][0]["problem"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ""),
        (["affected"], "--base"),
        (["afected", "--base", "HEAD"], 'Did you mean "affected"'),
        (["affected", "--base", "HEAD", "--head", "nowhere"], "'nowhere' is not a commit"),
        (["release", "one", "tiny"], "tiny"),
        (["release", "onee", "patch"], "did you mean 'one'"),
        (["results", "--runs", "nowhere"], "--runs nowhere: no such folder"),
        (["test", "onee", "--here"], "did you mean 'one'"),
        (["test", "--jobs", "0"], "--jobs"),
        (["new", "Bad_Name", "--title", "T", "--arxiv", "2301.01098"], "'Bad_Name'"),
    ],
)
def test_wrong_input_is_one_line_and_code_2(capsys, arguments, expected):
    code = cli.run(arguments)
    captured = capsys.readouterr()
    if not arguments:  # the help page
        assert code == 0
        assert "affected" in captured.out
        return
    assert code == 2
    assert captured.out == ""
    assert expected in captured.err
    assert len(captured.err.splitlines()) == 1


def test_outside_of_a_workspace(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["check"]) == 2
    assert "is not in a workspace" in capsys.readouterr().err


def test_a_readme_without_markers(repository, capsys):
    repository.write("README.md", "# Work\n")
    (repository.root / "runs").mkdir()
    assert cli.run(["results"]) == 2
    assert "<!-- results:begin -->" in capsys.readouterr().err
