"""The `tenfold` command, and what a package's `cli.py` needs to join it.

A package registers its app under the entry-point group `tenfold`; it is imported only when one of
its verbs is called. A verb is a plain function that returns an `Outcome` and prints nothing itself:

```python
app = package_app("ccgc", help="Graph clustering without labels.")

@app.command
def train(*, config: Annotated[TrainConfig, FLAT], recipe: Recipe = None) -> Outcome:
    '''Trains on one data set.'''
    ...
    return Outcome({"accuracy": 0.75})
```

`FLAT` makes each field of the dataclass an option. Options win over the recipe, and the recipe
over the dataclass's defaults. `--json` and `--quiet` are there for every verb.
"""

import dataclasses
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Annotated, Any, NoReturn

import cyclopts
from cyclopts import App, Group, Parameter
from cyclopts.config import Dict

from tenfold.shared.compute import is_main_process
from tenfold.shared.config import check_fields, find_recipe, read_mapping, to_json
from tenfold.shared.errors import InputError, UnavailableError, did_you_mean
from tenfold.shared.progress import set_quiet

FLAT = Parameter(name="*")
"""Annotates a dataclass parameter of a verb: each of its fields becomes an option."""

Recipe = Annotated[
    str | None,
    Parameter(help="A recipe of this package, or the path of a TOML file with the same fields."),
]
"""The type of a verb's `recipe` parameter; its values fill the options that are not given."""

_VERBS = {
    "list": "Lists the installed packages.",
    "doctor": "Says what is installed, which devices there are and what is missing.",
    "demo": "Runs the demos of the installed packages and makes one page of them.",
}


@dataclasses.dataclass
class Outcome:
    """What a verb returns.

    Attributes:
        data: The result; `--json` prints it as one JSON object.
        view: What is printed otherwise: text or any rich renderable; by default a table of `data`.
        exit_code: 0, or 1 if the result itself says that something failed.
    """

    data: dict[str, Any]
    view: Any = None
    exit_code: int = 0


def package_app(name: str, help: str) -> App:
    """Makes the app of a package; its entry point names the variable that holds it.

    Args:
        name: The name in the command line, as in the distribution `tenfold-<name>`.
        help: What the package does, in one sentence.

    Returns:
        The app; register verbs with its `command`. List options take several values at once
        (`--datasets cora bat`), and `--recipe` fills a dataclass parameter marked `FLAT`.
    """
    return _app(name, help, version=f"tenfold-{name}", config=_recipe_values(name))


def _app(name: str, help: str, version: str, **settings: Any) -> App:
    """Makes an app with the habits that all of the command has."""
    return App(
        name=name,
        help=help,
        help_format="plaintext",
        version=lambda: metadata.version(version),
        suppress_keyboard_interrupt=False,
        default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
        **settings,
    )


def _recipe_values(package: str) -> Callable[[App, tuple[str, ...], Any], None]:
    """Makes the cyclopts configuration source that supplies the values of `--recipe`."""

    def supply(app: App, commands: tuple[str, ...], arguments: Any) -> None:
        given = [
            item.tokens[-1].value for item in arguments if item.name == "--recipe" and item.tokens
        ]
        kinds = [item.hint for item in arguments if dataclasses.is_dataclass(item.hint)]
        if given and kinds:
            path = find_recipe(package, given[0])
            values = read_mapping(path)
            check_fields(kinds[0], values, str(path))
            Dict(values, source=str(path), use_commands_as_keys=False)(app, commands, arguments)

    return supply


def installed() -> dict[str, metadata.EntryPoint]:
    """Finds the installed packages, importing none: name → the entry point of its app."""
    found = metadata.entry_points(group="tenfold")
    return {entry.name: entry for entry in sorted(found, key=lambda entry: entry.name)}


