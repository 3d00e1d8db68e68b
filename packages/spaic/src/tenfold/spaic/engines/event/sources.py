"""Generators and encoders in the event engine's loop."""

from typing import Any

import numpy as np

from tenfold.spaic.engines.event.code import Code
from tenfold.spaic.network.nodes import Encoder, Generator

DRAWN = ("poisson", "poisson_generator")
CONSTANT = ("constant_current", "cc_generator")


def in_loop(source: Encoder) -> bool:
    """Whether the loop makes what a source emits; else it is made before, step by step.

    Args:
        source: The source.
    """
    known = isinstance(source, Generator) and source.coding_method in (*DRAWN, *CONSTANT)
    return known and not source.coding.get("gen_first", False)


def refresh_rate(code: Code, number: int, source: Generator) -> None:
    """Takes over a generator's source, which may have changed since the last part of a run.

    Args:
        code: Holds the arguments.
        number: The source's number.
        source: The source.
    """
    source.check_rates(code.plan.dt)
    rate = code.arguments[f"rate_{number}"]
    rate[:] = source.source.reshape(-1).numpy()
    if source.coding_method == "poisson":
        code.arguments[f"none_{number}"][:] = np.exp(-rate * code.plan.dt)


def write_source(
    code: Code, number: int, source: Encoder, slots: int, used: Any, listed: bool
) -> None:
    """What a source emits in a step, and the list of its channels that are not zero.

    Args:
        code: The text.
        number: The source's number.
        source: The source.
        slots: How many steps of what it emits are kept.
        used: The channels that are read here, int64; None for all.
        listed: Whether the list is needed.
    """
    n = source.num
    out = code.argument(f"out_{number}", np.zeros((slots, n), dtype=code.dtype))
    code.argument(f"hits_{number}", np.zeros((slots, n), dtype=np.int32))
    code.argument(f"hit_{number}", np.zeros(slots, dtype=np.int64))
    code.add(3, f"here = t % {slots}", f"{out}[here, :] = 0")
    if in_loop(source):
        _write_generator(code, number, source, used)  # type: ignore[arg-type]
    else:
        raster = code.argument(f"raster_{number}", np.zeros((0, n), dtype=code.dtype))
        code.add(3, f"{out}[here, :] = {raster}[t - begun]")
    if listed:
        code.add(3, f"hit_{number}[here] = find_hits({out}[here], hits_{number}[here])")
    target = source.dec_target
    if target is not None and id(target) in code.plan.groups:
        name = "Isyn" if source.coding_var_name == "O" else source.coding_var_name
        group = code.number(target)
        sums = name in code.plan.groups[id(target)].model.inputs
        into = f"{code.into(target, name)}[i] {'+=' if sums else '='} "
        code.add(3, f"for i in range(size_{group}):", f"    {into}{out}[here, i + first_{group}]")


def _write_generator(code: Code, number: int, source: Generator, used: Any) -> None:
    dt = code.plan.dt
    value = np.ascontiguousarray(source.source.reshape(-1).numpy(), dtype=np.float64)
    rate = code.argument(f"rate_{number}", value)
    start, end = float(source.option("start_time")), float(source.option("end_time"))
    code.add(3, f"if {start - 1e-9!r} <= t * {dt!r} < {min(end, 1e300) - 1e-9!r}:")
    key = 2 * len(code.plan.groups) + number
    code.add(4, f"stream = draw_stream(keys[{key}], t)")
    every = np.arange(source.num) if used is None else used
    used = code.argument(f"used_{number}", every)
    if source.coding_method == "poisson":
        none = code.argument(f"none_{number}", np.exp(-value * dt))
        weight = float(source.option("weight"))
        given = f"{used}, stream, {rate}, {dt!r}, {none}, {weight!r}"
        code.add(4, f"fill_poisson(out_{number}[here], {given})")
        return
    if source.coding_method == "poisson_generator":
        weight, unit = (float(source.option(k)) for k in ("weight", "unit_conversion"))
        draw = f"({weight!r} if draw_uniform(stream, i) < {rate}[i] * {unit!r} else 0.0)"
    else:
        draw = f"{rate}[i]"
    code.add(4, f"for i in {used}:", f"    out_{number}[here, i] = {draw}")
