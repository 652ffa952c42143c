"""Splits for data that come without one.

A split is drawn by hashing names with a seed, so it does not depend on the order of files, the
platform or the version of a library.
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
    """Train, valid or test for each item: 80, 10 and 10 % of every stratum.

    A stratum of three groups or more has at least one in each split; of two, one in train and
    one in test; a single one is for training.

    Parameters
    ----------
    names
        Unique; what the draw depends on, beside the seed.
    strata
        Of each item: its class, say.
    groups
        Items of one group share a split and count once, in the stratum of the first of them.
        None: each item is a group.
    seed
        Of the draw.

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
    """Group of each item, where items that share any key are of one group, however indirectly.

    Parameters
    ----------
    keys
        Of each item, by kind: its artist and the digest of its content, say. An empty key is shared
        with nobody.

    Returns
    -------
    list of str
        The number of the first item of its group, as text, for each item.
    """
    first = list(range(len(keys[0])))  # each item's root, as far as it is known

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
    """Fold of each item, as fold00: every stratum is dealt out evenly.

    Parameters are those of `stratified_split`, and how many folds there are.
    """
    fold_of: dict[str, str] = {}
    dealt = 0
    for members in _drawn(names, strata, groups, seed):
        for member in members:
            fold_of[member] = f"{FOLD}{dealt % folds:02d}"
            dealt += 1
    return [fold_of[group] for group in groups or names]


def _drawn(
    names: Sequence[str], strata: Sequence[str], groups: Sequence[str] | None, seed: int
) -> list[list[str]]:
    """Groups of each stratum, in an order drawn by the seed."""
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
