from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hear_tune.embedding.framing import SegmentCutter, WindowCutter, cut, timestamp_bounds
from hear_tune.networks.config import TIMESTAMP_STRIDE

UNIT = 729


def ramp(length):
    return np.arange(length, dtype=np.float32)


def in_blocks(samples, cuts):
    return np.split(samples, sorted(cut % (len(samples) + 1) for cut in cuts))


lengths = st.integers(1, 40 * UNIT)
cuts = st.lists(st.integers(0, 10**6), max_size=8)


@settings(deadline=None)
@given(lengths, cuts, st.integers(50, 5 * UNIT))
def test_windows_cover_the_clip_and_do_not_depend_on_blocks(length, cuts, hop):
    size = 5 * UNIT
    windows = list(cut(in_blocks(ramp(length), cuts), WindowCutter(size, hop)))
    assert windows[0].start == 0
    assert windows[-1].end == length
    for window, following in pairwise(windows):
        assert window.start < following.start <= min(window.start + hop, window.end)
    for window in windows:
        covered = window.end - window.start
        assert len(window.samples) == size
        np.testing.assert_array_equal(window.samples[:covered], ramp(length)[window.start :][:size])
    whole = list(cut([ramp(length)], WindowCutter(size, hop)))
    assert [(w.start, w.end) for w in whole] == [(w.start, w.end) for w in windows]


def test_silence_follows_a_short_clip():
    (window,) = cut([np.array([1, 2, 3], np.float32)], WindowCutter(9, 9))
    assert (window.start, window.end) == (0, 3)
    np.testing.assert_array_equal(window.samples, [1, 2, 3] + [0] * 6)


def test_a_clip_without_samples_has_no_windows():
    assert list(cut([], WindowCutter(27, 27))) == []
    assert list(cut([np.empty(0, np.float32)], WindowCutter(27, 27))) == []
    assert list(cut([np.empty(0, np.float32)], SegmentCutter(27, 9, 9, 9))) == []


@pytest.mark.parametrize(
    ("length", "hop", "expected"),
    [
        (4, 10, [10]),
        (10, 10, [10]),
        (30, 10, [10, 10, 10]),
        (25, 10, [10, 10, 5]),
        (11, 10, [10, 1]),
        (22, 5, [5, 5, 5, 2]),
    ],
)
def test_the_last_window_is_weighted_by_the_audio_it_adds(length, hop, expected):
    windows = cut([ramp(length)], WindowCutter(10, hop))
    assert [window.weight for window in windows] == expected


@settings(deadline=None)
@given(lengths, cuts)
def test_segments_tile_the_clip_with_context(length, cuts):
    size, before, after = 6 * UNIT, 2 * UNIT, 3 * UNIT
    cutter = SegmentCutter(size, before, after, UNIT)
    segments = list(cut(in_blocks(ramp(length), cuts), cutter))
    assert [s.start for s in segments] == [i * size for i in range(len(segments))]
    assert [s.end for s in segments[:-1]] == [s.start for s in segments[1:]]
    assert segments[-1].end == length
    padded = np.pad(ramp(length), (0, -length % UNIT), mode="symmetric")
    for segment in segments:
        assert len(segment.samples) % UNIT == 0
        first = segment.start - segment.skip
        assert segment.skip == min(before, segment.start)
        np.testing.assert_array_equal(segment.samples, padded[first:][: len(segment.samples)])
        assert first + len(segment.samples) >= min(segment.end + after, len(padded))


@given(lengths)
def test_timestamps_are_even_and_within_the_clip(length):
    segments = cut([ramp(length)], SegmentCutter(6 * UNIT, 2 * UNIT, 3 * UNIT, UNIT))
    bounds = [timestamp_bounds(segment) for segment in segments]
    start, end = (np.concatenate(side) for side in zip(*bounds, strict=True))
    centres = (start + end) / 2
    assert len(centres) == max(1, (length + TIMESTAMP_STRIDE // 2) // TIMESTAMP_STRIDE)
    assert (np.diff(centres) == TIMESTAMP_STRIDE).all()
    assert centres[0] == min(TIMESTAMP_STRIDE, 2 * centres[0]) / 2
    assert length - TIMESTAMP_STRIDE < centres[-1] <= length


@given(lengths, st.integers(50, 5 * UNIT))
def test_shares_change_smoothly_with_length(length, hop):
    def shares(samples):
        windows = cut([ramp(samples)], WindowCutter(5 * UNIT, hop))
        weights = np.array([window.weight for window in windows])
        return weights / weights.sum()

    now, later = shares(length), shares(length + 1)
    assert (now > 0).all()
    assert now[:-1] == pytest.approx(now[0])
    assert now[-1] <= now[0] + 1e-12
    shorter = np.pad(now, (0, len(later) - len(now)))
    # one more sample adds at most 1 / hop of a window's weight
    assert np.abs(later - shorter).max() <= 1 / hop + 1e-9
