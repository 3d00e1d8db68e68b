import sys

import numpy as np
import pytest
import torch

from tenfold.shared.errors import InputError
from tenfold.tenet import export as module
from tenfold.tenet import load_scenes
from tenfold.tenet.export import INPUTS, export_model, run_exported
from tenfold.tenet.model import ModelConfig, Tenet

SMALL = ModelConfig(width=16, heads=2, encoder_layers=1, decoder_layers=1, dense=True)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Tenet(SMALL).eval()


@pytest.mark.parametrize("ending", [".onnx", pytest.param(".pt2", marks=pytest.mark.slow)])
def test_an_exported_file_gives_what_the_packed_model_gives(model, tmp_path, ending):
    path = tmp_path / f"tenet{ending}"
    assert export_model(model, path) < 1e-3
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
    batch = load_scenes("generated:5:9").batch(range(5), 11, 33)  # sizes not seen before
    with torch.inference_mode():
        expected = model(batch)
    found = run_exported(path, {name: getattr(batch, name) for name in INPUTS})
    np.testing.assert_allclose(found[0], expected.trajectories, atol=1e-3)
    np.testing.assert_allclose(found[1], expected.probabilities, atol=1e-5)


def test_what_differs_or_cannot_be_written_is_refused(model, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"tenet\.pt: expected a name that ends in \.pt2"):
        export_model(model, tmp_path / "tenet.pt")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"onnxruntime is not installed.*tenfold-tenet\[onnx\]"):
        export_model(model, tmp_path / "tenet.onnx")
    monkeypatch.setattr(module, "run_exported", lambda path, inputs: (np.ones(1), np.ones(1)))
    with pytest.raises(RuntimeError, match="differs from eager by"):
        export_model(model, tmp_path / "tenet.pt2")
