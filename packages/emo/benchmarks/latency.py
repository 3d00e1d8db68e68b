"""EMO and timm's mobile models side by side on this CPU: cost, latency, published accuracy.

    uv run --package tenfold-emo --extra onnx packages/emo/benchmarks/latency.py
    uv run --package tenfold-emo --extra onnx packages/emo/benchmarks/latency.py --resume

For each model: parameters, MACs and "FLOPs" (fvcore's convention, see `profile`), the median
latency of each form at each batch and number of threads, at 224². The forms of a model are measured
in turn (A B A B ...), so their ratios hold even where the machine drifts. The forms:

    plain        the model as timm makes it, eager
    optimised    EMO: `optimize_for_inference`; others: timm's `reparameterize_model`, channels-last
    native       EMO only: `optimize_for_inference(native=True)`, this package's own kernels
    compiled     torch.compile of the form before it
    onnxruntime  the optimised form, exported for the batch

Weights are fresh: latency does not depend on them. Accuracy is ImageNet top-1 as published, from
the tables of EMO and EMOv2, empty where they have no such row; `published_size` is the side of the
images at which it was measured (not always the side whose latency is), empty where the tables do
not say. results.json and latency.png stand beside this file and are written anew after each model,
so that `--resume` goes on after a break: it measures the models that results.json lacks, or those
that `--models` names.

Each row names its processor. Times of two processors do not compare, so `--resume` drops the rows
of another one and measures them anew; `--mix` keeps them, and the plot then says of each model
where it was measured.
"""

import argparse
import datetime
import json
import tempfile
from functools import partial
from pathlib import Path

import timm
import torch

import tenfold.emo  # noqa: F401 - registers the models
from tenfold.emo.export import onnx_session
from tenfold.emo.latency import measure, optimised, with_threads
from tenfold.emo.profiling import profile
from tenfold.shared.compute import cpu_name, environment

MODELS = [
    "emo_1m", "edgenext_xx_small", "emo_2m", "emo_5m", "emo2_1m", "mobilenetv4_conv_small",
    "repvit_m0_9", "fastvit_t8", "starnet_s1", "mobilevitv2_050", "efficientformerv2_s0",
    "edgenext_x_small",
]  # fmt: skip
PUBLISHED = {
    "emo_1m": (71.498, 224), "emo_2m": (75.134, 224), "emo_5m": (78.422, 224),
    "emo_6m": (78.988, 224), "emo2_1m": (72.3, 224), "emo2_2m": (75.8, 224),
    "emo2_5m": (79.4, 224), "edgenext_xx_small": (71.2, 256), "edgenext_x_small": (75.0, None),
    "mobilevitv2_050": (70.2, None),
}  # fmt: skip
"""ImageNet top-1 in percent, and the side of the images; None where the tables do not say."""
FORMS = ("plain", "optimised", "native", "compiled", "onnxruntime")
SIZE = 224


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=FORMS)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--resume", action="store_true", help="keep what results.json has")
    parser.add_argument("--mix", action="store_true", help="keep rows of other processors too")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    path = options.output / "results.json"
    rows: list[dict] = []
    if options.resume and path.exists():
        rows = json.loads(path.read_text())["rows"]
        if not options.mix:
            rows = [row for row in rows if row.get("cpu") == cpu_name()]
    for name in options.models or MODELS:
        wanted = {(name, b, t) for b in options.batches for t in options.threads}
        if not options.models and wanted <= {key(row) for row in rows}:
            continue
        made = measure_model(name, options)
        for row in made:
            print(row, flush=True)
        order = [*MODELS, *(options.models or ())]
        rows = [row for row in rows if key(row) not in wanted] + made
        rows.sort(key=lambda row: (row["threads"], order.index(row["model"]), row["batch"]))
        written = {
            "command": "packages/emo/benchmarks/latency.py",
            "torch": torch.__version__,
            "timm": timm.__version__,
            "environment": environment(),
            "rows": rows,
        }
        path.write_text(json.dumps(written, indent=1) + "\n")
        plot(rows, options.output / "latency.png", options.mix)


