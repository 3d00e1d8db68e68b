"""The numbers of a paper (`published.toml`), and the comparison with those measured here.

```toml
[source]
title = "…"
authors = "…"
venue = "AAAI 2023"
arxiv = "2301.01098"

[[result]]
table = "2"
dataset = "cora"
method = "CCGC"
metric = "ACC"
value = 73.88
std = 1.20
```
"""

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tenfold.shared.config import from_mapping, read_mapping, resource_folder
from tenfold.shared.errors import InputError

if TYPE_CHECKING:
    from tenfold.shared.runs import Measurement


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the numbers stand."""

    title: str
    authors: str
    venue: str
    arxiv: str | None = None
    doi: str | None = None
    note: str | None = None


@dataclasses.dataclass(frozen=True)
class PublishedResult:
    """One number of the paper: `value` (and `std`) as printed in `table`."""

    table: str
    dataset: str
    method: str
    metric: str
    value: float
    std: float | None = None


@dataclasses.dataclass(frozen=True)
class Published:
    """A paper's numbers and their source."""

    source: Source
    results: tuple[PublishedResult, ...]

    def lookup(self, dataset: str, metric: str, method: str) -> PublishedResult | None:
        """Finds one number; names are compared without regard to case.

        Args:
            dataset: The data set.
            metric: The metric.
            method: The method.

        Returns:
            The number, or None if the paper does not have it.

        Raises:
            InputError: If several tables have different values.
        """
        wanted = (dataset.casefold(), metric.casefold(), method.casefold())
        found = {
            (item.value, item.std): item
            for item in self.results
            if wanted == (item.dataset.casefold(), item.metric.casefold(), item.method.casefold())
        }
        if len(found) > 1:
            tables = ", ".join(item.table for item in found.values())
            raise InputError(f"{method}, {metric} on {dataset} differs between tables {tables}")
        return next(iter(found.values()), None)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One row of the table paper / here / difference; what is not known is None."""

    dataset: str
    method: str
    protocol: str
    metric: str
    paper: float | None
    paper_std: float | None
    here: float
    here_std: float | None
    n: int
    difference: float | None


def published(package: str) -> Published:
    """Reads the `published.toml` of an installed package.

    Args:
        package: The name in the command line.

    Raises:
        InputError: If there is no such package or file, or the file is wrong: a key, a type.
    """
    path = resource_folder(package) / "published.toml"
    values = read_mapping(path)
    values["results"] = values.pop("result", [])  # TOML names one table of the array
    return from_mapping(Published, values, str(path))


def compare(paper: Published, measurements: "Iterable[Measurement]") -> list[Comparison]:
    """Puts measured numbers beside the paper's.

    Args:
        paper: The paper's numbers.
        measurements: The measured ones.

    Returns:
        A row for each measurement, in their order; `paper` and `difference` (here − paper) are
        None where the paper does not have the number.
    """
    rows = []
    for item in measurements:
        found = paper.lookup(item.dataset, item.metric, item.method)
        rows.append(
            Comparison(
                dataset=item.dataset,
                method=item.method,
                protocol=item.protocol,
                metric=item.metric,
                paper=found.value if found else None,
                paper_std=found.std if found else None,
                here=item.value,
                here_std=item.std,
                n=item.n,
                difference=item.value - found.value if found else None,
            )
        )
    return rows
