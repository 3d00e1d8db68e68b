import math
import sys

import numpy as np
import pytest
import timm
import torch
from emo_fill import fill

from tenfold.emo.export import export, onnx_session, run_exported
from tenfold.shared.errors import InputError


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((1, 1, 1, 2), id="one-block-of-each-kind"),
        pytest.param((2, 2, 8, 3), id="emo_1m", marks=pytest.mark.slow),
    ],
)
def filled(request):
    """EMO-1M; in the quick tests with fewer blocks, since tracing takes seconds for each."""
    return fill(timm.create_model("emo_1m", depths=request.param)).float()


@pytest.fixture(scope="module")
def onnx_file(filled, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "emo.onnx"
    assert export(filled, str(path)) < 1e-4
    return path


@pytest.mark.parametrize("shape", [(1, 224, 224), (5, 224, 224), (1, 256, 320), (5, 256, 320)])
def test_onnxruntime_is_within_1e_4(filled, onnx_file, shape):
    batch, height, width = shape
    x = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = filled(x).numpy()
    found = onnx_session(onnx_file).run(None, {"x": x.numpy()})[0]
    assert np.abs(found - expected).max() < 1e-4


def test_int8_keeps_the_order_of_the_logits(small, tmp_path):
    model = fill(small()).float()
    x = torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "emo.int8.onnx"
    difference = export(model, path, "onnx-int8", 64, dynamic=False, calibration=x)
    with torch.inference_mode():
        logits = model(x)
    found = torch.cat(
        [torch.from_numpy(run_exported(path, part, "onnx-int8")) for part in x.split(1)]
    )
    assert difference < 0.1 * logits.abs().max()
    # The classes of a network that nobody trained differ little between images: take what differs.
    best = [(y - logits.mean(0)).argmax(1) for y in (found, logits)]
    assert len(best[1].unique()) > 3
    assert (best[0] == best[1]).float().mean() >= 0.75
    assert torch.corrcoef(torch.stack([found.flatten(), logits.flatten()]))[0, 1] > 0.98
    assert sorted(p.name for p in tmp_path.iterdir()) == ["emo.int8.onnx"]
    weights = path.read_bytes()
    assert b"QuantizeLinear" in weights


@pytest.mark.slow
def test_onnx_of_emo2_takes_any_batch_and_size(small, tmp_path):
    model = small(
        depths=(1, 1, 1, 2), attention="spanning", pre_attention=False, layer_scale=1.0,
        kernel_sizes=(5, 5, 5, 5), stem_se=False, stem_act=True,
    )  # fmt: skip
    path = tmp_path / "emo2.onnx"
    model = fill(model).float()
    assert export(model, path, size=64) < 1e-4  # also at batch 5 and 96×160
    x = torch.rand(3, 3, 72, 100)  # padded
    with torch.inference_mode():
        assert np.abs(run_exported(path, x) - model(x).numpy()).max() < 1e-4


@pytest.mark.slow
def test_torch_export_takes_any_batch_and_size(small, tmp_path):
    model = fill(small()).float()
    path = tmp_path / "emo.pt2"
    assert export(model, path, size=64) < 1e-4
    for shape in ((3, 3, 33, 70), (1, 3, 128, 128)):
        x = torch.rand(shape)
        with torch.inference_mode():
            expected = model(x).numpy()
        assert np.abs(run_exported(path, x) - expected).max() < 1e-4


def test_the_difference_is_looked_at(small, tmp_path, monkeypatch):
    model = fill(small(depths=(1, 1, 1, 1))).float()
    monkeypatch.setattr(
        "tenfold.emo.export.run_exported", lambda path, x, format: np.ones((len(x), 10)) * 9
    )
    with pytest.raises(RuntimeError, match="differs from eager"):
        export(model, tmp_path / "emo.pt2", size=64, dynamic=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"path": "emo.tflite"}, "unknown"),
        ({"path": "emo.onnx", "format": "onnx-int8"}, "calibration"),
        ({"path": "emo.onnx", "size": 0}, "size=0"),
    ],
)
def test_wrong_input(small, tmp_path, options, words):
    path = tmp_path / options.pop("path")
    with pytest.raises(InputError, match=words):
        export(small(), path, **options)


@pytest.mark.parametrize(
    ("path", "module", "extra"),
    [
        ("emo.onnx", "onnxscript", "onnx"),
        ("emo.pte", "executorch.exir", "executorch"),
    ],
)
def test_a_missing_library_is_named(small, tmp_path, monkeypatch, path, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"tenfold-emo\[{extra}\]"):
        export(small(), tmp_path / path, size=64)


def test_executorch(small, tmp_path):
    pytest.importorskip("executorch.runtime", reason="the extra executorch is not installed")
    assert export(fill(small()).float(), tmp_path / "emo.pte", size=64) < 1e-4


@pytest.mark.parametrize("size", [64, 72])  # 72: the attention pads and crops
def test_coreml_converts(small, tmp_path, size):
    ct = pytest.importorskip("coremltools", reason="the extra coreml is not installed")
    path = tmp_path / "emo.mlpackage"
    difference = export(fill(small()).float(), path, size=size)
    assert difference < 1e-4 if sys.platform == "darwin" else math.isnan(difference)
    spec = ct.utils.load_spec(str(path))
    (given,), (found,) = spec.description.input, spec.description.output
    assert (given.name, list(given.type.multiArrayType.shape)) == ("x", [1, 3, size, size])
    assert (found.name, list(found.type.multiArrayType.shape)) == ("logits", [1, 10])
    operators = {
        o.type
        for f in spec.mlProgram.functions.values()
        for block in f.block_specializations.values()
        for o in block.operations
    }
    assert {"conv", "softmax", "linear"} & operators