def key(row: dict) -> tuple[str, int, int]:
    return row["model"], row["batch"], row["threads"]


def measure_model(name: str, options: argparse.Namespace) -> list[dict]:
    rows = []
    make = lambda: timm.create_model(name).eval()  # noqa: E731
    plain, ours = make(), name.startswith("emo")
    whole = profile(plain, SIZE)[0]
    cost = {"parameters": whole.parameters, "macs": whole.macs, "flops_fvcore": whole.flops}
    forms = {"plain": plain, "optimised": optimised(make())}
    if ours:
        forms["native"] = optimised(make(), native=True)
    forms["compiled"] = torch.compile(optimised(make(), native=True), dynamic=False)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for batch in options.batches:
            x = torch.randn(batch, 3, SIZE, SIZE)
            last = x.contiguous(memory_format=torch.channels_last)
            path = Path(folder, f"{batch}.onnx")
            if "onnxruntime" in options.forms:
                with torch.inference_mode(False), torch.no_grad():
                    example = (torch.randn(batch, 3, SIZE, SIZE),)
                    torch.onnx.export(optimised(make()), example, path, dynamo=True, verbose=False)
            for threads in options.threads:
                calls = {k: partial(f, x if k == "plain" else last) for k, f in forms.items()}
                if path.exists():
                    session = onnx_session(path, threads)
                    given = {session.get_inputs()[0].name: x.numpy()}
                    calls["onnxruntime"] = partial(session.run, None, given)
                calls = {k: call for k, call in calls.items() if k in options.forms}
                with with_threads(threads):
                    times = measure(calls, options.repeats)
                row = {"model": name, "size": SIZE, "batch": batch, "threads": threads, **cost}
                row |= {f"{k}_ms": round(v, 2) for k, v in times.items()}
                if "plain" in times:
                    ratios = {k: round(times["plain"] / v, 2) for k, v in times.items()}
                    row |= {f"{k}_faster": v for k, v in ratios.items() if k != "plain"}
                row["published_top1"], row["published_size"] = PUBLISHED.get(name, (None, None))
                row["cpu"] = cpu_name()
                rows.append(row | {"date": datetime.date.today().isoformat()})
    return rows


def label(row: dict, mix: bool) -> str:
    """Names a model with what sets its point apart: the accuracy's image side, the processor."""
    size = row.get("published_size")
    text = f"{row['model']} ({f'{size}²' if size else 'size not stated'})"
    return f"{text}, {row.get('cpu') or 'unknown processor'}" if mix else text


def plot(rows: list[dict], path: Path, mix: bool = False) -> None:
    from matplotlib.figure import Figure

    processors = sorted({str(row.get("cpu")) for row in rows})
    if len(processors) > 1 and not mix:
        raise ValueError(
            f"rows of {len(processors)} processors ({', '.join(processors)}) do not compare; "
            "measure all on one, or give --mix"
        )
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    first = rows[0]["threads"]
    batches = sorted({row["batch"] for row in rows})
    for axis, batch in zip(
        figure.subplots(1, len(batches), squeeze=False)[0], batches, strict=True
    ):
        for row in rows:
            if row["published_top1"] is None or (row["batch"], row["threads"]) != (batch, first):
                continue
            best = min(v for k, v in row.items() if k.endswith("_ms"))
            colour = "C0" if row["model"].startswith("emo") else "C7"
            at = (best, row["published_top1"])
            axis.plot(*at, "o" if colour == "C0" else "s", color=colour)
            aside = (6, 4) if colour == "C0" else (6, -10)  # ours above, peers below
            text = label(row, mix)
            axis.annotate(text, at, xytext=aside, textcoords="offset points", fontsize=8)
        axis.set(
            xlabel=f"latency of the fastest form, ms (batch {batch}, {first} thread)",
            ylabel="ImageNet top-1 as published, %, at the side in brackets",
        )
        axis.margins(x=0.5, y=0.15)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
