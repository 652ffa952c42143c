"""Splits for data that come without one.

Splits are drawn by hashing names with a seed: they do not depend on the order of files, the
platform or library versions.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from .task import FOLD, TEST, TRAIN, VALID

VALID_SHARE = TEST_SHARE = 0.1
DEFAULT_SEED = 0


def stratified_split(
    names: Sequence[str],
    strata: Sequence[str],
    groups: Sequence[str] | None = None,
    seed: int = DEFAULT_SEED,
) -> list[str]:
    """Draw train, valid or test for each item: 80, 10 and 10 % of every stratum.

    A stratum of three or more groups has at least one in each split; of two, one in train and one
    in test; a single group is for training.

    Parameters
    ----------
    names : sequence of str
        Unique names of the items, which determine the draw together with the seed.
    strata : sequence of str
        Stratum of each item, such as its class.
    groups : sequence of str, optional
        Items of one group share a split and count once, in the stratum of the first of them. By
        default each item is a group.
    seed : int
        Seed of the draw.

    Returns
    -------
    list of str
        Split of each item.
    """
    split_of: dict[str, str] = {}
    for members in _drawn(names, strata, groups, seed):
        count = len(members)
        test = max(round(count * TEST_SHARE), 1 if count > 1 else 0)
        valid = max(round(count * VALID_SHARE), 1 if count > 2 else 0)
        sizes = ((TEST, test), (VALID, valid), (TRAIN, count - test - valid))
        splits = [split for split, size in sizes for _ in range(size)]
        split_of.update(zip(members, splits, strict=True))
    return [split_of[group] for group in groups or names]


def joined_groups(*keys: Sequence[str]) -> list[str]:
    """Group items that share any key, directly or through others.

    Parameters
    ----------
    *keys : sequence of str
        One sequence per kind of key, such as artists, with the key of each item. Empty keys are not
        shared.

    Returns
    -------
    list of str
        For each item, the number of the first item of its group, as text.
    """
    first = list(range(len(keys[0])))  # an earlier item of the same group, or the item itself

    def root(item: int) -> int:
        while first[item] != item:
            first[item] = first[first[item]]
            item = first[item]
        return item

    for kind in keys:
        first_with: dict[str, int] = {}
        for item, key in enumerate(kind):
            if key:
                a, b = root(item), root(first_with.setdefault(key, item))
                first[max(a, b)] = min(a, b)
    return [str(root(item)) for item in range(len(first))]


def stratified_folds(
    names: Sequence[str],
    strata: Sequence[str],
    folds: int,
    groups: Sequence[str] | None = None,
    seed: int = DEFAULT_SEED,
) -> list[str]:
    """Draw a fold, such as fold00, for each item, so that every stratum is dealt out evenly.

    The other parameters are those of `stratified_split`.
    """
    fold_of: dict[str, str] = {}
    dealt = 0
    for members in _drawn(names, strata, groups, seed):
        for member in members:
            fold_of[member] = f"{FOLD}{dealt % folds:02d}"
            dealt += 1
    return [fold_of[group] for group in groups or names]


def hashed_split(name: str, folds: int, train_folds: int) -> str:
    """Train or valid by the SHA-1 of a name, as in jukemir (Castellon et al., ISMIR 2021)."""
    digest = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
    return TRAIN if int(digest, 16) % folds < train_folds else VALID


def _drawn(
    names: Sequence[str], strata: Sequence[str], groups: Sequence[str] | None, seed: int
) -> list[list[str]]:
    """Return the groups of each stratum, in an order drawn by the seed."""
    name_of: dict[str, str] = {}
    stratum_of: dict[str, str] = {}
    for name, stratum, group in sorted(zip(names, strata, groups or names, strict=True)):
        name_of.setdefault(group, name)
        stratum_of.setdefault(group, stratum)
    members = defaultdict(list)
    for group, stratum in stratum_of.items():
        members[stratum].append(group)

    def draw(group: str) -> str:
        return hashlib.sha256(f"{seed}\0{name_of[group]}".encode()).hexdigest()

    return [sorted(members[stratum], key=draw) for stratum in sorted(members)]
