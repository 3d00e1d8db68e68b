import os
import time

import pytest

from tenfold_tools.suites import Suite, run_suite, total


def run_here(repository, name, **options):
    lines = []
    suite = run_suite(
        repository.workspace,
        repository.workspace.member(name),
        ["-p", "no:cacheprovider", *options.pop("arguments", [])],
        here=True,
        out=lines.append,
        **options,
    )
    return suite, lines


def test_counts_and_closing_line(repository):
    repository.write(
        "packages/one/tests/test_one.py",
        "import pytest\n"
        "def test_a(): pass\n"
        "def test_b(): pass\n"
        "def test_c(): pytest.skip('no')\n"
        "@pytest.mark.xfail\ndef test_d(): assert False\n",
    )
    suite, lines = run_here(repository, "one")
    assert suite.ok
    assert (suite.passed, suite.failed, suite.skipped) == (2, 0, 2)
    assert "2 passed, 1 skipped, 1 xfailed" in suite.closing
    assert suite.closing in lines


def test_failures_and_errors_count(repository):
    text = (
        "import pytest\n@pytest.fixture\ndef f(): 1 / 0\ndef test_a(f): pass\ndef test_b(): 1 / 0\n"
    )
    repository.write("packages/one/tests/test_one.py", text)
    suite, _ = run_here(repository, "one")
    assert not suite.ok
    assert (suite.passed, suite.failed, suite.problem) == (0, 2, "")


def test_a_file_that_cannot_be_imported(repository):
    repository.write("packages/one/tests/test_one.py", "import no_such_module\n")
    suite, _ = run_here(repository, "one")
    assert not suite.ok
    assert suite.failed == 1


def test_no_tests_is_a_failure(repository):
    repository.write("packages/one/tests/test_one.py", "")
    suite, _ = run_here(repository, "one")
    assert not suite.ok
    assert "no tests were collected in packages/one/tests" in suite.problem


def test_a_suite_that_takes_too_long_is_ended_with_its_children(repository, tmp_path):
    noted = tmp_path / "child"
    repository.write(
        "packages/one/tests/test_one.py",
        "import subprocess, sys, time\n"
        "def test_a():\n"
        f"    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"    open({str(noted)!r}, 'w').write(str(child.pid))\n"
        "    time.sleep(60)\n",
    )
    started = time.monotonic()
    suite, _ = run_here(repository, "one", limit=4.0)
    assert time.monotonic() - started < 30
    assert "ended after 4 s" in suite.problem
    child = int(noted.read_text())
    deadline = time.monotonic() + 5
    while _is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_alive(child)


def _is_alive(process):
    try:
        os.kill(process, 0)
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_the_suite_of_a_package_in_an_environment_of_its_own(repository):
    from tenfold_tools.processes import run

    for name in ("shared", "tools", "packages/two"):
        repository.replace(f"{name}/pyproject.toml", '"pytest>=8.4"', "")
    repository.write(
        "packages/one/tests/test_one.py",
        "import importlib.util, sys\n"
        "import tenfold.one, tenfold.shared\n"
        "def test_alone():\n"
        "    assert importlib.util.find_spec('tenfold.two') is None\n"
        "    assert importlib.util.find_spec('tenfold_tools') is None\n"
        "    assert '.venvs' in sys.prefix\n",
    )
    (repository.root / "uv.lock").unlink()
    run("uv", "lock", cwd=repository.root)
    member = repository.workspace.member("one")
    suite = run_suite(repository.workspace, member, out=lambda line: None)
    assert suite.ok, suite
    assert suite.passed == 1
    assert (repository.root / ".venvs" / "one").is_dir()


def test_an_outdated_lockfile_is_a_problem(repository):
    member = repository.workspace.member("one")
    suite = run_suite(repository.workspace, member, out=lambda line: None)
    assert not suite.ok
    assert "uv" in suite.problem


@pytest.mark.parametrize("broken", [False, True])
def test_total(broken):
    suites = [Suite("one", 2.0, "", 3, 0, 1), Suite("two", 1.0, "", 1, int(broken), 0)]
    ending = "; not in order: two" if broken else ""
    assert total(suites, 3.2) == f"4 passed, {int(broken)} failed, 1 skipped in 3 s{ending}"
