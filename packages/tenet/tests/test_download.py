import hashlib
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlparse
from xml.sax.saxutils import escape

import pytest

from tenfold.shared.cli import run
from tenfold.shared.errors import UnavailableError
from tenfold.tenet.data import download, index
from tenfold.tenet.data.index import scan

PAGE = 5  # keys of a page of the listing


class Bucket(ThreadingHTTPServer):
    """A bucket as S3 answers: list-type 2 with pages, objects, ranges; keeps what was asked for."""

    def __init__(self, objects):
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects, self.asked, self.etags = objects, [], {}
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        parts, query = urlparse(self.path), parse_qs(urlparse(self.path).query)
        key = unquote(parts.path).removeprefix("/argoverse").removeprefix("/")
        wanted = self.headers.get("Range")
        self.server.asked.append((key or "list", wanted))
        if "list-type" in query and not key:
            return self.answer(200, self.listing(query))
        if key not in self.server.objects:
            return self.answer(404, b"")
        content = self.server.objects[key]
        if wanted:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            return self.answer(206, content[start:])
        return self.answer(200, content)

    def answer(self, status, content):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def listing(self, query):
        prefix = query["prefix"][0]
        keys = sorted(key for key in self.server.objects if key.startswith(prefix))
        start = int(query.get("continuation-token", ["0"])[0])
        rows = [
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.server.objects[key])}</Size>"
            f"<ETag>&quot;{self.server.etags.get(key) or md5(self.server.objects[key])}&quot;"
            "</ETag></Contents>"
            for key in keys[start : start + PAGE]
        ]
        following = start + PAGE
        more = f"<NextContinuationToken>{following}</NextContinuationToken>"
        space = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
        body = "".join(rows) + (more if following < len(keys) else "")
        return f"<ListBucketResult {space}>{body}</ListBucketResult>".encode()


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def bucket(split, tmp_path, monkeypatch):
    """The generated split behind a local server, as the official bucket has it."""
    objects = {
        f"{download.PREFIX}/val/{path.relative_to(split)}": path.read_bytes()
        for path in split.glob("*/*")
    }
    with tarfile.open(tmp_path / "val.tar", "w") as archive:
        archive.add(split, "val")
    objects["tars/val.tar"] = (tmp_path / "val.tar").read_bytes()
    server = Bucket(objects)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(download, "BUCKET_URL", f"{server.url}/argoverse")
    monkeypatch.setattr(index, "_TARS", f"{server.url}/tars")
    yield server
    server.shutdown()
    server.server_close()


def fetch(capsys, *argv, code=0):
    assert run(["tenet", "data", "fetch", *map(str, argv), "--json"]) == code
    printed = capsys.readouterr()
    return json.loads(printed.out) if code == 0 else printed.err


def test_the_first_scenarios_are_listed_fetched_and_kept(bucket, split, capsys):
    names = scan(split).scenario_ids
    found = fetch(capsys, "val", "--limit", 3, "--accept-licence")
    assert found["downloaded"] == {"val": 6}
    folder = Path(found["folders"]["val"])
    assert sorted(path.name for path in folder.iterdir()) == list(names[:3])
    for path in folder.glob("*/*"):
        assert path.read_bytes() == (split / path.parent.name / path.name).read_bytes()
    assert [key for key, _ in bucket.asked].count("list") == 2  # 6 files, the 7th ends the third
    # Later, and with one file cut short: only what is missing is fetched.
    broken = folder / names[1] / f"scenario_{names[1]}.parquet"
    broken.write_bytes(broken.read_bytes()[:100])
    bucket.asked.clear()
    assert fetch(capsys, "val", "--limit", 5, "--accept-licence")["downloaded"] == {"val": 5}
    assert sum(key != "list" for key, _ in bucket.asked) == 5
    assert run(["tenet", "data", "verify", str(folder)]) == 0


def test_a_whole_listing_has_every_scenario_and_nothing_else(bucket, split):
    bucket.objects[f"{download.PREFIX}/val/../../evil.parquet"] = b"x"
    bucket.objects[f"{download.PREFIX}/val/a/scenario_b.parquet"] = b"x"
    listed = list(download.list_split("val"))
    assert [item.name for item in listed] == sorted(
        str(path.relative_to(split)) for path in split.glob("*/*")
    )
    key = f"{download.PREFIX}/val/{listed[0].name}"
    bucket.etags[key] = "0" * 32 + "-2"  # uploaded in parts: the tag is no checksum
    assert next(iter(download.list_split("val"))).md5 is None


def test_other_content_than_listed_is_refused(bucket, capsys):
    key = sorted(bucket.objects)[1]
    bucket.etags[key] = "0" * 32
    error = fetch(capsys, "val", "--limit", 1, "--accept-licence", code=1)
    assert "the listing says" in error.replace("\n", " ")
    folder = index.data_root() / index.FOLDER / "val"
    assert not (folder / key.split("/")[-2] / key.split("/")[-1]).exists()
    del bucket.objects[key]
    bucket.etags.clear()
    assert "licence" in fetch(capsys, "val", "--limit", 1, code=2)
    assert "limit=0" in fetch(capsys, "val", "--limit", 0, "--accept-licence", code=2)


def test_no_bucket_is_one_line(bucket, monkeypatch, capsys):
    bucket.objects["tars/val.tar"] = b"no xml"
    monkeypatch.setattr(download, "BUCKET_URL", f"{bucket.url}/tars/val.tar")
    with pytest.raises(UnavailableError, match="not the listing of a bucket"):
        list(download.list_split("val"))
    monkeypatch.setattr(download, "BUCKET_URL", "http://127.0.0.1:9/argoverse")
    error = fetch(capsys, "val", "--limit", 1, "--accept-licence", code=1)
    assert "could not be read" in error.replace("\n", " ")


def test_an_archive_goes_on_where_it_stopped_and_is_unpacked(bucket, split, capsys):
    whole = bucket.objects["tars/val.tar"]
    root = index.data_root() / index.FOLDER
    root.mkdir(parents=True)
    (root / "val.tar.part").write_bytes(whole[: len(whole) // 2])
    found = fetch(capsys, "val", "--accept-licence")
    assert found["folders"] == {"val": str(root / "val")}
    assert ("tars/val.tar", f"bytes={len(whole) // 2}-") in bucket.asked
    assert scan(root / "val").scenario_ids == scan(split).scenario_ids
    assert run(["tenet", "data", "verify", str(root / "val")]) == 0
    capsys.readouterr()
    bucket.asked.clear()
    fetch(capsys, "val", "--accept-licence")
    assert bucket.asked == []  # all is in place
