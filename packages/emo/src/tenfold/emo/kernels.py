"""Own kernels for blocks on a CPU (`kernels.cpp`): expand, depth-wise and shrink in one pass.

They are compiled once with the machine's C++ compiler (as `torch.compile` does), kept in the user's
cache, and used by `optimize_for_inference(model, native=True)`, in eager mode and under
`torch.compile`. float32 on a CPU, without gradients; everything else takes the blocks of
`inference.py`, from which these are made.
"""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from torch import Tensor, nn
from torch.nn import functional as F

from tenfold.shared.errors import InputError

LANES = 16
"""Channels come in vectors of so many."""

_ACTS = {"": 0, "silu": 1, "gelu": 2}
_LEVELS = {"AVX512": "x86-64-v4", "AVX2": "x86-64-v3"}


def compile_kernels() -> Path:
    """Compiles `kernels.cpp` with $CXX or g++, unless that has been done already.

    Returns:
        The shared library, in the user's cache, under a name of its own for each source, torch,
        compiler and level of instructions: machines of several kinds may share a home.

    Raises:
        InputError: If there is no working C++ compiler.
    """
    source = (resources.files("tenfold.emo") / "kernels.cpp").read_bytes()
    compiler = os.environ.get("CXX", "g++")
    flags = ["-O3", "-std=c++20", "-fPIC", "-shared", "-Wno-psabi"]
    capability = torch.backends.cpu.get_cpu_capability()
    if capability in _LEVELS:
        flags += [f"-march={_LEVELS[capability]}", "-mtune=native"]
    if sys.platform != "darwin":
        flags.append("-fopenmp")
    home = Path(torch.__file__).parent
    flags += [f"-I{home}/include", f"-I{home}/include/torch/csrc/api/include"]
    flags += [f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"]
    flags += [f"-L{home}/lib", "-ltorch_cpu", "-lc10"]
    parts = [source, torch.__version__.encode(), compiler.encode(), " ".join(flags).encode()]
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    library = user_cache_path("tenfold", appauthor=False) / "emo" / f"kernels-{key}.so"
    if library.exists():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        file, made = Path(folder, "kernels.cpp"), Path(folder, "kernels.so")
        file.write_bytes(source)
        command = [compiler, str(file), "-o", str(made), *flags]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            lines = [] if done.returncode == 0 else done.stderr.splitlines() or [f"{done.args}"]
        except OSError as error:
            lines = [str(error)]
        if lines:
            cause = next((line for line in lines if "error" in line.lower()), lines[0])
            raise InputError(
                f"native=True needs a C++20 compiler, g++ or that which CXX names; {compiler} "
                f"failed: {cause}"
            )
        made.replace(library)  # whole or not at all, whoever else compiles
    return library


@functools.cache
def build() -> None:
    """Compiles the kernels if that has not been done yet, and registers them in torch.

    Raises:
        InputError: If there is no working C++ compiler.
    """
    torch.ops.load_library(compile_kernels())

    def filtered(n: int, kernel: int, stride: int) -> int:
        edge = (kernel - stride + 1) // 2
        return (n + 2 * edge - kernel) // stride + 1

    @torch.library.register_fake("tenfold_emo::block")
    def _(x: Tensor, *arguments: Any) -> Tensor:
        kernel, stride, _shrink, out, _skip = arguments[-5:]
        height, width = (filtered(n, kernel, stride) for n in x.shape[1:3])
        return x.new_empty(x.shape[0], height, width, out)

    @torch.library.register_fake("tenfold_emo::start")
    def _(x: Tensor, *arguments: Any) -> Tensor:
        kernel, stride, _shrink, out = arguments[-4:]
        height, width = (filtered((n + 1) // 2, kernel, stride) for n in x.shape[2:])
        return x.new_empty(x.shape[0], height, width, out)

    @torch.library.register_fake("tenfold_emo::attend")
    def _(x: Tensor, *arguments: Any) -> Tensor:
        return torch.empty_like(x)


def _vectors(x: Tensor) -> Tensor:
    """Fills the last dimension with zeros up to whole vectors."""
    return F.pad(x, (0, -x.shape[-1] % LANES)).contiguous()


def _panels(weight: Tensor) -> Tensor:
    """Arranges a weight [N, K] as the kernels read it: [N / 16, K, 16]."""
    return _vectors(weight.t()).unflatten(1, (-1, LANES)).transpose(0, 1).contiguous()


def _can(x: Tensor) -> bool:
    """Says whether the kernels can take this input."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_grad_enabled()


class _Native(nn.Module):
    """Holds the arranged weights, and the fused module for everything that the kernels cannot."""

    def __init__(self, fused: nn.Module) -> None:
        super().__init__()
        self.fused: Any = fused

    def keep(self, name: str, weight: Tensor) -> None:
        """Keeps an arranged weight; it is not saved, as the fused module has it."""
        self.register_buffer(name, weight.float(), persistent=False)

    def keep_local(self, local: Any, name: str = "local") -> None:
        """Keeps a depth-wise convolution and its bias."""
        self.keep(name, _vectors(local.weight.flatten(1).t()))
        self.keep(name + "_bias", _vectors(local.bias))


class NativeBlock(_Native):
    """A fused block with the kernels.

    Args:
        fused: A `FusedBlock` that `takes` accepts.
    """

    @staticmethod
    def takes(fused: Any) -> bool:
        """Says whether there is a kernel: no squeeze-excitation, kernel 3 or 5, stride 1 or 2."""
        kernel, stride = fused.local.weight.shape[-1], fused.local.stride[0]
        return kernel in (3, 5) and stride in (1, 2) and isinstance(fused.se, nn.Identity)

    def __init__(self, fused: Any) -> None:
        super().__init__(fused)
        self.kernel, self.stride = fused.local.weight.shape[-1], fused.local.stride[0]
        self.keep_local(fused.local)
        self.out: int = fused.shrink.weight.shape[0]
        self.keep("shrink", _panels(fused.shrink.weight))
        # Attention on the narrow map comes before the expansion; any other gives the wide map.
        self.narrow = fused.attention is None or (
            fused.pre_attention
            and fused.attention != "spanning"
            and isinstance(fused.norm, nn.LayerNorm)
        )
        self.expands = self.narrow and not isinstance(fused.expand, nn.Identity)
        self.act = _ACTS[fused.expand.act] if self.expands else 0
        if self.expands:
            self.keep("expand", _panels(fused.expand.weight))
            self.keep("expand_bias", _vectors(fused.expand.bias))
        layer = isinstance(fused.norm, nn.LayerNorm)
        self.normalises = layer and self.expands and fused.attention is None
        if layer:
            self.keep("norm_weight", _vectors(fused.norm.weight))
            self.keep("norm_bias", _vectors(fused.norm.bias))
        if self.narrow and fused.attention:
            weight, bias = fused.qk.weight, fused.qk.bias
            channels = weight.shape[1]
            scale = torch.ones_like(bias)
            scale[:channels] = (channels // fused.heads) ** -0.5
            self.keep("qk", _panels(weight * scale[:, None]))
            self.keep("qk_bias", _vectors(bias * scale))

    def forward(self, x: Tensor) -> Tensor:
        """As `iRMB.forward`; the result is channels-last in memory."""
        if not _can(x):
            return self.fused(x)
        x, fused = x.permute(0, 2, 3, 1).contiguous(), self.fused
        ops: Any = torch.ops.tenfold_emo
        if fused.attention is None:
            u = x if self.normalises else fused.norm(x)
        elif self.narrow:
            u = ops.attend(
                x,
                self.norm_weight,
                self.norm_bias,
                fused.norm.eps,
                self.qk,
                self.qk_bias,
                fused.window,
                fused.heads,
                fused.attention == "remote",
            )
        else:
            u = fused.attend(fused.norm(x)).contiguous()
        y = ops.block(
            u,
            x if fused.skip else None,
            self.expand if self.expands else None,
            self.expand_bias if self.expands else None,
            self.act,
            self.norm_weight if self.normalises else None,
            self.norm_bias if self.normalises else None,
            fused.norm.eps if self.normalises else 0.0,
            self.local,
            self.local_bias,
            self.kernel,
            self.stride,
            self.shrink,
            self.out,
            fused.skip,
        )
        return y.permute(0, 3, 1, 2)


class NativeStart(_Native):
    """The first convolution, the stem's block and the first block of stage 1 with the kernels.

    Args:
        fused: A `FusedStem` and two `FusedBlock`, in sequence, the shrink of the first block folded
            into the expansion of the second.
    """

    def __init__(self, fused: Any) -> None:
        super().__init__(fused)
        conv, stem, block = fused[0].conv, fused[1], fused[2]
        self.act, self.expand_act = _ACTS[conv.act], _ACTS[block.expand.act]
        self.keep("conv", _panels(conv.weight.flatten(1)))
        self.keep("conv_bias", _vectors(conv.bias))
        self.keep_local(stem.local, "stem")
        self.stem_kernel = stem.local.weight.shape[-1]
        self.excites = not isinstance(stem.se, nn.Identity)
        if self.excites:
            for name, layer in (("reduce", stem.se.conv_reduce), ("excite", stem.se.conv_expand)):
                self.keep(name, layer.weight.detach().flatten(1).contiguous())
                self.keep(name + "_bias", layer.bias.detach().clone())
        self.keep("expand", _panels(block.expand.weight))
        self.keep("expand_bias", _vectors(block.expand.bias))
        self.keep_local(block.local)
        self.kernel, self.stride = block.local.weight.shape[-1], block.local.stride[0]
        self.out: int = block.shrink.weight.shape[0]
        self.keep("shrink", _panels(block.shrink.weight))

    def forward(self, x: Tensor) -> Tensor:
        """Maps an image [B, in_chans, H, W] to stage 1's first map [B, C, H / 4, W / 4]."""
        if not _can(x):
            return self.fused(x)
        squeeze = (
            (self.reduce, self.reduce_bias, self.excite, self.excite_bias)
            if self.excites
            else (None, None, None, None)
        )
        y = torch.ops.tenfold_emo.start(
            x,
            self.conv,
            self.conv_bias,
            self.act,
            self.stem,
            self.stem_bias,
            self.stem_kernel,
            *squeeze,
            self.expand,
            self.expand_bias,
            self.expand_act,
            self.local,
            self.local_bias,
            self.kernel,
            self.stride,
            self.shrink,
            self.out,
        )
        return y.permute(0, 3, 1, 2)
