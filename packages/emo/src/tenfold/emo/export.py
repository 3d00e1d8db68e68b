"""Export of the true network to other runtimes, each checked against eager.

The published phone latencies were measured on an exported file whose reshapes permute pixels and
channels. Here what is exported is what was trained, and `export` compares the two before it
returns.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from tenfold.emo.inference import FusedBlock, FusedConv, FusedStem, optimize_for_inference
from tenfold.shared.errors import InputError

Format = Literal["onnx", "onnx-int8", "torch", "executorch", "coreml"]

FORMATS: dict[str, str] = {
    "onnx": ".onnx",
    "onnx-int8": ".onnx",
    "torch": ".pt2",
    "executorch": ".pte",
    "coreml": ".mlpackage",
}
"""The formats and the endings of their files."""

TOLERANCE = 1e-4
"""The largest difference from eager that a float export may have, relative to the largest logit
if that is above 1."""


def _program(model: nn.Module, size: tuple[int, int], dynamic: bool, in_chans: int = 3) -> Any:
    """Makes a `torch.export` program, for any batch, height and width if `dynamic`."""
    if not dynamic:
        return torch.export.export(model, (torch.rand(1, in_chans, *size),))
    # An example in which every stage has several attention groups and pads: the graph is then
    # general. torch still records that these things held for the example (its guards), although
    # the graph does not depend on them: `run_exported` loads without guards.
    windows: list[Any] = [
        m.window for m in model.modules() if getattr(m, "attention", None) is not None
    ]
    side: int = 32 * (max(windows, default=1) + 2)
    dim = torch.export.Dim.DYNAMIC
    shapes = {"x": {0: dim, 2: dim, 3: dim}}
    return torch.export.export(
        model, (torch.rand(2, in_chans, side, side + 32),), dynamic_shapes=shapes
    )


def export(
    model: nn.Module,
    path: Path | str,
    format: Format | None = None,
    size: int | tuple[int, int] = 224,
    dynamic: bool = True,
    in_chans: int = 3,
    calibration: Tensor | None = None,
) -> float:
    """Writes a network for another runtime and compares its output with eager.

    Args:
        model: The network, x → tensor; it is optimised for inference first.
        path: The file.
        format: One of `FORMATS`; by default that of the path's ending.
        size: Height and width of the example; of every image if not `dynamic`.
        dynamic: Whether the file takes any batch, height and width. ExecuTorch's files have the
            batch 1 and the given size.
        in_chans: Channels of the image.
        calibration: float [N, C, H, W], normalised images, from which `onnx-int8` takes the range
            of the activations.

    Returns:
        The largest difference of an output from eager's; NaN where the file can't be run (Core ML
        away from macOS), and only the program it was made of has been compared.

    Raises:
        InputError: If the format is unknown, its library is missing, the size is not positive, or
            the file cannot be written.
        RuntimeError: If a float export differs from eager by more than `TOLERANCE`.
    """
    path = Path(path)
    if format is None:
        format = _format_of(path)
    if format not in FORMATS:
        raise InputError(f"format of {path} is unknown; expected one of {', '.join(FORMATS)}")
    if format == "onnx-int8" and calibration is None:
        raise InputError("format='onnx-int8' needs calibration images, got none")
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise InputError(f"size={height}×{width}; expected positive numbers")
    _probe(path)
    fast = optimize_for_inference(model).cpu().float()
    writers: dict[str, Callable[..., None]] = {
        "onnx": _onnx,
        "torch": _torch,
        "executorch": _executorch,
        "coreml": _coreml,
    }
    can_move = dynamic and format in ("onnx", "onnx-int8", "torch")
    if format == "onnx-int8":
        assert calibration is not None
        float_path = path.with_name(path.stem + ".float.onnx")
        _onnx(fast, float_path, (height, width), can_move, in_chans)
        try:
            _quantise(float_path, path, calibration)
        finally:
            float_path.unlink(missing_ok=True)
    else:
        writers[format](fast, path, (height, width), can_move, in_chans)
    if format == "coreml" and sys.platform != "darwin":
        return math.nan  # the program was compared by `_coreml`
    shapes = [(1, height, width)]
    if can_move:
        shapes += [(5, height, width), (1, height + 32, width + 96)]
    worst = 0.0
    generator = torch.Generator().manual_seed(0)
    for batch, h, w in shapes:
        x = torch.randn(batch, in_chans, h, w, generator=generator)
        with torch.inference_mode():
            expected = model.cpu().float().eval()(x).numpy()
        found = run_exported(path, x, format)
        difference = float(np.abs(found - expected).max())
        worst = max(worst, difference)
        if format != "onnx-int8" and difference > TOLERANCE * max(1.0, np.abs(expected).max()):
            raise RuntimeError(
                f"{path} differs from eager by {difference:.2e} for the input {tuple(x.shape)}"
            )
    return worst


def _probe(path: Path) -> None:
    """Makes the folder of a file and refuses one that cannot be written, before any work."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
    if path.is_dir() and path.suffix != FORMATS["coreml"]:
        raise InputError(f"{path} is a folder; expected the name of a file")


