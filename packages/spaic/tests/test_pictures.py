"""What the pictures show, read back from matplotlib's own objects."""

from types import SimpleNamespace

import numpy as np
import pytest

from tenfold.shared.errors import InputError
from tenfold.spaic import (
    Connection,
    Encoder,
    Network,
    NeuronGroup,
    SpikeMonitor,
    StateMonitor,
    pictures,
)


def run():
    with Network() as net:
        source = Encoder(num=3, coding_method="null")
        cells = NeuronGroup(3, model="if", v_th=0.5)
        link = Connection(source, cells, weight=np.eye(3))
        spikes = SpikeMonitor(cells)
        trace = StateMonitor(cells, "V")
    assert link in net
    net.set_backend_dt(1.0)
    net.build(strategy=1)
    data = np.zeros((1, 10, 3))
    data[0, [2, 5], 1] = 1.0
    data[0, :, 2] = 0.1
    net.source(data)
    net.run(10.0)
    return spikes, trace


def test_the_raster_has_a_dot_for_each_spike():
    spikes, _ = run()
    axes = pictures.raster([spikes]).axes[0]
    dots = np.concatenate([line.get_xydata() for line in axes.lines])
    inside = [(t, k) for t, k in dots.tolist() if k == 1]
    assert inside == [(3.0, 1.0), (6.0, 1.0)]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cells"]


def test_rates_count_spikes_of_a_window():
    spikes, _ = run()
    (line,) = pictures.population_rates([spikes], bin_ms=5.0).axes[0].lines
    total = line.get_ydata() * 0.005 * 3  # Hz × s × neurons
    assert round(total.sum()) == len(spikes.spk_times[0])


def test_every_window_of_a_steady_rate_is_the_same():
    with Network() as net:
        source = Encoder(num=2, coding_method="float")
        cells = NeuronGroup(2, model="if", v_th=0.5)
        Connection(source, cells, weight=np.eye(2))
        spikes = SpikeMonitor(cells)
    net.set_backend_dt(0.1)
    net.build(strategy=1)
    net.source(np.ones((1, 2)))
    net.run(20.0)  # a spike at every step
    (line,) = pictures.population_rates([spikes], bin_ms=5.0).axes[0].lines
    np.testing.assert_allclose(line.get_ydata(), 10_000)
    assert line.get_xdata().tolist() == [2.5, 7.5, 12.5, 17.5]


def test_traces_and_the_phase_plane_show_the_recorded_values():
    _, trace = run()
    lines = pictures.traces(trace, [2, 1]).axes[0].lines
    np.testing.assert_array_equal(lines[0].get_ydata(), trace.values[0, 2])
    np.testing.assert_allclose(lines[0].get_ydata()[:5], [0.1, 0.2, 0.3, 0.4, 0.5], rtol=1e-6)
    path, dot = pictures.phase_plane(trace, trace, 2).axes[0].lines
    np.testing.assert_array_equal(path.get_xdata(), path.get_ydata())
    assert dot.get_xdata()[0] == trace.values[0, 2, 0]
    image = pictures.activity_image(trace).axes[0].images[0]
    np.testing.assert_array_equal(image.get_array(), trace.values[0])


def test_weights_and_classes_lie_row_by_row():
    weight = np.arange(3 * 4, dtype=float).reshape(3, 4)
    shown = pictures.weight_image(weight).get_array().filled(np.nan)
    assert shown[:2, :2].tolist() == [[0, 1], [2, 3]]
    assert shown[:2, 2:].tolist() == [[4, 5], [6, 7]]
    assert shown[2:, :2].tolist() == [[8, 9], [10, 11]]
    assert np.isnan(shown[2:, 2:]).all()  # there is no fourth neuron
    figure = pictures.assignments_image(np.array([3, -1, 0]))
    classes = figure.axes[0].images[0].get_array()
    assert classes.filled(np.nan)[0, 0] == 3
    assert np.isnan(np.asarray(classes.filled(np.nan))[0, 1])


def test_confusion_counts_and_curves_mean():
    shown = pictures.confusion(np.array([0, 1, 1]), np.array([0, 1, 0])).axes[0].images[0]
    assert np.asarray(shown.get_array()).tolist() == [[1, 0], [1, 1]]
    _, mean = pictures.returns_curve([1.0, 3.0, 5.0]).axes[0].lines
    assert mean.get_ydata().tolist() == [1.0, 2.0, 3.0]
    (line,) = pictures.learning_curve([{"epoch": 0, "loss": 2.0}]).axes[0].lines
    assert line.get_xydata().tolist() == [[1.0, 2.0]]


def test_points_are_animated_frame_by_frame(tmp_path):
    from PIL import Image

    frames = [np.array([[x, 10.0, 0.0], [0.0, 0.0, 1.0]]) for x in (0.0, 10.0, 20.0)]
    path = pictures.scatter_animation(frames, tmp_path / "moving.gif", [1.0, 2.0, 3.0], 6.0)
    with Image.open(path) as image:
        shown = []
        for k in range(image.n_frames):
            image.seek(k)
            shown.append(np.asarray(image.convert("RGB")).astype(int))
    assert len(shown) == 3
    # The dark point (the lowest colour) stands at the top and goes to the right.
    places = [
        np.nonzero((abs(frame - (68, 1, 84)).sum(2) < 40)[:, : 5 * frame.shape[1] // 6])[1].mean()
        for frame in shown
    ]
    assert places[0] + 20 < places[1] < places[2] - 20
    with pytest.raises(InputError, match=r"frame 0 has shape \(3,\)"):
        pictures.scatter_animation([np.zeros(3)], path)
    with pytest.raises(InputError, match="no points"):
        pictures.scatter_animation([], path)
    with pytest.raises(InputError, match="2 times for 3 frames"):
        pictures.scatter_animation(frames, path, [1.0, 2.0])
    with pytest.raises(InputError, match=r"written as \.gif"):
        pictures.scatter_animation(frames, tmp_path / "moving.mp4")


def test_a_sheet_is_shown_at_some_moments():
    monitor = SimpleNamespace(
        values=np.arange(24.0).reshape(1, 1, 2, 3, 4), times=np.arange(1.0, 5.0), var_name="O"
    )
    figure = pictures.sheet_frames(monitor, 2)
    first, last = (axes for axes in figure.axes if axes.get_title())
    assert (first.get_title(), last.get_title()) == ("1.0 ms", "4.0 ms")
    np.testing.assert_array_equal(last.images[0].get_array(), monitor.values[0, 0, ..., 3])
