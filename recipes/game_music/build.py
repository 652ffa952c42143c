#!/usr/bin/env python3
"""Extract the music of free games (or speech) from Debian packages, with sources and licences.

Downloads each package with apt-get, extracts its music without installing it, and writes

    OUT/music/<package>/...      the tracks
    OUT/copyright/<package>      the package's copyright file
    OUT/manifest.csv             file, package, version, source, seconds, sha256, licence

Run it again to resume: finished packages are skipped. Needs apt-get (run apt-get update first),
dpkg-deb and ffmpeg. Tracks that libsndfile cannot read (tracker modules) are converted to FLAC.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import soundfile
from tqdm import tqdm

DIRECT = {".flac", ".mp3", ".oga", ".ogg", ".opus", ".wav"}
MODULES = {".it", ".mod", ".s3m", ".xm"}
ARCHIVES = {".love", ".pk3", ".wz", ".zip"}
SHORTEST_SECONDS = 20  # shorter files are jingles and effects
UNKNOWN_FRAMES = 2**63 - 1  # libsndfile's length of some Ogg files
HERE = Path(__file__).parent
COLUMNS = ["file", "package", "version", "source", "seconds", "sha256", "licence"]


@dataclass(frozen=True)
class Package:
    """A row of the table of packages: which files are music, and their licence.

    `include` and `exclude` are regular expressions for paths in the package. `long_tracks`
    "1000:180" keeps the first 180 s of tracks longer than 1000 s (loops).
    """

    package: str
    include: str
    exclude: str
    licence: str
    long_tracks: str

    def is_music(self, name: str) -> bool:
        """Return whether a file of the package may be a track, by its name."""
        if Path(name).suffix.lower() not in DIRECT | MODULES:
            return False
        if self.exclude and re.search(self.exclude, name, re.IGNORECASE):
            return False
        return re.search(self.include, name, re.IGNORECASE) is not None


def main() -> int:
    """Build the corpus; the exit code is 1 if a package failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, metavar="OUT")
    parser.add_argument("--packages", type=Path, default=HERE / "packages.tsv", metavar="TSV")
    parser.add_argument(
        "--shortest", type=float, default=SHORTEST_SECONDS, help="in seconds (%(default)g)"
    )
    options = parser.parse_args()
    for program in ("apt-get", "dpkg-deb", "ffmpeg"):
        if shutil.which(program) is None:
            parser.error(f"{program} is needed but not installed")
    options.output.mkdir(parents=True, exist_ok=True)
    rows = read_manifest(options.output)
    done = {row["package"] for row in rows}
    failed = []
    for package in tqdm(read_packages(options.packages), unit="package"):
        if package.package in done:
            continue
        try:
            known = {row["sha256"] for row in rows}
            rows += build_package(package, options.output, known, options.shortest)
        except subprocess.CalledProcessError as error:
            failed.append(f"{package.package}: {error}")
            continue
        write_manifest(options.output, rows)
    hours = sum(float(row["seconds"]) for row in rows) / 3600
    print(f"{options.output}: {len(rows)} tracks, {hours:.1f} h")
    print(*failed, sep="\n", end="", file=sys.stderr)
    return 1 if failed else 0


def read_packages(table: Path) -> list[Package]:
    """Read the table of packages."""
    with table.open(newline="") as file:
        return [
            Package(**{name: row[name] or "" for name in Package.__annotations__})
            for row in csv.DictReader(file, delimiter="\t")
        ]


def read_manifest(output: Path) -> list[dict[str, str]]:
    """Read the rows of finished packages; none without a manifest."""
    path = output / "manifest.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_manifest(output: Path, rows: list[dict[str, str]]) -> None:
    """Replace the manifest atomically."""
    partial = output / "manifest.csv.partial"
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(output / "manifest.csv")


def build_package(
    package: Package, output: Path, known: set[str], shortest: float
) -> list[dict[str, str]]:
    """Download a package and keep its tracks; return their rows of the manifest."""
    folder = output / "music" / package.package
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        temporary.chmod(0o777)  # apt-get downloads as another user
        subprocess.run(["apt-get", "-qq", "download", package.package], cwd=temporary, check=True)
        (deb,) = temporary.glob("*.deb")
        root = temporary / "root"
        subprocess.run(["dpkg-deb", "-x", deb, root], check=True)
        for statement in root.glob("usr/share/doc/*/copyright"):
            (output / "copyright").mkdir(exist_ok=True)
            shutil.copy(statement, output / "copyright" / package.package)
        version = deb.name.split("_")[1].replace("%3a", ":")
        for source, path in find_tracks(package, root):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if digest in known:
                continue
            known.add(digest)
            track = keep_track(package, path, folder / track_name(source, digest), shortest)
            if track is not None:
                values = (package.package, version, source, seconds(track), digest, package.licence)
                file = track.relative_to(output).as_posix()
                rows.append(dict(zip(COLUMNS, map(str, (file, *values)), strict=True)))
    return rows


def find_tracks(package: Package, root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name in the package and the file of each track; unpack archives in place."""
    for path in sorted(p for p in root.rglob("*") if p.is_file() and not p.is_symlink()):
        name = path.relative_to(root).as_posix()
        if path.suffix.lower() in ARCHIVES and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    if package.is_music(f"/{entry.filename}"):
                        target = path.with_name(path.name + ".unpacked")
                        yield f"{name}!/{entry.filename}", Path(archive.extract(entry, target))
        elif not path.suffix and path.open("rb").read(4) == b"OggS":  # some games omit the suffix
            path = path.rename(path.with_name(path.name + ".ogg"))
        if package.is_music(f"/{path.relative_to(root).as_posix()}"):
            yield name, path


def track_name(source: str, digest: str) -> str:
    """Return a readable file name, made unique by the track's hash."""
    stem = "_".join(Path(source).with_suffix("").parts[-2:])
    return re.sub(r"[^A-Za-z0-9.-]+", "_", stem).strip("_")[:90] + f"-{digest[:6]}"


def keep_track(package: Package, source: Path, target: Path, shortest: float) -> Path | None:
    """Copy or convert a track; return None if it is too short or cannot be decoded."""
    loop, kept = (float(x) for x in (package.long_tracks or "inf:0").split(":"))
    readable = source.suffix.lower() in DIRECT and seconds(source) > 0
    if readable and seconds(source) <= loop:
        target = target.with_name(target.name + source.suffix.lower())
        shutil.copy(source, target)
    else:
        target = target.with_name(target.name + ".flac")
        cut = ["-t", f"{kept:g}"] if readable else []
        command = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-i", source, "-map", "0:a:0", *cut]
        subprocess.run([*command, "-map_metadata", "-1", target], check=False)
    if target.exists() and seconds(target) < shortest:
        target.unlink()
    return target if target.exists() else None


def seconds(path: Path) -> float:
    """Return the length of an audio file in seconds; 0 if libsndfile cannot read or measure it."""
    try:
        info = soundfile.info(path)
    except soundfile.SoundFileError:
        return 0.0
    return float(info.duration) if info.frames < UNKNOWN_FRAMES else 0.0


if __name__ == "__main__":
    sys.exit(main())
