import json
import resource
import statistics
from importlib import metadata
from pathlib import Path

import pytest

from tenfold.shared import cli, runs

HEAVY = ["torch", "numpy", "lightning_fabric", "matplotlib", "jinja2", "requests", "pooch"]


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["list", "--json"], ["--version"]])
def test_the_first_answers_import_nothing_heavy(tenfold, arguments):
    code = (
        "import sys; from tenfold.shared.cli import run; rc = run(sys.argv[1:]);"
        f"print([m for m in {HEAVY} + ['tenfold.toy'] if m in sys.modules], file=sys.stderr);"
        "sys.exit(rc)"
    )
    answer = tenfold(*arguments, code=code)
    assert (answer.returncode, answer.stderr.strip()) == (0, "[]")
    assert answer.stdout


def test_the_first_answers_are_quick(tenfold, tmp_path):
    variables = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(tmp_path / "pyc")}
    seconds = []
    for arguments in (("--help",), ("list",)):
        tenfold(*arguments, **variables)
        for _ in range(5):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            tenfold(*arguments, **variables)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            seconds.append(used)  # not the time on the clock: other work may slow it
        assert statistics.median(seconds[-5:]) < 0.3


def test_help_shows_packages_and_verbs(toy, capsys):
    assert cli.run(["--help"]) == 0
    page = capsys.readouterr().out
    assert "A package for the tests of the command line." in page
    assert all(f"  {verb} " in page for verb in ("list", "doctor", "demo"))


