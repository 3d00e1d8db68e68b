import importlib.util
import json
import sys
from pathlib import Path

import pytest

from tenfold.shared.compute import cpu_name


@pytest.fixture
def latency(monkeypatch):
    """The script `benchmarks/latency.py`, whose measurements are replaced by numbers."""
    path = Path(__file__).parents[1] / "benchmarks" / "latency.py"
    spec = importlib.util.spec_from_file_location("latency", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    measured = []

    def measure_model(name, options):
        measured.append(name)
        return [row(name, cpu_name())]

    monkeypatch.setattr(module, "measure_model", measure_model)
    monkeypatch.setattr(module, "MODELS", ["emo_1m", "edgenext_xx_small"])
    module.measured = measured
    return module


def row(name, cpu):
    return {
        "model": name, "batch": 1, "threads": 1, "plain_ms": 2.0, "published_top1": 71.0,
        "published_size": 256, "cpu": cpu,
    }  # fmt: skip


def go(latency, monkeypatch, folder, *options):
    command = ["latency.py", "--output", str(folder), "--batches", "1", "--threads", "1", *options]
    monkeypatch.setattr(sys, "argv", command)
    latency.measured.clear()
    latency.main()
    rows = json.loads((folder / "results.json").read_text())["rows"]
    return latency.measured, [(r["model"], r["cpu"]) for r in rows]


def test_resume_measures_anew_what_another_processor_measured(latency, monkeypatch, tmp_path):
    here = cpu_name()
    rows = [row("emo_1m", here), row("edgenext_xx_small", "other")]
    (tmp_path / "results.json").write_text(json.dumps({"rows": rows}))
    measured, found = go(latency, monkeypatch, tmp_path, "--resume")
    assert measured == ["edgenext_xx_small"]
    assert sorted(found) == [("edgenext_xx_small", here), ("emo_1m", here)]
    measured, _ = go(latency, monkeypatch, tmp_path, "--resume")
    assert measured == []


def test_processors_are_mixed_only_when_asked(latency, monkeypatch, tmp_path):
    rows = [row("emo_1m", "other")]
    (tmp_path / "results.json").write_text(json.dumps({"rows": rows}))
    measured, found = go(latency, monkeypatch, tmp_path, "--resume", "--mix")
    assert measured == ["edgenext_xx_small"]
    assert ("emo_1m", "other") in found
    with pytest.raises(ValueError, match="2 processors"):
        latency.plot([*rows, row("emo_2m", "here")], tmp_path / "a.png")
    assert latency.label(rows[0], mix=True) == "emo_1m (256²), other"
    assert latency.label(rows[0], mix=False) == "emo_1m (256²)"
