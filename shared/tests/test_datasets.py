import hashlib
import http.server
import io
import re
import tarfile
import threading
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenfold.shared import datasets
from tenfold.shared.datasets import Dataset, File
from tenfold.shared.errors import InputError, UnavailableError

CONTENT = bytes(range(256)) * 400


def sha256(content):
    return hashlib.sha256(content).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves files with ranges, and breaks off once where it is told to."""

    def do_GET(self):
        server = self.server
        content = server.files.get(self.path.strip("/"))
        if content is None:
            self.send_error(404)
            return
        start = 0
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        server.ranges.append(self.headers.get("Range"))
        if wanted and server.ranged:
            start = int(wanted[1])
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end, server.cut = server.cut or len(content), None
        self.wfile.write(content[start:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path / "data"))
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.files, made.ranges, made.ranged, made.cut = {"a.bin": CONTENT}, [], True, None
    made.url = f"http://127.0.0.1:{made.server_port}"
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def dataset(*files, **options):
    given = {"licence": "CC-BY", "homepage": "https://example.org", "package": "toy"}
    return Dataset("small", "A small set", "small", files, **(given | options))


def remote(server, name="a.bin", content=CONTENT, **options):
    return File(name, f"{server.url}/{name}", sha256(content), **options)


def states(found):
    return [item.state for item in found]


def test_data_root(monkeypatch, tmp_path):
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path))
    assert datasets.data_root() == tmp_path
    monkeypatch.setenv("TENFOLD_DATA", "")
    assert datasets.data_root().name == "tenfold"


def test_fetch_locate_verify(server, tmp_path):
    ds = dataset(remote(server))
    with pytest.raises(InputError) as caught:
        datasets.locate(ds)
    path = tmp_path / "data" / "small" / "a.bin"
    for part in (str(path), f"{server.url}/a.bin", "`tenfold toy data fetch small`"):
        assert part in str(caught.value)
    assert states(datasets.verify(ds)) == ["missing"]
    assert datasets.fetch(ds) == path.parent == datasets.locate(ds)
    assert path.read_bytes() == CONTENT
    assert states(datasets.status(ds)) == ["present"]
    assert states(datasets.verify(ds)) == ["ok"]
    assert [item.name for item in path.parent.iterdir()] == ["a.bin"]
    datasets.fetch(ds)
    assert len(server.ranges) == 1  # the second time nothing is downloaded


@pytest.mark.parametrize("ranged", [True, False])
def test_a_broken_download_is_resumed(server, tmp_path, ranged):
    server.cut, server.ranged = 70_000, ranged
    ds = dataset(remote(server))
    folder = tmp_path / "data" / "small"
    with pytest.raises(UnavailableError, match=r"a\.bin"):
        datasets.fetch(ds)
    assert states(datasets.status(ds)) == ["missing"]
    assert (folder / "a.bin.part").read_bytes() == CONTENT[: 1 << 16]
    datasets.fetch(ds)
    assert server.ranges == [None, "bytes=65536-"]
    assert (folder / "a.bin").read_bytes() == CONTENT
    assert not (folder / "a.bin.part").exists()


def test_a_whole_part_is_only_checked(server, tmp_path):
    folder = tmp_path / "data" / "small"
    folder.mkdir(parents=True)
    (folder / "a.bin.part").write_bytes(CONTENT)
    datasets.fetch(dataset(remote(server)))
    assert (folder / "a.bin").read_bytes() == CONTENT


def test_a_wrong_download_leaves_nothing(server, tmp_path):
    server.files["a.bin"] = b"<html>please log in</html>"
    with pytest.raises(UnavailableError, match=r"(?i)a\.bin could not be downloaded.*sha256"):
        datasets.fetch(dataset(remote(server)))
    assert list((tmp_path / "data" / "small").iterdir()) == []


def test_a_wrong_file_is_named_with_both_hashes_and_kept(server, tmp_path):
    ds = dataset(remote(server))
    path = tmp_path / "data" / "small" / "a.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"other")
    [found] = datasets.verify(ds)
    assert (found.state, found.expected, found.found) == (
        "wrong hash",
        sha256(CONTENT),
        sha256(b"other"),
    )
    with pytest.raises(InputError, match=f"expected {sha256(CONTENT)}, found {sha256(b'other')}"):
        datasets.fetch(ds)
    assert path.read_bytes() == b"other"


def test_no_server_and_no_such_page(server, tmp_path):
    with pytest.raises(UnavailableError, match="404"):
        datasets.fetch(dataset(remote(server, "b.bin")))
    gone = File("a.bin", "http://127.0.0.1:9/a.bin", sha256(CONTENT))
    with pytest.raises(UnavailableError, match=r"could not be downloaded.*by hand"):
        datasets.fetch(dataset(gone))


def test_a_licence_must_be_accepted(server):
    ds = dataset(remote(server), needs_acceptance=True)
    with pytest.raises(InputError, match=r"accept its licence: CC-BY .*--accept-licence"):
        datasets.fetch(ds)
    assert server.ranges == []
    datasets.fetch(ds, accept_licence=True)
    assert states(datasets.verify(ds)) == ["ok"]


def test_what_can_only_be_had_by_hand(server):
    with pytest.raises(InputError, match=r"by hand from https://example\.org.*a\.bin"):
        datasets.fetch(dataset(File("a.bin", "", sha256(CONTENT))))


def test_archives_are_unpacked_once(server, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("x/y.txt", "hello")
    server.files["x.zip"] = buffer.getvalue()
    file = remote(server, "x.zip", buffer.getvalue(), unpack=True, provides=("x/y.txt",))
    ds = dataset(file)
    folder = datasets.fetch(ds)
    assert (folder / "x/y.txt").read_text() == "hello"
    (folder / "x.zip").unlink()
    assert datasets.locate(ds) == folder
    assert states(datasets.verify(ds)) == ["present"]


def make_tar(path, *members):
    with tarfile.open(path, "w:gz") as made:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(content) if kind == tarfile.REGTYPE else 0
            info.linkname = "/etc/passwd"
            made.addfile(info, io.BytesIO(content))
    return path


GOOD = ("good.txt", tarfile.REGTYPE, b"good")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../out.txt", tarfile.REGTYPE),
        ("/out.txt", tarfile.REGTYPE),
        ("a/../../out.txt", tarfile.REGTYPE),
        ("C:\\out.txt", tarfile.REGTYPE),
        ("link", tarfile.SYMTYPE),
        ("link", tarfile.LNKTYPE),
        ("pipe", tarfile.FIFOTYPE),
        ("device", tarfile.CHRTYPE),
    ],
)
def test_hostile_tars_leave_nothing(tmp_path, name, kind):
    path = make_tar(tmp_path / "x.tar.gz", GOOD, (name, kind, b"bad"))
    with pytest.raises(InputError, match=r"would leave|link to an absolute|special file"):
        datasets.unpack(path, tmp_path / "in" / "side")
    assert sorted(item.name for item in tmp_path.rglob("*")) == ["in", "side", "x.tar.gz"]


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "..\\out.txt", "C:/out.txt"])
def test_hostile_zips_leave_nothing(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as made:
        made.writestr("good.txt", "good")
        made.writestr(zipfile.ZipInfo(name), "bad")
    with pytest.raises(InputError, match="would leave the folder"):
        datasets.unpack(tmp_path / "x.zip", tmp_path / "in")
    assert sorted(item.name for item in tmp_path.rglob("*")) == ["in", "x.zip"]


def test_a_link_in_a_zip_leads_nowhere(tmp_path):
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as made:
        made.writestr(info, "/etc/passwd")
    datasets.unpack(tmp_path / "x.zip", tmp_path / "in")
    assert not (tmp_path / "in" / "link").is_symlink()
    assert (tmp_path / "in" / "link").read_text() == "/etc/passwd"


def test_damaged_and_foreign_archives(tmp_path):
    path = make_tar(tmp_path / "x.tar.gz", ("a", tarfile.REGTYPE, CONTENT))
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(InputError, match=r"x\.tar\.gz"):
        datasets.unpack(path, tmp_path / "in")
    path.write_bytes(b"not an archive")
    with pytest.raises(InputError, match=r"x\.tar\.gz cannot be unpacked"):
        datasets.unpack(path, tmp_path / "in")
    assert list((tmp_path / "in").iterdir()) == []


def test_unpacking_replaces_and_keeps(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.txt").write_text("old")
    (folder / "mine.txt").write_text("mine")
    members = (("sub", tarfile.DIRTYPE, b""), ("sub/x", tarfile.REGTYPE, b"x"), GOOD)
    datasets.unpack(make_tar(tmp_path / "x.tar.gz", *members), folder)
    found = {item.name: item.read_text() for item in folder.rglob("*") if item.is_file()}
    assert found == {"good.txt": "good", "mine.txt": "mine", "x": "x"}


@given(
    st.lists(st.sampled_from(["..", ".", "a", "b c", "", "C:", "\\"]), max_size=5), st.booleans()
)
def test_names_agree_with_the_file_system(tmp_path_factory, parts, absolute):
    name = "/" * absolute + "/".join(parts)
    root = tmp_path_factory.getbasetemp() / "root"
    try:
        datasets._check_names([name])
    except ValueError:
        return
    assert (root / name).resolve().is_relative_to(root.resolve())
