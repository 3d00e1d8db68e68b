import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOY = Path(__file__).with_name("toy")


@pytest.fixture
def toy(monkeypatch):
    """Installs the toy package `tenfold-toy` for this process."""
    monkeypatch.syspath_prepend(TOY)
    importlib.invalidate_caches()
    yield
    for name in [name for name in sys.modules if name.startswith("tenfold.toy")]:
        del sys.modules[name]


@pytest.fixture
def tenfold(tmp_path):
    """Runs `tenfold …` in a process of its own, with the toy package installed."""

    def call(*arguments, code=None, **variables):
        program = code or "import sys; from tenfold.shared.cli import main; main()"
        path = os.pathsep.join([str(TOY), *filter(None, [os.environ.get("PYTHONPATH")])])
        return subprocess.run(
            [sys.executable, "-c", program, *arguments],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": path} | variables,
            cwd=tmp_path,
            timeout=120,
        )

    return call


@pytest.fixture(autouse=True)
def _not_quiet():
    from tenfold.shared.progress import set_quiet

    yield
    set_quiet(False)
