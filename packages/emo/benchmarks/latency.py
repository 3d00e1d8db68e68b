"""EMO and timm's mobile models side by side on this CPU: cost, latency, published accuracy.

    uv run --package tenfold-emo packages/emo/benchmarks/latency.py
    uv run --package tenfold-emo packages/emo/benchmarks/latency.py \
        --models emo_1m edgenext_xx_small --forms plain optimised native compiled onnxruntime

For each model: parameters, MACs and "FLOPs" (fvcore's convention, see `profile`), the median
latency of each form at each batch and number of threads. The forms of a model are measured in turn
(A B A B ...), so their ratios hold even where the machine drifts. `optimised` is this
package's `optimize_for_inference` for EMO, and for the others timm's `reparameterize_model` and
channels-last; `native` is EMO with this package's own kernels, which `compiled` has too. Weights
are fresh: latency does not depend on them. Accuracy is ImageNet top-1 as published (EMO's paper
and tables of EMOv2's), empty where it is not at hand. Writes results.json and latency.png beside
this file.
"""

import argparse
import datetime
import json
import sys
import tempfile
from functools import partial
from pathlib import Path

import timm
import torch

import tenfold.emo  # noqa: F401 - registers the models
from tenfold.emo.export import export, onnx_session
from tenfold.emo.latency import measure, optimised, with_threads
from tenfold.emo.profiling import profile
from tenfold.shared.compute import environment

MODELS = [
    "emo_1m", "emo_2m", "emo_5m", "emo2_1m", "edgenext_xx_small", "edgenext_x_small",
    "mobilenetv4_conv_small", "repvit_m0_9", "fastvit_t8", "starnet_s1", "mobilevitv2_050",
    "efficientformerv2_s0",
]  # fmt: skip
PUBLISHED = {
    "emo_1m": 71.498, "emo_2m": 75.134, "emo_5m": 78.422, "emo_6m": 78.988, "emo2_1m": 72.3,
    "emo2_2m": 75.8, "emo2_5m": 79.4, "edgenext_xx_small": 71.2, "edgenext_x_small": 75.0,
    "mobilevitv2_050": 70.2,
}  # fmt: skip
FORMS = ("plain", "optimised", "native", "compiled", "onnxruntime")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--forms", nargs="+", default=["plain", "optimised"], choices=FORMS)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--add", action="store_true", help="keep the other rows of results.json")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    rows = []
    for name in options.models:
        rows += measure_model(name, options)
        for row in rows[-len(options.batches) * len(options.threads) :]:
            print(row, flush=True)
    path = options.output / "results.json"
    if options.add and path.exists():
        key = lambda row: (row["model"], row["batch"], row["threads"])  # noqa: E731
        measured = {key(row) for row in rows}
        kept = [r for r in json.loads(path.read_text())["rows"] if key(r) not in measured]
        order = {name: i for i, name in enumerate(MODELS)}
        rows = sorted(kept + rows, key=lambda r: (r["threads"], order.get(r["model"], 99)))
    written = {
        "date": datetime.date.today().isoformat(),
        "command": sys.argv,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "environment": environment(),
        "rows": rows,
    }
    path.write_text(json.dumps(written, indent=1) + "\n")
    plot(rows, options.output / "latency.png")


def measure_model(name: str, options: argparse.Namespace) -> list[dict]:
    size, rows = options.size, []
    plain = timm.create_model(name).eval()
    whole = profile(plain, size)[0]
    cost = {"parameters": whole.parameters, "macs": whole.macs, "flops_fvcore": whole.flops}
    forms = {"plain": plain}
    if "optimised" in options.forms:
        forms["optimised"] = optimised(timm.create_model(name).eval())
    if "native" in options.forms and name.startswith("emo"):
        forms["native"] = optimised(timm.create_model(name).eval(), native=True)
    if "compiled" in options.forms:
        net = optimised(timm.create_model(name).eval(), native=True)
        forms["compiled"] = torch.compile(net, dynamic=False)
    with tempfile.TemporaryDirectory() as folder:
        for threads in options.threads:
            calls = dict(forms)
            if "onnxruntime" in options.forms and name.startswith("emo"):
                path = Path(folder, "model.onnx")
                if not path.exists():
                    export(plain, path, size=size)
                session = onnx_session(path, threads)
                calls["onnxruntime"] = lambda x, s=session: s.run(None, {"x": x.numpy()})
            for batch in options.batches:
                x = torch.randn(batch, 3, size, size)
                last = x.contiguous(memory_format=torch.channels_last)
                inputs = {"plain": x, "onnxruntime": x}
                with with_threads(threads), torch.inference_mode():
                    times = measure(
                        {k: partial(call, inputs.get(k, last)) for k, call in calls.items()},
                        options.repeats,
                    )
                row = {"model": name, "size": size, "batch": batch, "threads": threads, **cost}
                row |= {f"{k}_ms": round(v, 2) for k, v in times.items()}
                row |= {
                    f"{k}_faster": round(times["plain"] / v, 2)
                    for k, v in times.items()
                    if k != "plain"
                }
                rows.append(row | {"published_top1": PUBLISHED.get(name)})
    return rows


def plot(rows: list[dict], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for row in rows:
        if row["published_top1"] is None or row["threads"] != rows[0]["threads"]:
            continue
        if row["batch"] != rows[0]["batch"]:
            continue
        # Not onnxruntime, which is measured for EMO only.
        best = min(v for k, v in row.items() if k.endswith("_ms") and k != "onnxruntime_ms")
        marker = "o" if row["model"].startswith("emo") else "s"
        axis.plot(best, row["published_top1"], marker, color="C0" if marker == "o" else "C7")
        axis.annotate(
            row["model"], (best, row["published_top1"]), xytext=(4, 4), textcoords="offset points"
        )
    axis.set(
        xlabel=f"latency of the fastest form in torch, ms (batch {rows[0]['batch']})",
        ylabel="ImageNet top-1 as published, %",
    )
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
