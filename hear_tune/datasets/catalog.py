"""The data sets by name: how each is read, and where its files come from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from .sources import Download, mirdata_downloads
from .task import SecondsRange, Task, TaskError

LABELLED = "labelled"  # one's own data
GROUP_HELP = "of a CSV: what must not stand in two splits (default: group or artist, if it has one)"


@dataclass(frozen=True)
class DataSet:
    """Facts about one data set.

    Attributes
    ----------
    name : str
        Name on the command line.
    module : str
        The reader's module in this package, with ``load(root, **options)``.
    summary : str
        Task and number of clips.
    licence : str
        Licence of the audio, as far as it is known.
    page : str
        Web page of the data set.
    size : str
        Size of the downloads.
    options : tuple of (str, str)
        Options that the reader is always given.
    splits : tuple of str
        Values of the reader's option ``split``, the default first; empty if it has no such option.
    downloads : tuple of Download
        Files to download.
    mirdata : (str, tuple of str), optional
        Name of the data set in mirdata, and the remote files that are needed.
    manual : str
        Files to obtain by other means, and where to put them.
    seconds : (float, float), optional
        Lengths of the shortest and longest complete clip.
    left_out : str
        Clips that the reader excludes.
    hear_seconds : float, optional
        Length of clips in HEAR's task of that name, if the data set's lengths vary.
    """

    name: str
    module: str
    summary: str
    licence: str
    page: str
    size: str = ""
    options: tuple[tuple[str, str], ...] = ()
    splits: tuple[str, ...] = ()
    downloads: tuple[Download, ...] = ()
    mirdata: tuple[str, tuple[str, ...]] | None = None
    manual: str = ""
    seconds: SecondsRange | None = None
    left_out: str = ""
    hear_seconds: float | None = None

    @property
    def task_seconds(self) -> float | None:
        """Length of clips in a HEAR task made from it, in seconds; None to keep their lengths."""
        if self.hear_seconds is None and self.seconds is not None:
            return sum(self.seconds) / 2
        return self.hear_seconds

    @property
    def folder(self) -> str:
        """Name of its folder, which tasks on the same files share."""
        return self.module

    def root(self, given: str | os.PathLike[str] | None) -> Path:
        """Folder of its files: the given one, or by default one in ``data``."""
        return Path("data") / self.folder if given is None else Path(given)

    def load(
        self,
        root: str | os.PathLike[str] | None = None,
        split: str | None = None,
        group: str | None = None,
    ) -> Task:
        """Read the task from the data set's folder (for ``labelled``, also a CSV).

        Parameters
        ----------
        root : path-like, optional
            The folder; by default one in ``data``.
        split : str, optional
            One of `splits`; by default the first.
        group : str, optional
            Column of a CSV whose values must not be shared by two splits.

        Raises
        ------
        FileNotFoundError, TaskError
            If its files are missing or malformed, or it has no such split or column.
        """
        options: dict[str, Any] = dict(self.options)
        if split is not None:
            if not self.splits:
                raise TaskError(f"{self.name} has only one split")
            options["split"] = split
        if group is not None:
            if self.module != LABELLED:
                raise TaskError(f"{self.name} has no columns to group by; its splits are given")
            options["group"] = group
        folder = self.root(root)
        if self.module != LABELLED and not folder.exists():
            raise FileNotFoundError(f"{folder}: no such folder; --root names that of {self.name}")
        task: Task = import_module(f"{__package__}.{self.module}").load(folder, **options)
        return task

    def all_downloads(self) -> tuple[Download, ...]:
        """Return the files to download, including those listed by mirdata."""
        return (*self.downloads, *(mirdata_downloads(*self.mirdata) if self.mirdata else ()))


def get_data_set(name: str) -> DataSet:
    """Return the data set of that name.

    Raises
    ------
    TaskError
        If there is none.
    """
    if name not in CATALOG:
        raise TaskError(f"no data set {name!r}; there are {', '.join(CATALOG)}")
    return CATALOG[name]


_MTT_URL = "https://mirg.city.ac.uk/datasets/magnatagatune"
_FMA_URL = "https://os.unil.cloud.switch.ch/fma"
_GTZAN_LISTS_URL = "https://raw.githubusercontent.com/coreyker/dnn-mgr/bdad579ea6cb37b665ea6019fe1026a6ce20cbc7/gtzan"
_EMOMUSIC_URL = "http://cvml.unige.ch/databases/emoMusic"
_GITHUB_URL = "https://github.com"

_FMA_METADATA = Download(
    f"{_FMA_URL}/fma_metadata.zip", "f0df49ffe5f2a6008d7dc83c6915b31835dfe733", archive=True
)
_FMA_SUBSETS = (  # name, size, sha1
    ("small", "8,000 clips, 8 genres", "7.2 GiB", "ade154f733639d52e35e32f5593efe5be76c6d70"),
    ("medium", "25,000 clips, 16 genres", "22 GiB", "c67b69ea232021025fca9231fc1c7c1a063ab50b"),
    ("large", "49,598 of 106,574 clips", "93 GiB", "497109f4dd721066b5ce5e5f250ec604dc78939e"),
)
_NSYNTH_URL = "http://download.magenta.tensorflow.org/datasets/nsynth"
_NSYNTH_TEST = Download(
    f"{_NSYNTH_URL}/nsynth-test.jsonwav.tar.gz", "5e6f8719bf7e16ad0a00d518b78af77d", archive=True
)
_FSDD = "clone github.com/Jakobovski/free-spoken-digit-dataset; its folder is --root"
_PHILHARMONIA = (
    "made from the mirror github.com/skratchdot/philharmonia-samples; not to be passed on by itself"
)

_ROWS = (
    DataSet(
        "magnatagatune",
        "magnatagatune",
        "50 tags of 25,860 clips",
        "CC BY-NC-SA 3.0",
        "https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset",
        "3 GB",
        splits=("pons2017", "top50-only"),
        downloads=(
            Download(
                f"{_MTT_URL}/annotations_final.csv",
                "99b94e95825d4fa576386a5367b9c96e0ec636e9f9c240aceb492f4728f68c3c",
            ),
            Download(
                f"{_MTT_URL}/mp3.zip.001",
                "f857fe185968773058cc71662c2ef5d8f2d4b7338e3c122cfd52f82dcb9760b9",
                archive=True,
                parts=(
                    (
                        f"{_MTT_URL}/mp3.zip.002",
                        "fc2e1ec441755556ed1398b1808f1b08b6034372f8bc27394510c0c58cdb52ce",
                    ),
                    (
                        f"{_MTT_URL}/mp3.zip.003",
                        "83a689824c17e82f6eb81cdbc4e4ca239a4cfc1fb41f1a5c80b861caec90450f",
                    ),
                ),
            ),
        ),
        manual="an older host is http://mi.soi.city.ac.uk/datasets/magnatagatune",
        seconds=(28, 30),
        left_out="35644, 55753, 57881: empty files",
    ),
    *(
        DataSet(
            f"fma-{subset}",
            "fma",
            f"top genre of {summary}",
            "of each artist, mostly Creative Commons",
            "https://github.com/mdeff/fma",
            f"{size} and 342 MiB of metadata",
            options=(("subset", subset),),
            downloads=(
                _FMA_METADATA,
                Download(f"{_FMA_URL}/fma_{subset}.zip", digest, archive=True),
            ),
            seconds=None if subset == "large" else (29, 31),
            left_out="99134, 108925, 133297 and others without audio or too short (fma.BROKEN)",
        )
        for subset, summary, size, digest in _FMA_SUBSETS
    ),
    DataSet(
        "gtzan",
        "gtzan",
        "genre of 1,000 clips, or of 930 without faults",
        "unknown",
        "http://marsyas.info/downloads/datasets.html",
        "1.2 GB",
        splits=("fault-filtered", "10-fold"),
        downloads=(
            Download(
                f"{_GTZAN_LISTS_URL}/train_filtered.txt",
                "2b04966cef1486f1a7767b74271533fa23e220388db804a1937835e1fc4fa3fa",
            ),
            Download(
                f"{_GTZAN_LISTS_URL}/valid_filtered.txt",
                "f8fbee7c52397a0e0f3a91dc54fedecb2e27f5bdc9a9daeab8cb10d077e26956",
            ),
            Download(
                f"{_GTZAN_LISTS_URL}/test_filtered.txt",
                "09cafa6a89ce0a27f30ed250d56ecb4d03c22fffb5a693f96c7ae655ee02ac72",
            ),
        ),
        manual="the audio's host is gone: put your copy at genres/<genre>/<genre>.NNNNN.wav or .au",
        seconds=(29, 31),
        left_out="jazz.00054, where it is broken",
    ),
    DataSet(
        "billboard",
        "billboard",
        "decade of up to 890 chart songs",
        "annotations CC0; no audio is distributed",
        "https://ddmal.music.mcgill.ca/research/The_McGill_Billboard_Project_(Chord_Analysis_Dataset)",
        "a few MB",
        mirdata=("billboard", ("metadata", "annotation_salami")),
        manual="put your own audio at audio/<slot>.<suffix>, the slot with four digits",
    ),
    DataSet(
        "giantsteps",
        "giantsteps",
        "key of 604 pieces; training on 1,159 of the MTG's",
        "annotations CC BY-SA 4.0; audio: previews of Beatport",
        "https://github.com/GiantSteps/giantsteps-key-dataset",
        splits=("original", "plus"),
        downloads=(
            Download(
                f"{_GITHUB_URL}/GiantSteps/giantsteps-key-dataset/archive/"
                "c8cb8aad2cb53f165be51ea099d0dc75c64a844f.zip",
                "7749bee0f919b0f53db2c540fa6707f322b82a5d140e453f10f9af7875ad5bb8",
                "giantsteps-key-dataset.zip",
                archive=True,
            ),
            Download(
                f"{_GITHUB_URL}/GiantSteps/giantsteps-mtg-key-dataset/archive/"
                "fd7b8c584f7bd6d720d170c325a6d42c9bf75a6b.zip",
                "c754c3fabbc0bf275d399028e212fa2c9c6680084bd003e3a283ae7b3ea22996",
                "giantsteps-mtg-key-dataset.zip",
                archive=True,
            ),
        ),
        mirdata=("giantsteps_key", ("audio", "keys")),
        manual="for training and for the split `original`, run audio_dl.sh in both repositories",
        left_out="pieces of the MTG's with several keys, or a confidence other than 2",
    ),
    DataSet(
        "emomusic",
        "emomusic",
        "arousal and valence of 744 clips",
        "of each artist, Creative Commons; annotations for research",
        "https://cvml.unige.ch/databases/emoMusic/",
        downloads=(
            Download(
                f"{_EMOMUSIC_URL}/annotations.tar.gz",
                "e0cb0b06e1b0ce7f04b1572fc410937699b7fad9dae67ddaa745f06cda4b0b33",
                archive=True,
            ),
            Download(
                f"{_EMOMUSIC_URL}/clips_45sec.tar.gz",
                "3994a5d5fefc27f9540d1a69cd7f1294c68e6cb311ce49765021e2e9c7a1057b",
                archive=True,
            ),
        ),
        manual="the host may want a form: put both archives into downloads",
        seconds=(44, 46),
    ),
    *(
        DataSet(
            f"philharmonia-{target}",
            "philharmonia",
            summary,
            "CC BY-SA 3.0, Philharmonia Orchestra",
            "https://philharmonia.co.uk/resources/sound-samples/",
            options=(("target", target),),
            manual=_PHILHARMONIA,
        )
        for target, summary in (
            ("instrument", "instrument of 3,309 single notes"),
            ("pitch", "MIDI pitch of 2,585 single notes"),
        )
    ),
    *(
        DataSet(
            f"fsdd-{target}",
            "fsdd",
            f"{target} of 3,000 spoken digits",
            "CC BY-SA 4.0",
            "https://github.com/Jakobovski/free-spoken-digit-dataset",
            options=(("target", target),),
            splits=splits,
            manual=_FSDD,
        )
        for target, splits in (("digit", ("official", "speakers")), ("speaker", ()))
    ),
    *(
        DataSet(
            f"nsynth-{target}",
            "nsynth",
            summary,
            "CC BY 4.0",
            "https://magenta.tensorflow.org/datasets/nsynth",
            "349 MB",
            options=(("target", target),),
            splits=("5-fold", "published"),
            downloads=(_NSYNTH_TEST,),
            manual="for the split published, nsynth-train and nsynth-valid from the same place, "
            "unpacked",
            seconds=(3.99, 4.01),
            left_out=left_out,
        )
        for target, summary, left_out in (
            (
                "pitch",
                "MIDI pitch of 4,019 single notes, 88 keys",
                "brass_acoustic_046 from 84 up: one recording under all these pitches",
            ),
            ("family", "instrument family of 4,096 single notes", ""),
        )
    ),
    *(
        DataSet(
            f"mridangam-{target}",
            "mridangam",
            f"{target} of 6,977 drum strokes",
            "CC BY 3.0",
            "https://compmusic.upf.edu/mridangam-stroke-dataset",
            options=(("target", target),),
            mirdata=("mridangam_stroke", ("remote_data",)),
            hear_seconds=0.81,  # 95 % of the strokes are no longer
        )
        for target in ("stroke", "tonic")
    ),
    DataSet(
        "gtzan-music-speech",
        "gtzan_music_speech",
        "music or speech in 128 clips",
        "unknown",
        "http://marsyas.info/downloads/datasets.html",
        "297 MB",
        manual="the audio's host is gone: put your copy of the folder music_speech into --root",
        seconds=(29.9, 30.1),
    ),
    DataSet(
        LABELLED,
        LABELLED,
        "your own: a folder of class folders, or a CSV",
        "yours",
        "the documentation of hear_tune.datasets.labelled",
        manual="--root is the folder or the .csv",
    ),
)
CATALOG = {row.name: row for row in _ROWS}
