"""Defects of the released code that no other file has a test for.

They are numbered as in section 8 of the method card and under "Deviations" in the README; the tests
of the others say ``section 8, n`` too.
"""

from importlib import metadata

import numpy as np
import pytest
import safetensors.torch
import torch

from tenfold.reliant import experiments, teachers
from tenfold.reliant.data.readers import read_credit
from tenfold.reliant.frameworks import CPF
from tenfold.reliant.model.plp import PLP
from tenfold.reliant.objective import Groups
from tenfold.reliant.teachers import train_teacher
from tenfold.reliant.training import Distillation, TrainConfig, settled

SHORT = {"dataset": "generated:240", "epochs": 6, "teacher_epochs": 6, "hidden": 8, "rounds": 3}


@pytest.mark.parametrize("mode", ["honest", "official"])
def test_a_cpf_run_ends_although_the_features_have_no_gradient(biased, mode):
    """Section 8, 9: as released, the end of a CPF run asks for a gradient that is not there."""
    config = settled(TrainConfig(**SHORT, mode=mode))
    teacher = experiments.teacher_of(config, biased, cache=False)
    result = experiments.train(config, biased, teacher, cache=False)
    assert len(result.history) == 6
    assert torch.isfinite(result.probabilities).all()
    assert all(np.isfinite(result.scores[name]) for name in ("ACC", "dSP", "dEO"))
    assert biased.x.grad is None
    assert not biased.x.requires_grad


@pytest.mark.parametrize(
    "options", [{"mode": "official"}, {"student": "gcn"}, {"framework": "akd"}]
)
def test_no_anomaly_detection_and_groups_are_made_once(biased, options, monkeypatch):
    """Section 8, 11: as released, each step is traced and makes its groups from Python sets."""
    config = settled(TrainConfig(**SHORT | options))
    teacher = experiments.teacher_of(config, biased, cache=False)
    made, traced = [], []
    of = Groups.of
    monkeypatch.setattr(Groups, "of", lambda *a: (made.append(a), of(*a))[1])
    training = Distillation(biased, teacher, config)
    loss = training.model.framework.loss
    monkeypatch.setattr(
        training.model.framework,
        "loss",
        lambda *a: (traced.append(torch.is_anomaly_enabled()), loss(*a))[1],
    )
    training.run()
    assert traced == [False] * 6
    assert len(made) == 1
    groups = next(iter(training.view.groups.values()))
    assert groups.nodes.dtype == torch.int64


def test_hidden_labels_are_the_one_case_with_new_groups_each_step(biased, monkeypatch):
    """Section 8, 11: honest PLP measures the bias on other nodes each step, once for both steps."""
    config = settled(TrainConfig(**SHORT))
    teacher = experiments.teacher_of(config, biased, cache=False)
    training, made, of = Distillation(biased, teacher, config), [], Groups.of
    monkeypatch.setattr(Groups, "of", lambda *a: (made.append(a[1]), of(*a))[1])
    training.run()
    assert len({tuple(nodes.tolist()) for nodes in made}) == 6


@pytest.mark.parametrize("stops", [True, False])
def test_a_teacher_is_written_once_whether_it_stops_early_or_not(
    biased, stops, monkeypatch, tmp_path
):
    """Section 8, 12: as released, early stopping writes the checkpoint as text every epoch."""
    writes, save = [], safetensors.torch.save_file
    monkeypatch.setattr(
        safetensors.torch, "save_file", lambda *a: (writes.append(a[1]), save(*a))[1]
    )
    monkeypatch.setattr("tenfold.reliant.store.user_cache_path", lambda *_, **__: tmp_path)
    monkeypatch.setattr(teachers, "PATIENCE", 3 if stops else 500)
    teacher = train_teacher(biased, "gcn", "official", 40)
    assert (len(teacher.history) < 40) == stops
    assert len(writes) == 1
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert file.suffix == ".safetensors"
    assert file.stat().st_size < 100_000


def test_credit_needs_its_table_only_and_one_hot_labels_need_no_keras(tmp_path, path_graph):
    """Section 8, 13: as released, an archive that was never published, and keras for one-hot."""
    rng = np.random.default_rng(0)
    names = ["NoDefaultNextMonth", "Married", "Single", "Age", "Bill", "Paid"]
    rows = np.c_[rng.integers(0, 2, (80, 4)), rng.integers(0, 900, (80, 2))]
    lines = [",".join(names), *(",".join(map(str, row)) for row in rows)]
    (tmp_path / "credit.csv").write_text("\n".join(lines))
    data = read_credit(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["credit.csv"]
    assert data.y.tolist() == rows[:, 0].tolist()
    assert data.sensitive.tolist() == rows[:, 3].tolist()
    assert not [name for name in metadata.requires("tenfold-reliant") if "keras" in name]
    path_graph.train_mask = torch.tensor([True, True, False])
    clamped = PLP(path_graph, 4).clamped[path_graph.train_mask]
    assert clamped.tolist() == np.eye(2)[path_graph.y[path_graph.train_mask]].tolist()


def test_the_teachers_answers_are_rounded_on_disk_in_the_official_mode_only(biased):
    """Section 5.1: as released, answers are stored with four decimals and read back."""
    ends = {}
    for mode in ("honest", "official"):
        config = settled(TrainConfig(**SHORT, mode=mode))
        teacher = experiments.teacher_of(config, biased, cache=False)
        framework = Distillation(biased, teacher, config).model.framework
        assert isinstance(framework, CPF)
        ends[mode] = framework.decimals
    assert ends == {"honest": None, "official": 4}
