"""The Triton kernels of the scan engine, in Triton's interpreter, against those of the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="triton comes with torch on Linux")


def test_triton_gives_the_outputs_and_gradients_of_the_cpu(tmp_path):
    from runpy import run_path

    script = Path(__file__).with_name("triton_layers.py")
    path = tmp_path / "found.pt"
    subprocess.run(
        [sys.executable, str(script), str(path)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        check=True,
        timeout=120,
    )
    found = torch.load(path, weights_only=True)
    expected = run_path(str(script))["everything"]()
    assert len(found) == 13
    for name, (output, grads, kernel) in expected.items():
        other, others, interpreted = found[name]
        assert (kernel, interpreted) == ("Kernel", "TritonKernel")
        assert output.abs().sum() > 0, name
        torch.testing.assert_close(other, output, rtol=1e-5, atol=1e-5)
        assert grads.keys() == others.keys()
        assert max(g.abs().max() for g in grads.values()) > 0, name
        for key, grad in grads.items():
            scale = grad.abs().max().clamp(min=1e-3)
            assert (others[key] - grad).abs().max() / scale < 1e-5, (name, key)
