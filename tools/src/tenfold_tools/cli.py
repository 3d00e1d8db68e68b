"""The command `tools`: parse, call, print."""

import dataclasses
import json as json_module
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import cyclopts
from cyclopts import App, Parameter
from cyclopts.validators import Number

from tenfold_tools.errors import CommandError, InputError

if TYPE_CHECKING:
    from tenfold_tools.workspace import Member


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a verb returns."""

    data: dict[str, Any]
    """The result; `--json` prints it."""
    text: str
    """What is printed otherwise."""
    exit_code: int = 0
    """0, or 1 if the result itself says that something is not in order."""


app = App(
    name="tools",
    help="What the maintainers of Tenfold run. Every verb takes --json.",
    help_format="plaintext",
    version=lambda: metadata.version("tenfold-tools"),
    default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
)


@app.command
def affected(*, base: str, head: str | None = None) -> Answer:
    """Says which members a change affects: by files, by dependencies, by the lockfile.

    Args:
        base: The commit that the change starts from, e.g. origin/main.
        head: The commit that it ends with; by default the working tree.
    """
    from tenfold_tools.affected import affected as find
    from tenfold_tools.workspace import Workspace

    workspace = Workspace.find()
    found = find(workspace, base, head)
    chosen = [member for member in workspace.members if member.name in found.reasons]
    data = {
        "packages": [member.name for member in chosen if member.kind == "package"],
        "shared": "shared" in found.reasons,
        "tools": "tools" in found.reasons,
        "members": [
            {"name": item.name, "distribution": item.distribution, "folder": item.folder}
            for item in chosen
        ],
        "reasons": found.reasons,
        "note": found.note,
    }
    lines = []
    for name, reasons in found.reasons.items():
        more = f" (and {len(reasons) - 3} more)" if len(reasons) > 3 else ""
        lines.append(f"{name:<10} {'; '.join(reasons[:3])}{more}")
    return Answer(data, "\n".join(lines) or "nothing is affected")


@app.command
def check() -> Answer:
    """Looks for breaches of the rules that a machine can see; 1 if there are any."""
    from tenfold_tools.check import check as look
    from tenfold_tools.workspace import Workspace

    workspace = Workspace.find()
    findings = look(workspace)
    data = {"findings": [dataclasses.asdict(item) for item in findings]}
    lines = [str(item) for item in findings]
    lines.append(f"{len(workspace.members)} members, {len(findings)} findings")
    return Answer(data, "\n".join(lines), int(bool(findings)))


@app.command
def new(
    name: str,
    /,
    *,
    title: str,
    arxiv: str,
    authors: str = "",
    venue: str = "",
    owner: str = "",
) -> Answer:
    """Makes a package that passes lint, types, rules and its tests at once.

    Args:
        name: The short name, e.g. l2w-den; lower-case letters, digits, single hyphens.
        title: The title of the paper.
        arxiv: Its number at arXiv, e.g. 2301.01098.
        authors: Its authors.
        venue: Where it appeared, e.g. "AAAI 2023".
        owner: Who reviews the package, for CODEOWNERS, e.g. @someone.
    """
    from tenfold_tools.new import new as make
    from tenfold_tools.workspace import Workspace

    made = make(Workspace.find(), name, title, arxiv, authors=authors, venue=venue, owner=owner)
    lines = [f"made {item}" for item in made.files] + [f"changed {item}" for item in made.changed]
    lines += [
        "",
        "It runs as it is, on a stand-in model:",
        f"  uv run --package {made.distribution} tenfold {name} demo",
        f"  uv run --package {made.distribution} pytest {made.folder}",
        "Now replace data.py, model.py, objective.py, training.py, evaluation.py, in this order.",
    ]
    return Answer(dataclasses.asdict(made), "\n".join(lines))


@app.command
def release(
    package: str,
    level: Literal["patch", "minor", "major"],
    /,
    *,
    dry_run: Annotated[bool, Parameter(negative=())] = False,
) -> Answer:
    """Prepares a release: version, CHANGELOG, lockfile, a wheel that installs; says the tag.

    Args:
        package: The member, e.g. ccgc.
        level: Which number of the version goes up.
        dry_run: Change nothing; show what would change.
    """
    from tenfold_tools.release import release as prepare
    from tenfold_tools.workspace import Workspace

    made = prepare(Workspace.find(), package, level, dry_run)
    lines = [made.diff, f"{made.distribution} {made.old} → {made.new}, tag {made.tag}"]
    if dry_run:
        lines.append("Nothing has been changed: --dry-run.")
    else:
        lines += [
            f"built, installed and imported: {', '.join(made.wheels)}",
            "Now, once the change is reviewed and on the main branch:",
            f'  git commit --all --message "Release {made.distribution} {made.new}"',
            f'  git tag --annotate {made.tag} --message "{made.distribution} {made.new}"',
            f"  git push origin {made.tag}",
        ]
    return Answer(dataclasses.asdict(made) | {"dry_run": dry_run}, "\n".join(lines))


@app.command
def results(
    *,
    runs: Path = Path("runs"),
    verb: str = "reproduce",
    check: Annotated[bool, Parameter(negative=())] = False,
) -> Answer:
    """Writes the README's results table from the runs and the packages' published numbers.

    Args:
        runs: The folder of the runs, relative to the current one.
        verb: Only runs of this verb count; "" for all.
        check: Change nothing; 1 if the table is not up to date.
    """
    from tenfold_tools import results as module
    from tenfold_tools.workspace import Workspace

    workspace = Workspace.find()
    if not runs.is_dir():
        raise InputError(f"--runs {runs}: no such folder; measure with `tenfold <name> reproduce`")
    rows = module.collect(workspace, runs, verb)
    readme = workspace.root / "README.md"
    if not readme.is_file():
        raise InputError(f"{readme} is missing")
    before = readme.read_text(encoding="utf-8")
    after = module.insert(before, module.table(rows), "README.md")
    if not check and after != before:
        readme.write_text(after, encoding="utf-8")
    data = {
        "rows": [dataclasses.asdict(row) | {"difference": row.difference} for row in rows],
        "up_to_date": after == before,
    }
    state = "is up to date" if after == before else "is out of date" if check else "is written"
    return Answer(data, f"README.md {state}: {len(rows)} rows", int(check and after != before))


@app.command(name="test")
def run_tests(
    *names: str,
    slow: Annotated[bool, Parameter(negative=())] = False,
    here: Annotated[bool, Parameter(negative=())] = False,
    limit: float = 600.0,
    jobs: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
) -> Answer:
    """Runs the tests of every member, each in an environment that holds only what it needs.

    Args:
        names: The members; by default all.
        slow: Run the tests marked `slow` too.
        here: Use the current environment instead of one for each member.
        limit: Seconds after which a member's tests are ended, which is a failure.
        jobs: How many members at a time; they share the cores.
    """
    from tenfold_tools import suites
    from tenfold_tools.workspace import Workspace

    workspace = Workspace.find()
    members = [workspace.member(name) for name in dict.fromkeys(names)] or workspace.members
    options = [] if slow else ["-m", "not slow"]
    if jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))

    def test(member: "Member") -> suites.Suite:
        lines: list[str] = []  # kept until the end where several members write at a time
        write = say if jobs == 1 else lines.append
        write(f"--- {member.distribution}: {member.folder}")
        suite = suites.run_suite(workspace, member, options, here, limit, out=write)
        if suite.problem:
            write(f"{member.name}: {suite.problem}")
        if lines:
            say("\n".join(lines))
        return suite

    started = time.monotonic()
    with ThreadPoolExecutor(jobs) as pool:
        done = list(map(test, members) if jobs == 1 else pool.map(test, members))
    seconds = time.monotonic() - started
    lines = ["", *(f"{item.name:<10} {item.seconds:6.1f} s  {item.closing}" for item in done)]
    data = {
        "suites": [dataclasses.asdict(item) | {"ok": item.ok} for item in done],
        "passed": sum(item.passed for item in done),
        "failed": sum(item.failed for item in done),
        "skipped": sum(item.skipped for item in done),
    }
    text = "\n".join([*lines, suites.total(done, seconds)])
    return Answer(data, text, int(not all(item.ok for item in done)))


def say(text: str) -> None:
    """Prints a message on standard error, which leaves standard output to the result."""
    print(text, file=sys.stderr, flush=True)


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    json: Annotated[bool, Parameter(negative=())] = False,
) -> tuple[Answer, bool] | None:
    """Calls the verb.

    Args:
        tokens: The command line without the options of this function.
        json: Print the result as one JSON object; messages go to standard error.
    """
    verb, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False, verbose=False)
    answer = verb(*bound.args, **bound.kwargs)
    return (answer, json) if isinstance(answer, Answer) else None


def run(argv: Sequence[str]) -> int:
    """Runs the command, prints the result, and returns the exit code.

    Args:
        argv: The arguments, e.g. `["check", "--json"]`.
    """
    try:
        done = app.meta(
            list(argv),
            exit_on_error=False,
            print_error=False,
            verbose=False,
            result_action="return_value",
        )
    except (InputError, cyclopts.CycloptsError) as error:
        say(f"error: {' '.join(str(error).split())}")
        return 2
    except CommandError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted")
        return 1
    if done is None:  # a help page or the version has been printed
        return 0
    answer, as_json = done
    if as_json:
        print(json_module.dumps(answer.data, ensure_ascii=False))
    elif answer.text:
        print(answer.text)
    return int(answer.exit_code)


def main() -> NoReturn:
    """Runs the command and exits: 0 done, 2 the input is wrong, 1 anything else."""
    sys.exit(run(sys.argv[1:]))
