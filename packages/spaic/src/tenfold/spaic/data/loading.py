"""Map-style data sets, samplers and the loader under SPAIC's names (card section 13).

A batch is a pair of NumPy arrays (data, labels), which nodes take as they are:

    for data, labels in Dataloader(CustomDataset(x, y), batch_size=100, shuffle=True):
        net.input(data); net.output(labels); net.run(50.0)
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.shared.errors import InputError


class Dataset:
    """Something with a length whose items are pairs (data, label): subclass it."""

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Gives one sample and its label.

        Args:
            index: From 0.
        """
        raise NotImplementedError

    def __len__(self) -> int:
        """Gives the number of samples."""
        raise NotImplementedError


class CustomDataset(Dataset):
    """Arrays as a data set.

    Args:
        data: [n, ...].
        label: [n].

    Raises:
        InputError: If there are not as many labels as samples.
    """

    def __init__(self, data: Any, label: Any) -> None:
        self.data, self.label = np.asarray(data), np.asarray(label)
        if len(self.data) != len(self.label):
            raise InputError(
                f"{len(self.data)} samples with {len(self.label)} labels; expected a label each"
            )

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Gives one sample and its label."""
        return self.data[index], self.label[index]

    def __len__(self) -> int:
        """Gives the number of samples."""
        return len(self.data)


class CustomSpikeDataset(Dataset):
    """Spike trains as a data set; an item is ([times, neurons], label), as `mstb` takes it.

    Args:
        spike_times: For each sample the times in ms.
        neuron_ids: For each sample the neuron of each spike.
        label: [n].

    Raises:
        InputError: If the three do not fit together; it names the sample.
    """

    def __init__(self, spike_times: Sequence[Any], neuron_ids: Sequence[Any], label: Any) -> None:
        self.label = np.asarray(label)
        if not len(spike_times) == len(neuron_ids) == len(self.label):
            raise InputError(
                f"{len(spike_times)} lists of times, {len(neuron_ids)} of neurons and "
                f"{len(self.label)} labels; expected as many of each"
            )
        for k, (times, neurons) in enumerate(zip(spike_times, neuron_ids, strict=True)):
            if len(times) != len(neurons):
                raise InputError(f"sample {k} has {len(times)} times and {len(neurons)} neurons")
        self.spike_times, self.neuron_ids = spike_times, neuron_ids

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Gives one sample and its label."""
        times, neurons = self.spike_times[index], self.neuron_ids[index]
        return [np.asarray(times), np.asarray(neurons)], self.label[index]

    def __len__(self) -> int:
        """Gives the number of samples."""
        return len(self.spike_times)


