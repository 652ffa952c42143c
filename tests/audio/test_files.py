"""Files are written atomically, and a folder by one process at a time."""

import threading
import zipfile
from pathlib import Path

import pytest
import soundfile
from conftest import tone

from hear_tune.audio.files import GROUP_BYTES, GROUP_FILES, find_audio, group_files
from hear_tune.audio.reading import read_blocks
from hear_tune.common.files import InUseError, sole_use, write_whole


def test_writers_of_one_file_do_not_meet(tmp_path):
    path, contents = tmp_path / "x", [letter * 300_000 for letter in "abc"]
    write_whole(path, contents[0])
    writers = [
        threading.Thread(target=lambda c=content: [write_whole(path, c) for _ in range(40)])
        for content in contents
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert path.read_text() in contents
    assert path.read_text() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_may_be_as_long_as_the_file_system_takes(tmp_path):
    path = tmp_path / ("é" * 127)  # 254 bytes
    write_whole(path, "ü")
    assert path.read_bytes() == "ü".encode()


def test_a_failed_write_is_named_and_leaves_nothing(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match=r"taken: cannot be written \(Is a directory\)"):
        write_whole(tmp_path / "taken", "text")
    with pytest.raises(OSError, match=r"nowhere/x: cannot be written \(No such file"):
        write_whole(tmp_path / "nowhere/x", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_folder_is_used_by_one_at_a_time(tmp_path):
    with sole_use(tmp_path / "new", "writing it"):
        with pytest.raises(InUseError, match="new: another process is writing it"):
            sole_use(tmp_path / "new", "writing it").__enter__()
        with pytest.raises(InUseError, match="output: another process"):
            sole_use(tmp_path / "new", "writing it", of="output").__enter__()
    with sole_use(tmp_path / "new", "writing it"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file: cannot be written"):
        sole_use(tmp_path / "file", "writing it").__enter__()


def files_of(folder, count, size):
    """Sparse files of a given size."""
    paths = [folder / f"{number}.mp3" for number in range(count)]
    for path in paths:
        with path.open("wb") as file:
            file.truncate(size)
    return paths


def test_an_album_keeps_more_than_one_process_busy(tmp_path):
    tracks = files_of(tmp_path, 12, 5_000_000)
    assert list(group_files(tracks)) == [[track] for track in tracks]


def test_many_files_are_grouped_up_to_both_bounds(tmp_path):
    (tmp_path / "small").mkdir()
    small, large = files_of(tmp_path / "small", 40, 1_000), files_of(tmp_path, 2_000, 5_000_000)
    assert [len(group) for group in group_files(small)] == [GROUP_FILES, GROUP_FILES, 8]
    assert {len(group) for group in group_files(large)} == {-(-GROUP_BYTES // 5_000_000), 12}


def test_files_in_an_archive_are_found_and_read(tmp_path):
    for name in ("music/a.wav", "b.ogg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, tone(440, 22_050), 22_050)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(tmp_path / "music/a.wav", "music/a.wav")
        archive.write(tmp_path / "b.ogg", "b.ogg")
        archive.writestr("notes.txt", "")
    for url in (
        f"zip://**::{tmp_path / 'x.zip'}",
        f"simplecache::zip://**::file://{tmp_path}/x.zip",
    ):
        found = find_audio(url)
        head, tail = url.split("**")
        assert found.paths == [f"{head}b.ogg{tail}", f"{head}music/a.wav{tail}"]
        assert found.ignored[".txt"] == 1
        assert [sum(map(len, read_blocks(path))) for path in found.paths] == [22_050, 22_050]


def test_formats_that_only_ffmpeg_reads_are_found(tmp_path):
    names = ["a.m4a", "b.wma", "c.webm", "d.mka", "e.ape", "f.dsf", "g.WV"]
    for name in names:
        (tmp_path / name).touch()
    assert find_audio(tmp_path).paths == [tmp_path / name for name in names]


def test_folders_that_match_a_pattern_are_searched(tmp_path):
    """As a shell's arguments would be."""
    names = ["a/x.wav", "b/deep/y.wav", "z.wav", "notes.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for pattern in ("*", "**"):
        found = find_audio(str(tmp_path / pattern))
        assert set(found.paths) == {tmp_path / name for name in names[:3]}
        assert found.ignored[".txt"] == 1
    assert find_audio(str(tmp_path / "[ab]")).paths == [tmp_path / name for name in names[:2]]


def test_a_file_is_taken_once_however_it_is_spelled(tmp_path, monkeypatch):
    (tmp_path / "M").mkdir()
    for name in ("a.wav", "b.wav"):
        (tmp_path / "M" / name).touch()
    monkeypatch.chdir(tmp_path)
    found = find_audio(["M/b.wav", "M", "./M/", tmp_path / "M", "M/../M/a.wav", "M/*.wav"])
    assert found.paths == [Path("M/b.wav"), Path("M/a.wav")]
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/M").mkdir()
    (tmp_path / "deep/M/a.wav").touch()
    (tmp_path / "link").symlink_to("deep/er")
    (tmp_path / "M/c.wav").symlink_to("a.wav")
    others = [Path("link/../M/a.wav"), Path("M/c.wav")]  # not M/a.wav, and a name of its own
    assert find_audio(["M/a.wav", *others]).paths == [Path("M/a.wav"), *others]