def summary(entry: metadata.EntryPoint) -> tuple[str, str]:
    """Gives the version and the one-line summary of an installed package, importing nothing."""
    dist = entry.dist
    return (dist.version, str(dist.metadata["Summary"] or "")) if dist else ("", "")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs the command and exits: 0 done, 2 the input is wrong, 1 anything else.

    Args:
        argv: The arguments; by default those of this process.
    """
    sys.exit(run(sys.argv[1:] if argv is None else argv))


def run(argv: Sequence[str]) -> int:
    """Runs the command, prints the result, and returns the exit code.

    Args:
        argv: The arguments, e.g. `["ccgc", "train", "--recipe", "cora", "--json"]`.
    """
    try:
        return _run(list(argv))
    except (InputError, UnavailableError, cyclopts.CycloptsError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1 if isinstance(error, UnavailableError) else 2
    except BrokenPipeError:  # the reader (`head`, a pager) has gone; let nothing more be flushed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("interrupted; `--resume FOLDER` goes on with a run", file=sys.stderr)
        return 1
    except Exception as error:
        import traceback

        traceback.print_exc()
        print(f"error: {type(error).__name__}: a defect; please report the above", file=sys.stderr)
        return 1


def _run(argv: list[str]) -> int:
    """Does what `run` does, errors aside."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return 0
    # What torch tells the authors of other libraries is not for the user of a command.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch(\.|$)")
    command = next((word for word in argv if not word.startswith("-")), "list")
    if command not in (known := [*_VERBS, *installed()]):  # cyclopts would load every package
        raise InputError(did_you_mean(command, known, kind="command"))
    answer = _root().meta(
        argv, exit_on_error=False, print_error=False, verbose=False, result_action="return_value"
    )
    if answer is None:  # a help page or the version has been printed
        return 0
    outcome, as_json = answer
    if is_main_process():
        show(outcome, as_json)
        sys.stdout.flush()
    return int(outcome.exit_code)


def _overview() -> str:
    """Writes the page of `tenfold --help`, by hand: it is the first thing seen, and instant."""
    packages = {name: summary(entry)[1] for name, entry in installed().items()}
    verbs, found = (
        "".join(f"  {name:<10} {text}\n" for name, text in names.items()) or "  (none)\n"
        for names in (_VERBS, packages)
    )
    return f"""Usage: tenfold COMMAND [OPTIONS]

Ten papers as ten packages.

Commands:
{verbs}
Installed packages:
{found}
`tenfold PACKAGE --help` lists a package's verbs. Every verb takes --help, --json
(one JSON object on standard output) and --quiet."""


def _root() -> App:
    """Makes the app of the whole command; the packages' apps load when they are called."""
    root = _app("tenfold", "Ten papers as ten packages.", version="tenfold-shared")
    for name, text in _VERBS.items():
        function = "list_packages" if name == "list" else name
        root.command(f"tenfold.shared.verbs:{function}", name=name, help=text)
    for name, entry in installed().items():
        root.command(entry.value, name=name, help=summary(entry)[1])
    root.meta.suppress_keyboard_interrupt = False
    root.meta.version_flags = ()  # `tenfold ccgc --version` asks for that of ccgc
    group = Group("Output")

    @root.meta.default
    def launch(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        json: Annotated[bool, Parameter(negative=(), group=group)] = False,
        quiet: Annotated[bool, Parameter(negative=(), group=group)] = False,
    ) -> tuple[Outcome, bool] | None:
        """Calls the verb.

        Args:
            tokens: The command line without the options of this function.
            json: Print the result as one JSON object, and nothing else.
            quiet: Print the result only: no progress, no messages.
        """
        set_quiet(json or quiet or not is_main_process())
        verb, bound, _ = root.parse_args(
            tokens, exit_on_error=False, print_error=False, verbose=False
        )
        result = verb(*bound.args, **bound.kwargs)
        if isinstance(getattr(verb, "__self__", None), App):  # cyclopts's own help page
            return None
        return result, json

    return root


def show(outcome: Outcome, as_json: bool = False) -> None:
    """Prints an outcome on standard output.

    Args:
        outcome: What a verb returned.
        as_json: Whether to print its data as JSON instead of its view.
    """
    if as_json:
        print(to_json(outcome.data))
    elif isinstance(outcome.view, str):
        print(outcome.view)
    else:
        from rich.console import Console

        console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
        for part in [outcome.view] if outcome.view is not None else _tables(outcome.data):
            console.print(part)


def _tables(data: Mapping[str, Any]) -> list[Any]:
    """Makes tables of a verb's data: one of its plain values, one of each list of records."""
    plain, lists = [], []
    for key, value in data.items():
        first = value[0] if isinstance(value, list | tuple) and value else None
        if isinstance(first, Mapping) or dataclasses.is_dataclass(first):
            lists.append(table(value, title=key))
        else:
            plain.append({"": key, "value": value})
    return [table(plain, header=False), *lists] if plain else lists


def table(rows: Sequence[Any], title: str | None = None, header: bool = True) -> Any:
    """Makes a rich table of records, for the view of an `Outcome`.

    Args:
        rows: Dicts or dataclasses; the columns are the keys of the first.
        title: A heading.
        header: Whether to show the names of the columns.

    Returns:
        A `rich.table.Table`.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from tenfold.shared.report import as_cells, is_number

    columns, cells = as_cells(rows)
    made = Table(title=title, show_header=header, box=SIMPLE_HEAD, title_justify="left")
    for name, values in zip(columns, zip(*cells, strict=True), strict=True):
        right = header and any(map(is_number, values))
        made.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in cells:
        made.add_row(*map(Text, row))
    return made
