"""A clip in chunks gives the rows of the whole clip, within the latency."""

import numpy as np
import pytest
from conftest import noise
from hypothesis import given, settings
from hypothesis import strategies as st

import hear_tune
from hear_tune.embedding.batching import concatenate
from hear_tune.embedding.streaming import STREAM_PER_CHOICES


def stream(embedder, chunks):
    return concatenate([*map(embedder.push, chunks), embedder.finish()])


def assert_equal_rows(rows, expected):
    np.testing.assert_array_equal(rows.start, expected.start)
    np.testing.assert_array_equal(rows.end, expected.end)
    largest = abs(expected.vectors).max()
    np.testing.assert_allclose(rows.vectors, expected.vectors, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("per", STREAM_PER_CHOICES)
@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 150_000),
    cuts=st.lists(st.integers(0, 150_000), max_size=12),
    step_ms=st.sampled_from([0, 100, 2_500]),
)
def test_any_chunks_give_the_rows_of_the_whole(small_model, per, length, cuts, step_ms):
    samples = noise(length)
    chunks = np.split(samples, sorted(cut % (length + 1) for cut in cuts))
    rows = stream(hear_tune.Embedder(small_model, per=per, step_ms=step_ms), chunks)
    assert_equal_rows(rows, hear_tune.embed_array(samples, 22_050, small_model, per))


@pytest.mark.parametrize("per", STREAM_PER_CHOICES)
def test_the_real_network(model, per):
    samples = noise(200_000)
    rows = stream(hear_tune.Embedder(model, per=per), np.array_split(samples, 40))
    assert_equal_rows(rows, hear_tune.embed_array(samples, 22_050, model, per))


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 96_000])
def test_chunks_of_another_rate_in_stereo_and_integers(small_model, rate):
    sound = (20_000 * np.stack([noise(4 * rate), noise(4 * rate, 1)], axis=1)).astype(np.int16)
    rows = stream(hear_tune.Embedder(small_model, rate), np.array_split(sound, 50))
    assert_equal_rows(rows, hear_tune.embed_array(sound, rate, small_model, "timestamp"))


@pytest.mark.parametrize("per", STREAM_PER_CHOICES)
@pytest.mark.parametrize("rate", [8_000, 22_050, 48_000])
@pytest.mark.parametrize("step_ms", [0, 700])
def test_rows_are_out_in_time(small_model, per, rate, step_ms):
    sound = noise(10 * rate)
    whole = hear_tune.embed_array(sound, rate, small_model, per)
    embedder = hear_tune.Embedder(small_model, rate, per, step_ms)
    out = pushed = 0
    latest = 0.0
    for chunk in np.array_split(sound, 1_000):
        out += len(embedder.push(chunk).vectors)
        pushed += len(chunk)
        due = (whole.end < pushed / rate - embedder.latency_ms / 1000).sum()
        latest = max(latest, pushed / rate - whole.end[min(out, len(whole.end) - 1)])
        assert out >= due
    assert 0 < out < len(whole.end) + 1
    assert latest > 0.4 * embedder.latency_ms / 1000 - 0.01  # a tight bound


def test_memory_is_constant(small_model):
    import tracemalloc

    embedder = hear_tune.Embedder(small_model, 44_100)
    peaks = []
    tracemalloc.start()
    for _ in range(3):
        tracemalloc.reset_peak()
        for _ in range(100):
            embedder.push(np.zeros(44_100, np.float32))
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert peaks[-1] < 1.1 * peaks[0]


def test_longer_steps_cost_less_and_come_later(model):
    short, long = (hear_tune.Embedder(model, step_ms=step_ms) for step_ms in (0, 10_000))
    assert short.cost > 4 > 2 > long.cost > 1
    assert long.latency_ms > short.latency_ms + 9_000


def test_wrong_use(small_model):
    embedder = hear_tune.Embedder(small_model)
    samples = noise(30_000)
    embedder.push(samples[:10_000])
    with pytest.raises(hear_tune.AudioError, match="NaN"):
        embedder.push(np.array([0.1, np.nan]))
    with pytest.raises(hear_tune.AudioError, match=r"must be \(samples,\)"):
        embedder.push(np.zeros((1, 2, 3)))
    rows = concatenate([embedder.push(samples[10_000:]), embedder.finish()])
    expected = hear_tune.embed_array(samples, 22_050, small_model, "timestamp")
    np.testing.assert_array_equal(rows.start[-1], expected.start[-1])
    with pytest.raises(RuntimeError, match="was finished"):
        embedder.push(samples)
    with pytest.raises(RuntimeError, match="was finished"):
        embedder.finish()
    with pytest.raises(ValueError, match="per must be one of timestamp, window"):
        hear_tune.Embedder(small_model, per="track")
    with pytest.raises(ValueError, match="step_ms must be at least 0"):
        hear_tune.Embedder(small_model, step_ms=-1)
    with pytest.raises(hear_tune.AudioError, match="sample rate is 3 Hz"):
        hear_tune.Embedder(small_model, 3)


def test_a_clip_without_audio(small_model):
    rows = hear_tune.Embedder(small_model).finish()
    assert rows.vectors.shape == (0, small_model.timestamp_embedding_size)


def test_short_chunks_of_several_channels(small_model):
    """After a longer chunk set the number of channels."""
    sound = np.stack([noise(9_000), noise(9_000, 1)], axis=1)
    embedder = hear_tune.Embedder(small_model)
    for chunk in (sound[:1], sound[None, :512, 0]):
        with pytest.raises(hear_tune.AudioError, match="more channels than samples: transpose it"):
            embedder.push(chunk)
    chunks = [sound[:500], sound[500:501], sound[501:501], sound[501:]]
    expected = hear_tune.embed_array(sound, 22_050, small_model, "timestamp")
    assert_equal_rows(stream(embedder, chunks), expected)
    with pytest.raises(hear_tune.AudioError, match="more channels than samples"):
        hear_tune.Embedder(small_model).push(sound.T)
