"""Every script of `examples/` runs, prints the expected beside its own figure, draws a picture."""

import runpy
from pathlib import Path

import pytest

from tenfold.shared.datasets import data_root

SCRIPTS = sorted(Path(__file__).parents[1].joinpath("examples").glob("*.py"))


def test_there_is_an_example_of_each_model():
    assert len(SCRIPTS) == 18


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_it_runs_in_small(script, tmp_path, capsys):
    source = script.read_text()
    if 'dataset="mnist"' in source and not (data_root() / "mnist").is_dir():
        pytest.skip(f"{data_root() / 'mnist'} is not there")
    if "reinforcement" in source:
        pytest.importorskip("gymnasium")
    runpy.run_path(str(script))["main"](small=True, output=tmp_path)
    printed = capsys.readouterr().out
    assert "expected" in printed
    assert "here" in printed
    assert (tmp_path / f"{script.stem}.png").stat().st_size > 5000
    assert f"examples/{script.name}" in source  # the command that runs it
