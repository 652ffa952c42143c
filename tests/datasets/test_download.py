import dataclasses
import hashlib
import io
import tarfile
import threading
import zipfile
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import soundfile
from conftest import tone

requests = pytest.importorskip("requests", reason="needs the extra data")

from hear_tune.cli import main  # noqa: E402
from hear_tune.common.files import InUseError, sole_use  # noqa: E402
from hear_tune.datasets import DownloadError, archives, catalog, download  # noqa: E402
from hear_tune.datasets.archives import unpack  # noqa: E402
from hear_tune.datasets.download import download_all, fetch  # noqa: E402
from hear_tune.datasets.sources import Download  # noqa: E402

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Site:
    """Files and faults of a web server."""

    files: dict = field(default_factory=lambda: {"/data.bin": CONTENT})
    ranges: bool = True
    etag: str = '"first"'
    encoding: str = ""
    breaks_off_after: list = field(default_factory=list)  # bytes, of the next answers
    status: list = field(default_factory=list)  # of the next answers
    silent: list = field(default_factory=list)  # events that the next answers wait for
    seen: list = field(default_factory=list)  # (method, path, Range header)
    url: str = ""

    def got(self):
        return [(path, asked) for method, path, asked in self.seen if method == "GET"]


@pytest.fixture
def site(monkeypatch):
    monkeypatch.setattr(download, "_FIRST_PAUSE_SECONDS", 0.0)
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body):
            asked = self.headers.get("Range")
            site.seen.append((self.command, self.path, asked))
            if body and site.silent:
                site.silent.pop(0).wait(20)
                self.close_connection = True
                return
            status = site.status.pop(0) if body and site.status else 200
            content = site.files.get(self.path)
            if status != 200 or content is None:
                self.send_response(404 if content is None else status)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            same = self.headers.get("If-Range", site.etag) == site.etag
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            if asked and site.ranges and same:
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                last = len(content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
            else:
                start = 0
                self.send_response(200)
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("ETag", site.etag)
            if site.encoding:
                self.send_header("Content-Encoding", site.encoding)
            self.end_headers()
            if body:
                piece = content[start:]
                if site.breaks_off_after:
                    piece = piece[: site.breaks_off_after.pop(0)]
                    self.close_connection = True
                self.wfile.write(piece)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    yield site
    server.shutdown()
    server.server_close()
    thread.join()


def get(site, path, digest=SHA256, name="/data.bin"):
    with requests.Session() as session:
        fetch(session, site.url + name, path, digest)


def zipped(files):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def tarred(files, mode="w:gz"):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
def test_a_file_arrives_complete_and_leaves_nothing_else(site, tmp_path, algorithm):
    get(site, tmp_path / "deep" / "data.bin", hashlib.new(algorithm, CONTENT).hexdigest())
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["data.bin"]
    assert (tmp_path / "deep" / "data.bin").read_bytes() == CONTENT


def test_a_broken_transfer_is_resumed(site, tmp_path):
    site.breaks_off_after = [1_500_000, 1_000_000]
    get(site, tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    starts = [int(asked[6:-1]) for _, asked in site.got()[1:]]
    assert len(starts) == 2
    assert 0 < starts[0] <= 1_500_000 < starts[1] < len(CONTENT)


def test_a_later_command_resumes(site, tmp_path):
    site.breaks_off_after, site.status = [2_000_000], [200, 403]
    with pytest.raises(DownloadError, match="403"):
        get(site, tmp_path / "data.bin")
    held = (tmp_path / "data.bin.part").stat().st_size
    assert held > 0
    site.seen.clear()
    get(site, tmp_path / "data.bin")
    assert site.got() == [("/data.bin", f"bytes={held}-")]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_two_versions_of_a_file_are_never_joined(site, tmp_path):
    site.breaks_off_after, site.status = [2_000_000], [200, 403]
    with pytest.raises(DownloadError):
        get(site, tmp_path / "data.bin", "")
    site.etag, site.files = '"second"', {"/data.bin": CONTENT[::-1]}
    get(site, tmp_path / "data.bin", "")
    assert (tmp_path / "data.bin").read_bytes() == CONTENT[::-1]


def test_without_ranges_it_starts_again(site, tmp_path):
    site.ranges, site.breaks_off_after = False, [1_500_000]
    get(site, tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_complete_part_is_used(site, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    get(site, tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_discarded(site, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT + b"more")
    get(site, tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_bytes_are_kept_as_they_were_sent(site, tmp_path):
    site.encoding = "gzip"  # as some servers declare for any .gz
    get(site, tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_file_with_a_wrong_digest_is_refused_and_removed(site, tmp_path):
    with pytest.raises(DownloadError, match=f"its sha256 is {SHA256}, not 0000"):
        get(site, tmp_path / "data.bin", "0" * 64)
    assert not list(tmp_path.iterdir())


def test_a_file_from_elsewhere_is_verified_but_never_removed(site, tmp_path):
    (tmp_path / "data.bin").write_bytes(b"something else")
    with pytest.raises(DownloadError, match="move it away"):
        get(site, tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == b"something else"
    (tmp_path / "data.bin").write_bytes(CONTENT)
    get(site, tmp_path / "data.bin")
    assert site.got() == []


def test_a_missing_file_is_requested_once_and_the_remedy_named(site, tmp_path):
    with pytest.raises(DownloadError, match="404 Not Found") as raised:
        get(site, tmp_path / "x.zip", "", "/gone.zip")
    assert f"put the file at {tmp_path / 'x.zip'} by other means" in str(raised.value)
    assert len(site.got()) == 1


def test_a_busy_server_is_retried(site, tmp_path):
    site.status = [503, 429]
    get(site, tmp_path / "data.bin")
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_server_that_stays_busy_fails(site, tmp_path):
    site.status = [503] * 100
    with pytest.raises(DownloadError, match="503"):
        get(site, tmp_path / "data.bin")
    assert len(site.got()) == download._ATTEMPTS


def test_a_server_that_always_breaks_off_fails(site, tmp_path):
    site.ranges, site.breaks_off_after = False, [1_500_000] * 100
    with pytest.raises(DownloadError, match="breaks off"):
        get(site, tmp_path / "data.bin")
    assert len(site.got()) <= 1 + download._ATTEMPTS


def test_a_silent_server_is_retried(site, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_SILENCE_SECONDS", 0.3)
    end = threading.Event()
    site.silent = [end]
    get(site, tmp_path / "data.bin")
    end.set()
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_host_that_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_FIRST_PAUSE_SECONDS", 0.0)
    with pytest.raises(DownloadError, match="does not answer"), requests.Session() as session:
        fetch(session, "http://127.0.0.1:1/data.bin", tmp_path / "data.bin")


def test_a_split_archive_is_unpacked_once(site, tmp_path):
    archive = zipped({"0/a.mp3": CONTENT[:1000], "f/b.mp3": CONTENT[1000:5000]})
    cuts = [archive[:700], archive[700:3000], archive[3000:]]
    site.files = {f"/mp3.zip.{n:03d}": cut for n, cut in enumerate(cuts, 1)}
    parts = tuple(
        (f"{site.url}/mp3.zip.{n:03d}", hashlib.sha256(cuts[n - 1]).hexdigest()) for n in (2, 3)
    )
    wanted = [Download(f"{site.url}/mp3.zip.001", archive=True, parts=parts)]
    left = download_all(wanted, tmp_path)
    assert (tmp_path / "0" / "a.mp3").read_bytes() == CONTENT[:1000]
    assert (tmp_path / "f" / "b.mp3").read_bytes() == CONTENT[1000:5000]
    assert [path.name for path in left] == ["mp3.zip.001", "mp3.zip.002", "mp3.zip.003"]
    site.seen.clear()
    for path in left:
        path.unlink()
    assert download_all(wanted, tmp_path) == []
    assert site.seen == []


def test_archives_and_files_go_to_their_folders(site, tmp_path):
    notes = tarred({"inner/notes.txt": b"notes"})
    site.files = {"/data.bin?download=1": CONTENT, "/notes.tar.gz": notes}
    wanted = [
        Download(f"{site.url}/data.bin?download=1", SHA256, folder="lists"),
        Download(f"{site.url}/notes.tar.gz", name="n.tar.gz", archive=True, folder="texts"),
    ]
    download_all(wanted, tmp_path)
    assert (tmp_path / "lists" / "data.bin").read_bytes() == CONTENT
    assert (tmp_path / "texts" / "inner" / "notes.txt").read_bytes() == b"notes"
    assert (tmp_path / "downloads" / "n.tar.gz").is_file()


def test_a_small_disk_is_named_before_anything_is_sent(site, tmp_path, monkeypatch):
    usage = archives.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage._replace(free=4_000_000))
    url = f"{site.url}/data.bin"
    with pytest.raises(DownloadError, match=r"0\.01 GB are needed and 0\.00 GB are free"):
        download_all([Download(url, SHA256, archive=True)], tmp_path)
    assert site.got() == []
    download_all([Download(url, SHA256)], tmp_path)  # needs half, as nothing is unpacked
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_disk_too_small_for_the_contents(tmp_path, monkeypatch):
    path = tmp_path / "a.zip"
    path.write_bytes(zipped({"a": bytes(10_000)}))
    usage = archives.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: usage._replace(free=9_999))
    with pytest.raises(DownloadError):
        unpack([path], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_only_one_process_downloads_into_a_folder(site, tmp_path):
    with (
        sole_use(tmp_path / "downloads", "downloading into it"),
        pytest.raises(InUseError, match="another process is downloading into it"),
    ):
        download_all([Download(f"{site.url}/data.bin")], tmp_path)


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("name", ["../outside", "/outside-of-all", "a/../../outside", "."])
def test_archives_cannot_write_elsewhere(tmp_path, pack, name):
    (tmp_path / "x").write_bytes(pack({"good": b"1", name: b"2"}))
    with pytest.raises(DownloadError, match="outside the folder"):
        unpack([tmp_path / "x"], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "x"]


def test_archives_cannot_write_through_a_link(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "x").write_bytes(zipped({"link/file": b"1"}))
    with pytest.raises(DownloadError, match="outside the folder"):
        unpack([tmp_path / "x"], tmp_path / "out")
    assert not list((tmp_path / "elsewhere").iterdir())


def link_in_tar(file):
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(info)


def link_in_zip(file):
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc")


@pytest.mark.parametrize("write", [link_in_tar, link_in_zip])
def test_links_in_archives_are_refused(tmp_path, write):
    with (tmp_path / "x").open("wb") as file:
        write(file)
    with pytest.raises(DownloadError, match="'link' is a link"):
        unpack([tmp_path / "x"], tmp_path / "out")


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_damaged_archives(tmp_path, pack):
    whole = pack({"a": CONTENT[:50_000]})
    for content in (whole[:20_000], b"<html>moved</html>", b""):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(DownloadError, match="x: no archive, or damaged"):
            unpack([tmp_path / "x"], tmp_path / "out")
    assert not (tmp_path / "out" / "a").exists()


def test_unpacking_resumes(tmp_path):
    (tmp_path / "x").write_bytes(zipped({"a": b"new", "b": b"whole"}))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_bytes(b"old")  # of the right size: kept
    (tmp_path / "out" / "b").write_bytes(b"who")
    assert unpack([tmp_path / "x"], tmp_path / "out") == 2
    assert (tmp_path / "out" / "a").read_bytes() == b"old"
    assert (tmp_path / "out" / "b").read_bytes() == b"whole"


@pytest.fixture
def small_mtt(site, tmp_path, monkeypatch):
    """A small MagnaTagATune: five clips, its table, and the audio in an archive of three parts."""
    clips = ["0/a.mp3", "1/b.mp3", "c/c.mp3", "d/d.mp3", "e/e.mp3"]
    audio = {}
    for number, name in enumerate(clips):
        file = io.BytesIO()
        soundfile.write(file, tone(220 * (number + 1), 16_000, 16_000), 16_000, format="MP3")
        audio[name] = file.getvalue()
    rows = [["clip_id", "guitar", "mp3_path"]]
    rows += [[str(number), str(number % 2), name] for number, name in enumerate(clips)]
    table = "".join("\t".join(f'"{cell}"' for cell in row) + "\n" for row in rows).encode()
    archive = zipped(audio)
    third = len(archive) // 3
    cuts = (archive[:third], archive[third : 2 * third], archive[2 * third :])
    site.files = {"/annotations_final.csv": table}
    site.files |= {f"/mp3.zip.{number:03d}": cut for number, cut in enumerate(cuts, 1)}
    parts = tuple(
        (site.url + name, hashlib.sha256(site.files[name]).hexdigest())
        for name in ("/mp3.zip.002", "/mp3.zip.003")
    )
    small = dataclasses.replace(
        catalog.CATALOG["magnatagatune"],
        downloads=(
            Download(f"{site.url}/annotations_final.csv", hashlib.sha256(table).hexdigest()),
            Download(f"{site.url}/mp3.zip.001", archive=True, parts=parts),
        ),
        seconds=(0.9, 1.1),
    )
    monkeypatch.setitem(catalog.CATALOG, "magnatagatune", small)
    return ["magnatagatune", "--root", str(tmp_path / "mtt")]


def test_the_command_downloads_a_usable_data_set(site, small_mtt, tmp_path, capsys):
    site.breaks_off_after = [10]
    assert main(["data", "download", *small_mtt]) == 0
    out = capsys.readouterr().out
    assert "all 2 downloads are here" in out
    assert f"may be deleted: {tmp_path / 'mtt' / 'downloads'}" in out
    assert main(["data", "validate", *small_mtt]) == 0
    out = capsys.readouterr().out
    assert "multilabel, 1 classes; test 2, train 2, valid 1" in out
    assert "5 files are good, 0 missing" in out
    (tmp_path / "mtt" / "c" / "c.mp3").unlink()
    assert main(["data", "validate", *small_mtt]) == 1


def test_the_command_names_the_remedy_for_a_missing_file(site, small_mtt, tmp_path, capsys):
    part = site.files.pop("/mp3.zip.002")
    assert main(["data", "download", *small_mtt]) == 2
    place = tmp_path / "mtt" / "downloads" / "mp3.zip.002"
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1
    assert "mp3.zip.002: the server answers 404 Not Found; give the same command" in lines[0]
    assert str(place) in lines[0]
    place.write_bytes(part)
    assert main(["data", "download", *small_mtt]) == 0
    assert (tmp_path / "mtt" / "d" / "d.mp3").is_file()
