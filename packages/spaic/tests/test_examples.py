"""Every script of `examples/` runs, prints the expected beside its own figure, draws a picture."""

import re
import runpy
from pathlib import Path

import pytest

from tenfold.shared.datasets import data_root

SCRIPTS = sorted(Path(__file__).parents[1].joinpath("examples").glob("*.py"))


def test_there_is_an_example_of_each_model():
    assert len(SCRIPTS) == 18


def test_the_short_blocks_of_the_readme_run(capsys):
    page = Path(__file__).parents[1].joinpath("README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    for block in blocks:
        compile(block, "README.md", "exec")
    listed, plastic = (
        next(block for block in blocks if word in block)
        for word in ('print("link_type:"', 'algorithm="stdp"')
    )
    exec(listed, {})
    names = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert "iaf_psc_exp" in names["model"].split()
    assert "bernoulli" in names["link_type"].split()
    assert "poisson" in names["coding_method of Encoder"].split()
    exec(plastic, {})
    lowest, highest = re.findall(r"weights from (\S+) to (\S+)", capsys.readouterr().out)[0]
    assert float(lowest) < 0.05 < float(highest)  # the rule changed them


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
