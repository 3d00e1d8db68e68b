import pytest
import torch

from tenfold.ccgc import CCGC, digits_graph, label_scores
from tenfold.ccgc.kmeans import kmeans

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_digits_are_clustered_on_the_gpu_as_on_the_cpu(precision):
    data = digits_graph()
    options = {"hops": 3, "learning_rate": 1e-3, "epochs": 100}
    scores = {}
    for device in ("cpu", "cuda"):
        given = options | {"precision": precision if device == "cuda" else "32-true"}
        labels = CCGC(10, device=device, **given).fit_predict(data)
        scores[device] = label_scores(data.y, labels)["ACC"]
    assert scores["cuda"] > 75
    assert scores["cuda"] == pytest.approx(scores["cpu"], abs=10)


def test_mini_batches_train_on_the_gpu():
    data = digits_graph()
    options = {"hops": 3, "learning_rate": 1e-3, "epochs": 60, "batch_size": 512}
    estimator = CCGC(10, device="cuda", **options).fit(data)
    assert estimator.clustering_.labels.is_cuda
    assert label_scores(data.y, estimator.labels_)["ACC"] > 70


def test_k_means_on_the_gpu_equals_k_means_on_the_cpu():
    x = digits_graph().x.double()
    cpu = kmeans(x, 10, init=x[:10])
    gpu = kmeans(x.cuda(), 10, init=x[:10].cuda())
    assert torch.equal(gpu.labels.cpu(), cpu.labels)
    torch.testing.assert_close(gpu.centers.cpu(), cpu.centers)
