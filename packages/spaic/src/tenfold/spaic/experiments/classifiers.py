"""Runs that train and test a classifier."""

from typing import Any

import torch

from tenfold.shared.compute import is_main_process
from tenfold.shared.errors import InputError
from tenfold.shared.report import Report
from tenfold.shared.runs import Measurement, Run
from tenfold.spaic.data import Split
from tenfold.spaic.network.network import Network, NetworkModule
from tenfold.spaic.objective import accuracy
from tenfold.spaic.reports import classifier_report
from tenfold.spaic.training import TrainConfig, Trained, classifier, data_of, predict, train


def prepared(config: TrainConfig) -> Split:
    """Finds out whether a run can begin, before it has a folder.

    Args:
        config: The run.

    Returns:
        Its data.

    Raises:
        InputError: If data are missing, or the network does not take them.
    """
    split = data_of(config)
    classifier(config, split.sample_shape, split.classes, split.timed)
    return split


def train_run(
    config: TrainConfig, run: Run, fabric: Any = None, split: Split | None = None
) -> Trained:
    """Trains, and writes the result and the report of a run.

    Args:
        config: The run.
        run: Its folder.
        fabric: Where to run.
        split: Its data, if they are loaded.
    """
    result = train(config, run, split, fabric=fabric)
    if not is_main_process():
        return result
    report = Report(f"A spiking classifier of {config.dataset}", config.model)
    classifier_report(report, config, result)
    report.config(config)
    report.write(run.folder / "report.html")
    value = Measurement(
        dataset=config.dataset, method="SPAIC", metric="ACC", value=100 * result.accuracy
    )
    run.finish({"results": [value]})
    return result


def _module_of(run: Run) -> tuple[TrainConfig, NetworkModule, Split]:
    """Builds the network of a run with its trained weights."""
    config = run.config(TrainConfig)
    saved = run.load()
    if saved is None:
        raise InputError(f"{run.folder} has no checkpoint yet")
    split = data_of(config)
    net = classifier(config, split.sample_shape, split.classes, split.timed)
    module = NetworkModule(net, config.steps * net.dt)
    module.load_state_dict(saved[0])
    net._random.set_state(saved[1]["random"])
    return config, module, split


def network_of(run: Run) -> Network:
    """Gives the trained network of a run.

    Args:
        run: The run's folder.
    """
    return _module_of(run)[1].network


def evaluate_run(run: Run) -> tuple[TrainConfig, float, torch.Tensor]:
    """Tests the network of a run again.

    Args:
        run: The run's folder.

    Returns:
        Its configuration, the accuracy, and the outputs [samples, classes].
    """
    config, module, split = _module_of(run)
    outputs = predict(config, module, split.x_test)
    return config, accuracy(outputs, torch.from_numpy(split.y_test)), outputs