def test_list_reads_the_distribution(toy, capsys):
    assert cli.run(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["packages"]
    row = next(row for row in rows if row["name"] == "toy")
    assert (row["version"], row["summary"][:9]) == ("0.3.0", "A package")


def test_versions(toy, capsys):
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == metadata.version("tenfold-shared")
    assert cli.run(["toy", "--version"]) == 0
    assert capsys.readouterr().out.strip() == "0.3.0"


@pytest.mark.parametrize(
    "arguments",
    [
        ["toy", "train", "--json", "--recipe", "good", "--epochs", "7"],
        ["toy", "train", "--recipe", "good", "--epochs=7", "--json"],
        ["toy", "--json", "train", "--epochs", "7", "--recipe=good"],
    ],
)
def test_options_win_over_recipe_over_defaults(toy, capsys, arguments):
    assert cli.run(arguments) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert captured.err == ""
    assert result["score"] is None
    assert result["recipe"] == "good"
    config = {"dataset": "cora", "learning_rate": 2e-3, "epochs": 7, "sizes": [8, 16]}
    config |= {"protocol": "final", "hops": None, "amp": True, "seed": 0}
    assert result["config"] == config


def test_options_of_every_kind_win(toy, capsys):
    given = "--no-amp --sizes 1 2 --dataset uat --protocol best --hops 3 --learning-rate 1e-9"
    assert cli.run(["toy", "train", "--recipe", "good", *given.split(), "--json"]) == 0
    config = json.loads(capsys.readouterr().out)["config"]
    expected = {"amp": False, "sizes": [1, 2], "dataset": "uat", "protocol": "best", "hops": 3}
    assert config == expected | {"learning_rate": 1e-9, "epochs": 4, "seed": 0}


def test_a_recipe_by_its_path(toy, capsys, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("epochs = 9\nsizes = []\n")
    assert cli.run(["toy", "train", "--recipe", str(path), "--json"]) == 0
    config = json.loads(capsys.readouterr().out)["config"]
    assert (config["epochs"], config["sizes"], config["dataset"]) == (9, [], "bat")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["toy", "train", "--recipe", "misspelt"], ["misspelt.toml", "'learning_rate'?"]),
        (["toy", "train", "--recipe", "mistyped"], ["mistyped.toml", "epochs", "int", "'many'"]),
        (["toy", "train", "--recipe", "goood"], ["'goood'", "did you mean 'good'?"]),
        (["toy", "train", "--recipe", "no/such.toml"], ["no/such.toml"]),
        (["toy", "train", "--lerning-rate", "1"], ["--lerning-rate", "mean --learning-rate?"]),
        (["toy", "train", "--jsn"], ["--jsn"]),
        (["toy", "train", "--epochs", "four"], ["--epochs", "four", "int"]),
        (["toy", "train", "--epochs", "0"], ["epochs must be at least 1, got 0"]),
        (["toy", "train", "--protocol", "finl"], ["finl", "final", "best"]),
        (["toy", "trian"], ["trian", "train"]),
        (["to", "train"], ["'to'", "'toy'?"]),
        (["toy", "fail"], ["--kind requires"]),
        (["toy", "fail", "input"], ["this went wrong"]),
        (["demo", "tooy"], ["'tooy'", "'toy'?"]),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(toy, capsys, arguments, parts):
    assert cli.run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    assert all(part in captured.err for part in parts), captured.err
    assert not set("╭│╰┌") & set(captured.err)


def test_other_errors_are_exit_code_1(toy, capsys):
    assert cli.run(["toy", "fail", "outside"]) == 1
    assert capsys.readouterr().err == "error: this went wrong\n"
    assert cli.run(["toy", "fail", "defect"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1].startswith("error: KeyError")


def test_an_interruption_says_how_to_go_on(toy, capsys, tmp_path):
    assert cli.run(["toy", "fail", "interrupt", "--folder", str(tmp_path)]) == 1
    folder = runs.Run.latest("toy", "good", root=tmp_path).folder
    said = [f"run: {folder}", "interrupted; `--resume FOLDER` goes on with a run"]
    assert capsys.readouterr().err.splitlines() == said


def test_a_reader_that_goes_away_is_not_an_error_message(tenfold):
    code = (
        "import os, sys; from tenfold.shared.cli import main;"
        "r, w = os.pipe(); os.close(r); os.dup2(w, 1); main(['list'])"
    )
    answer = tenfold(code=code)
    assert (answer.returncode, answer.stderr) == (1, "")


def test_help_of_a_verb_tells_everything(toy, capsys):
    assert cli.run(["toy", "train", "--help"]) == 0
    page = " ".join(capsys.readouterr().out.split())
    for text in ("--json", "--quiet", "--recipe", "The step size.", "[default: 0.001]", "Trains."):
        assert text in page


def test_list_options_take_several_values(toy, capsys):
    assert cli.run(["toy", "reproduce", "--datasets", "bat", "eat", "cora", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["datasets"] == ["bat", "eat", "cora"]


def test_results_go_to_stdout_and_progress_to_stderr(toy, capsys):
    assert cli.run(["toy", "train"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "trained\n"
    assert captured.err.startswith("starting\ntraining 1/4 loss=0.5")
    assert cli.run(["toy", "train", "--quiet"]) == 0
    assert capsys.readouterr() == ("trained\n", "")


def test_the_default_view_is_a_table_of_the_data(toy, capsys):
    assert cli.run(["toy", "reproduce", "--datasets", "bat", "eat"]) == 0
    page = capsys.readouterr().out
    assert "bat, eat" in page
    assert page.count("0.5") == 2


def test_only_the_main_process_prints(toy, capsys, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert cli.run(["toy", "train"]) == 0
    assert capsys.readouterr() == ("", "")


def test_demo_makes_a_table_and_a_page(toy, capsys, tmp_path):
    assert cli.run(["demo", "toy", "broken", "--output", str(tmp_path / "out"), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["failed"] == ["broken"]
    assert result["demos"]["toy"]["value"] == 0.5
    assert "ModuleNotFoundError" in result["demos"]["broken"]["note"]
    page = Path(result["page"]).read_text()
    assert "data:image/gif;base64," in page
    assert "Toy &lt;2020&gt;" in page
    assert "0.75" not in page  # the paper's value is not comparable here
    assert (tmp_path / "out" / "toy-1.gif").is_file()


def test_demo_prints_its_table(toy, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.run(["demo", "toy"]) == 0
    captured = capsys.readouterr()
    assert "Toy <2020>" in captured.out
    assert "value here" in captured.out
    assert len(list(tmp_path.glob("runs/demo-*/index.html"))) == 1


def test_doctor_finds_what_is_broken_and_missing(toy, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    assert cli.run(["doctor", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    packages = {item["name"]: item for item in found["tenfold_packages"]}
    assert not packages["broken"]["loads"]
    assert packages["toy"]["loads"]
    assert packages["toy"]["missing"] == []
    assert packages["toy"]["missing_for_extras"] == {"far": ["no-such-thing>=1"]}
    assert found["data_root"] == str(tmp_path)
    assert found["data_root_exists"]
    assert isinstance(found["gpus"], list)
