"""Latency on this CPU, of EMO and of any other model in timm, each treated the same way."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import timm
import torch
from torch import nn

import tenfold.emo.model.backbone  # noqa: F401 - registers the models
from tenfold.emo.inference import optimize_for_inference
from tenfold.emo.model.backbone import EMO
from tenfold.shared.errors import InputError, did_you_mean


def optimised(model: nn.Module, native: bool = False) -> nn.Module:
    """Gives the fastest eager form that we know: EMO optimised, others channels-last and fused.

    Other models get what timm offers: `reparameterize_model` (RepVGG-like branches), then
    channels-last.

    Args:
        model: The network.
        native: Whether EMO gets this package's own kernels.
    """
    if isinstance(model, EMO):
        return optimize_for_inference(model, native)
    from timm.utils import reparameterize_model

    return reparameterize_model(model).to(memory_format=torch.channels_last)


def measure(functions: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Measures functions in turn (A B A B …), after two calls of each.

    Args:
        functions: Name → what to call.
        repeats: Measurements of each.

    Returns:
        Name → median, in milliseconds.
    """
    for call in functions.values():
        call()
        call()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, call in functions.items():
            began = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(values) for name, values in times.items()}


@contextmanager
def with_threads(number: int) -> Iterator[None]:
    """Sets torch's threads while the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def compare(
    models: Sequence[str],
    batches: Sequence[int],
    threads: int,
    repeats: int,
    compiled: bool,
    native: bool = False,
) -> list[dict[str, Any]]:
    """Measures each model plain, optimised and, if asked for, compiled.

    Args:
        models: Names in timm.
        batches: Batch sizes.
        threads: Threads of torch.
        repeats: Measurements of each.
        compiled: Whether to compile too.
        native: Whether EMO is measured with its own kernels too, and compiled with them.

    Returns:
        A row for each model and batch, times in milliseconds, `faster` the ratio plain / fastest.

    Raises:
        InputError: If a model is unknown or a number is not positive.
    """
    for name in models:
        if not timm.is_model(name):
            raise InputError(did_you_mean(name, timm.list_models(), kind="model"))
    if threads < 1 or repeats < 1 or min(batches) < 1:
        raise InputError(f"threads={threads}, repeats={repeats}, batches={batches}; expected >= 1")
    rows = []
    with with_threads(threads), torch.inference_mode():
        for name in models:
            plain: Any = timm.create_model(name).eval()
            size = plain.pretrained_cfg["input_size"][-1]
            fast = optimised(timm.create_model(name).eval())
            forms: dict[str, Any] = {"plain": plain, "optimised": fast}
            if native and isinstance(plain, EMO):
                forms["native"] = optimised(timm.create_model(name).eval(), native=True)
            if compiled:
                forms["compiled"] = torch.compile(optimised(timm.create_model(name).eval(), native))
            for batch in batches:
                x = torch.randn(batch, 3, size, size)
                last = x.contiguous(memory_format=torch.channels_last)
                calls = {k: partial(m, x if k == "plain" else last) for k, m in forms.items()}
                times = measure(calls, repeats)
                ratio = times["plain"] / min(times.values())
                rows.append({"model": name, "size": size, "batch": batch, **times, "faster": ratio})
    return rows