def _onnx(
    model: nn.Module, path: Path, size: tuple[int, int], dynamic: bool, in_chans: int
) -> None:
    _need("onnxscript", "onnx")
    program = _program(model, size, dynamic, in_chans)
    made = torch.onnx.export(program, dynamo=True, verbose=False)
    assert made is not None
    made.save(str(path))


def _torch(
    model: nn.Module, path: Path, size: tuple[int, int], dynamic: bool, in_chans: int
) -> None:
    torch.export.save(_program(model, size, dynamic, in_chans), str(path))


def _executorch(
    model: nn.Module, path: Path, size: tuple[int, int], dynamic: bool, in_chans: int
) -> None:
    _need("executorch.exir", "executorch")
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    for module in model.modules():  # ExecuTorch runs no channels-last maps
        if isinstance(module, FusedStem | FusedBlock | FusedConv):
            module.channels_last = False
    program = _program(model, size, False, in_chans).run_decompositions({})
    _slice_instead_of_negative_pads(program.graph_module)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)


def _coreml(
    model: nn.Module, path: Path, size: tuple[int, int], dynamic: bool, in_chans: int
) -> None:
    _need("coremltools", "coreml")
    import coremltools as ct

    program = _program(model, size, False, in_chans).run_decompositions({})
    _slice_instead_of_negative_pads(program.graph_module)
    # What Core ML gets still is a program that torch can run: it is what is compared here, since
    # only macOS can run the file.
    x = torch.randn(1, in_chans, *size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        difference = float((program.module()(x) - model(x)).abs().max())
    if difference > TOLERANCE:
        raise RuntimeError(f"the program for {path} differs from eager by {difference:.2e}")
    ct.convert(
        program,
        outputs=[ct.TensorType(name="logits")],
        minimum_deployment_target=ct.target.iOS17,
        compute_precision=ct.precision.FLOAT32,
    ).save(str(path))


def _slice_instead_of_negative_pads(module: torch.fx.GraphModule) -> None:
    """Crops with slices where the network crops with negative padding, and drops empty padding.

    coremltools and ExecuTorch know no negative padding. Shapes must be fixed.
    """
    aten = torch.ops.aten
    pads = (aten.pad.default, aten.constant_pad_nd.default)
    for node in list(module.graph.nodes):
        if node.op != "call_function" or node.target not in pads:
            continue
        made, widths = node.args[0], list(node.args[1])
        shape = made.meta["val"].shape
        with module.graph.inserting_before(node):
            for i, (before, after) in enumerate(zip(widths[::2], widths[1::2], strict=True)):
                if before < 0 or after < 0:
                    d = len(shape) - 1 - i
                    bounds = (d, max(-before, 0), shape[d] + min(after, 0))
                    made = module.graph.call_function(aten.slice.Tensor, (made, *bounds))
            positive = [max(n, 0) for n in widths]
            if any(positive):
                arguments = (made, positive, 0.0)
                made = module.graph.call_function(aten.constant_pad_nd.default, arguments)
        node.replace_all_uses_with(made)
        module.graph.erase_node(node)
    module.recompile()


def _quantise(source: Path, target: Path, calibration: Tensor) -> None:
    """Quantises weights per channel and activations statically with onnxruntime."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(calibration.split(1))

        def get_next(self) -> dict[str, Any] | None:
            x = next(self.left, None)
            return None if x is None else {"x": x.numpy()}

    prepared = source.with_name(source.stem + ".prepared.onnx")
    try:
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            Images(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
        )
    finally:
        prepared.unlink(missing_ok=True)


def run_exported(path: Path | str, x: Tensor, format: Format | None = None) -> Any:
    """Runs an exported file on a CPU.

    Args:
        path: The file.
        x: float [B, C, H, W].
        format: As in `export`.

    Returns:
        A NumPy array.
    """
    path = Path(path)
    if format is None:
        format = _format_of(path)
    if format in ("onnx", "onnx-int8"):
        return onnx_session(path).run(None, {"x": x.numpy()})[0]
    if format == "torch":
        with torch.inference_mode():
            return torch.export.load(str(path)).module(check_guards=False)(x).numpy()
    if format == "coreml":
        if sys.platform != "darwin":
            raise InputError(f"{path} can be run on macOS only, this is {sys.platform}")
        import coremltools as ct

        return ct.models.MLModel(str(path)).predict({"x": x.numpy()})["logits"]
    from executorch.runtime import Runtime

    # The method reads from the program, which it does not keep alive, and the output lies in the
    # method's memory: without the name and the copy this reads freed memory.
    program = Runtime.get().load_program(path.read_bytes())
    return program.load_method("forward").execute([x])[0].numpy().copy()


def onnx_session(path: Path, threads: int = 1) -> Any:
    """Opens an ONNX file in onnxruntime.

    Args:
        path: The file.
        threads: Threads of an operator.
    """
    _need("onnxruntime", "onnx")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _format_of(path: Path) -> Format | None:
    """Gives the format that a file's ending stands for."""
    found = (f for f, ending in FORMATS.items() if path.suffix == ending)
    return cast("Format | None", next(found, None))


def _need(module: str, extra: str) -> None:
    """Says how to install what a format needs."""
    import importlib

    try:
        importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{module} is not installed; install the extra: tenfold-emo[{extra}]"
        ) from error