class SpecifiedDataset(Dataset):
    """Images of a folder, with a JSON file of their names and labels.

    Args:
        image_folder: Where the images lie.
        label_json: A JSON object with `images` (file names) and `labels`, of one length.

    Raises:
        InputError: For a file that cannot be read, or a name that leaves the folder.
    """

    def __init__(self, image_folder: Path | str, label_json: Path | str) -> None:
        self.folder = Path(image_folder)
        try:
            made = json.loads(Path(label_json).read_text(encoding="utf-8"))
            self.images, self.labels = list(made["images"]), list(made["labels"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{label_json}: expected a JSON object with `images` and `labels` ({error!r})"
            ) from error
        if len(self.images) != len(self.labels):
            raise InputError(
                f"{label_json}: {len(self.images)} images with {len(self.labels)} labels"
            )
        for name in self.images:
            if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts:
                raise InputError(f"{label_json}: {name!r} is not a file inside {self.folder}")

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Gives an image as uint8 [height, width(, channels)] and its label."""
        from PIL import Image

        path = self.folder / self.images[index]
        try:
            with Image.open(path) as image:
                return np.asarray(image), self.labels[index]
        except OSError as error:
            raise InputError(f"{path}: cannot be read as an image ({error})") from error

    def __len__(self) -> int:
        """Gives the number of samples."""
        return len(self.images)


class SequentialSampler:
    """Goes through a data set from first to last.

    Args:
        data_source: The data set.
    """

    def __init__(self, data_source: Dataset) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        """Goes through the indices."""
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        """Gives the number of indices."""
        return len(self.data_source)


class RandomSampler(SequentialSampler):
    """Goes through a data set in an order that is drawn anew each time.

    Args:
        data_source: The data set.
        seed: Of the orders.
    """

    def __init__(self, data_source: Dataset, seed: int = 0) -> None:
        super().__init__(data_source)
        self._random = np.random.default_rng(seed)

    def __iter__(self) -> Iterator[int]:
        """Goes through the indices."""
        return iter(self._random.permutation(len(self.data_source)).tolist())


class BatchSampler:
    """Puts the indices of a sampler together.

    Args:
        sampler: Indices.
        batch_size: How many.
        drop_last: Whether a last batch that is not full is left out.

    Raises:
        InputError: For a size below 1.
    """

    def __init__(self, sampler: Any, batch_size: int, drop_last: bool = False) -> None:
        whole = isinstance(batch_size, int | np.integer) and not isinstance(batch_size, bool)
        if not whole or batch_size < 1:
            raise InputError(f"batch_size={batch_size!r}; expected a whole number >= 1")
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    def __iter__(self) -> Iterator[list[int]]:
        """Goes through the batches of indices."""
        batch: list[int] = []
        for index in self.sampler:
            batch.append(index)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __len__(self) -> int:
        """Gives the number of batches."""
        count = len(self.sampler) / self.batch_size
        return math.floor(count) if self.drop_last else math.ceil(count)


def collate(samples: Sequence[tuple[Any, Any]]) -> tuple[Any, np.ndarray]:
    """Puts samples together: arrays are stacked, spike trains stay a list of pairs.

    Args:
        samples: (data, label) each.

    Returns:
        [batch, ...] or a list, and the labels [batch].

    Raises:
        InputError: For arrays of different shapes.
    """
    data = [sample for sample, _ in samples]
    labels = np.asarray([label for _, label in samples])
    if isinstance(data[0], list | tuple):
        return data, labels
    shapes = {np.shape(item) for item in data}
    if len(shapes) > 1:
        raise InputError(f"samples of the shapes {sorted(shapes)} cannot be one batch")
    return np.stack(data), labels


class Dataloader:
    """Goes through a data set in batches, in one process.

    Args:
        dataset: The data set.
        batch_size: Samples of a batch.
        shuffle: Whether the order is drawn anew each time; not together with a sampler.
        sampler: The order of the samples.
        batch_sampler: The batches; not together with the four other ways to make them.
        collate_fn: Puts samples together; by default `collate`.
        drop_last: Whether a last batch that is not full is left out.
        seed: Of the drawn orders.

    Raises:
        InputError: For arguments that exclude each other, as in torch.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 1,
        shuffle: bool = False,
        sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[list[int]] | None = None,
        collate_fn: Callable[[Sequence[tuple[Any, Any]]], Any] | None = None,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        if sampler is not None and shuffle:
            raise InputError("sampler excludes shuffle: the sampler says the order")
        others = batch_size != 1 or shuffle or sampler is not None or drop_last
        if batch_sampler is not None and others:
            raise InputError("batch_sampler excludes batch_size, shuffle, sampler and drop_last")
        if sampler is None:
            sampler = RandomSampler(dataset, seed) if shuffle else SequentialSampler(dataset)
        self.dataset, self.batch_size = dataset, batch_size
        self.batch_sampler: Any = batch_sampler or BatchSampler(sampler, batch_size, drop_last)
        self.collate_fn = collate_fn or collate

    def __iter__(self) -> Iterator[Any]:
        """Goes through the batches."""
        for batch in self.batch_sampler:
            yield self.collate_fn([self.dataset[index] for index in batch])

    def __len__(self) -> int:
        """Gives the number of batches."""
        return len(self.batch_sampler)
