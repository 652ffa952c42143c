"""Augmentations of signals with known results."""

import math

import numpy as np
import pytest
import torch

from hear_tune.pretrain import augment

RATE_HZ = 22_050
SAMPLES = 59_049
FREQUENCY_TOLERANCE_CENTS = 1.0
ONSET_TOLERANCE_SECONDS = 0.03


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def values(*numbers):
    return torch.tensor(numbers, dtype=torch.float32)


def sine(frequency_hz, samples=SAMPLES, amplitude=0.5):
    time = torch.arange(samples, dtype=torch.float64) / RATE_HZ
    return (amplitude * torch.sin(2 * math.pi * frequency_hz * time)).float()


def white_noise(rows, samples=SAMPLES, seed=1):
    return torch.randn(rows, samples, generator=seeded(seed)) * 0.1


def rms(audio):
    return audio.double().square().mean(-1).sqrt()


def level_db(audio, reference):
    return (20 * torch.log10(rms(audio) / rms(reference))).tolist()


def peak_frequency_hz(audio):
    size = 2**20
    magnitude = np.abs(np.fft.rfft(audio.double().numpy() * np.blackman(len(audio)), size))
    peak = int(magnitude.argmax())
    before, here, after = np.log(magnitude[peak - 1 : peak + 2])
    return (peak + 0.5 * (before - after) / (before - 2 * here + after)) * RATE_HZ / size


def band_rms(audio, low_hz, high_hz):
    spectrum = torch.fft.rfft(audio.double())
    frequency = torch.fft.rfftfreq(audio.shape[-1], 1 / RATE_HZ)
    inside = (frequency >= low_hz) & (frequency < high_hz)
    return rms(torch.fft.irfft(spectrum * inside, audio.shape[-1]))


def every_transform(p):
    return [
        augment.PolarityInversion(p=p),
        augment.Noise(p=p),
        augment.Gain(p=p),
        augment.HighLowPass(RATE_HZ, p=p),
        augment.Delay(RATE_HZ, p=p),
        augment.PitchShift(RATE_HZ, p=p),
        augment.Reverb(RATE_HZ, p=p),
    ]


def name(transform):
    return type(transform).__name__


class TestPolarityNoiseGain:
    def test_polarity_is_flipped(self):
        audio = white_noise(2, 100)
        torch.testing.assert_close(augment.invert_polarity(audio), -audio)

    def test_noise_is_relative_to_the_standard_deviation(self):
        audio = torch.stack([sine(440.0), sine(440.0, amplitude=0.05)])
        noise = torch.randn(audio.shape, generator=seeded())
        added = augment.add_noise(audio, noise, values(0.01, 0.001)) - audio
        expected = audio.std(-1) * values(0.01, 0.001)
        torch.testing.assert_close(added.std(-1), expected, rtol=0.02, atol=0)

    def test_noise_level_is_drawn_from_its_range(self):
        audio = white_noise(400, 2000)
        added = augment.Noise(p=1.0)(audio, seeded()) - audio
        relative = added.std(-1) / audio.std(-1)
        assert 0.00009 < relative.min() < 0.0005
        assert 0.0095 < relative.max() < 0.011

    def test_gain_in_decibels(self):
        audio = white_noise(3, 1000)
        scaled = augment.gain(audio, values(-20.0, -6.0, 0.0))
        assert level_db(scaled, audio) == pytest.approx([-20, -6, 0], abs=1e-4)


class TestButterworth:
    @pytest.mark.parametrize("cutoff_hz", [200.0, 1200.0, 2200.0, 4000.0])
    @pytest.mark.parametrize("high_pass", [True, False])
    def test_half_power_at_the_cutoff(self, cutoff_hz, high_pass):
        audio = sine(cutoff_hz)[None]
        filtered = augment.butterworth(audio, values(cutoff_hz), torch.tensor([high_pass]), RATE_HZ)
        settled = slice(4000, None)
        decibels = level_db(filtered[:, settled], audio[:, settled])
        assert decibels == pytest.approx([-3.01], abs=0.02)

    @pytest.mark.parametrize(
        ("high_pass", "cutoff_hz", "frequency_hz"),
        [
            (True, 1000.0, 100.0),
            (True, 1000.0, 5000.0),
            (False, 2500.0, 100.0),
            (False, 2500.0, 5000.0),
        ],
    )
    def test_gain_of_the_digital_biquad(self, high_pass, cutoff_hz, frequency_hz):
        warped = math.tan(math.pi * frequency_hz / RATE_HZ) / math.tan(
            math.pi * cutoff_hz / RATE_HZ
        )
        power = (warped**4 if high_pass else 1.0) / (1 + warped**4)
        audio = sine(frequency_hz)[None]
        filtered = augment.butterworth(audio, values(cutoff_hz), torch.tensor([high_pass]), RATE_HZ)
        decibels = level_db(filtered[:, 4000:], audio[:, 4000:])
        assert decibels == pytest.approx([10 * math.log10(power)], abs=0.05)

    @pytest.mark.parametrize("high_pass", [True, False])
    def test_equals_the_recursion(self, high_pass):
        cutoff_hz, samples = 300.0, 5000
        k = math.tan(math.pi * cutoff_hz / RATE_HZ)
        scale = 1 / (1 + math.sqrt(2) * k + k * k)
        b = (
            np.array([1.0, -2.0, 1.0]) * scale
            if high_pass
            else np.array([1.0, 2, 1]) * k * k * scale
        )
        a1, a2 = 2 * (k * k - 1) * scale, (1 - math.sqrt(2) * k + k * k) * scale
        audio = white_noise(1, samples)
        x = audio[0].double().numpy()
        y = np.zeros(samples)
        for n in range(samples):
            past = [x[n - i] if n >= i else 0.0 for i in range(3)]
            y[n] = b @ past - a1 * (y[n - 1] if n else 0.0) - a2 * (y[n - 2] if n > 1 else 0.0)
        filtered = augment.butterworth(audio, values(cutoff_hz), torch.tensor([high_pass]), RATE_HZ)
        np.testing.assert_allclose(filtered[0].numpy(), y, atol=1e-6)

    def test_nothing_wraps_around(self):
        audio = torch.zeros(2, 10_000)
        audio[:, -1] = 1.0
        filtered = augment.butterworth(
            audio, values(200.0, 2200.0), torch.tensor([True, False]), RATE_HZ
        )
        assert filtered[:, :-1].abs().max() < 1e-6

    def test_cutoffs_are_drawn_from_both_ranges(self):
        impulse = torch.zeros(600, 4096)
        impulse[:, 0] = 1.0
        response = torch.fft.rfft(augment.HighLowPass(RATE_HZ, p=1.0)(impulse, seeded())).abs()
        frequency = torch.fft.rfftfreq(4096, 1 / RATE_HZ)
        half_power = frequency[(response.square() - 0.5).abs().argmin(-1)]
        high_pass = response[:, 0] < 0.5
        assert 230 <= high_pass.sum() <= 370
        assert 190 < half_power[high_pass].min() < 260
        assert 1140 < half_power[high_pass].max() < 1210
        assert 2190 < half_power[~high_pass].min() < 2300
        assert 3900 < half_power[~high_pass].max() < 4010


class TestDelay:
    def test_echo_of_an_impulse(self):
        audio = torch.zeros(2, 20_000)
        audio[:, 100] = 1.0
        echoed = augment.delay(audio, values(200.0, 450.0), RATE_HZ)
        expected = torch.zeros_like(audio)
        expected[:, 100] = 0.5
        expected[0, 100 + 4410] = 0.25
        expected[1, 100 + 9922] = 0.25
        torch.testing.assert_close(echoed, expected)

    def test_nothing_wraps_around(self):
        audio = torch.zeros(1, 10_000)
        audio[:, -1] = 1.0
        torch.testing.assert_close(augment.delay(audio, values(200.0), RATE_HZ), audio / 2)

    def test_each_published_delay_occurs(self):
        audio = torch.zeros(200, 12_000)
        audio[:, 0] = 1.0
        echoes = augment.Delay(RATE_HZ, p=1.0)(audio, seeded())[:, 1:].argmax(-1) + 1
        expected = [round(milliseconds * RATE_HZ / 1000) for milliseconds in range(200, 451, 50)]
        assert echoes.unique().tolist() == expected


class TestPitchShift:
    @pytest.mark.parametrize("frequency_hz", [110.0, 440.0, 2500.0])
    def test_shifted_sine(self, frequency_hz):
        semitones = values(-7.0, -5.5, -3.0, -1.0, -0.1, 0.0, 0.1, 1.0, 2.3, 4.0, 5.5, 7.0)
        audio = sine(frequency_hz).expand(len(semitones), -1)
        shifted = augment.pitch_shift(audio, semitones, RATE_HZ)
        assert shifted.shape == audio.shape
        for shift, row in zip(semitones.tolist(), shifted, strict=True):
            cents = 1200 * math.log2(peak_frequency_hz(row) / frequency_hz)
            assert cents == pytest.approx(100 * shift, abs=FREQUENCY_TOLERANCE_CENTS)
        assert level_db(shifted, audio) == pytest.approx([0] * len(semitones), abs=0.1)

    def test_harmonics_keep_their_amplitudes(self):
        amplitudes = {220.0: 0.3, 440.0: 0.2, 880.0: 0.1}
        audio = sum(sine(f, amplitude=a) for f, a in amplitudes.items())[None]
        shifted = augment.pitch_shift(audio, values(4.0), RATE_HZ)
        ratio = 2 ** (4 / 12)
        for frequency_hz, amplitude in amplitudes.items():
            centre = frequency_hz * ratio
            measured = band_rms(shifted, centre - 40, centre + 40)
            assert measured.item() == pytest.approx(amplitude / math.sqrt(2), rel=0.03)

    def test_no_shift_changes_nothing_below_the_cutoff(self):
        audio = sum(sine(f) for f in (100.0, 1234.5, 5000.0))[None]
        shifted = augment.pitch_shift(audio, values(0.0), RATE_HZ)
        inner = slice(100, -100)
        torch.testing.assert_close(shifted[:, inner], audio[:, inner], atol=2e-3, rtol=0)

    def test_onsets_and_durations_are_kept(self):
        bursts = [(0.4, 0.6), (1.1, 1.4), (1.9, 2.3)]
        audio = torch.zeros(SAMPLES)
        for begin, end in bursts:
            inside = slice(int(begin * RATE_HZ), int(end * RATE_HZ))
            audio[inside] = sine(500.0)[inside]
        semitones = values(-7.0, -3.0, 3.0, 7.0)
        shifted = augment.pitch_shift(audio.expand(4, -1), semitones, RATE_HZ)
        for row in shifted:
            loud = (row.abs() > 0.15).nonzero()[:, 0] / RATE_HZ
            for begin, end in bursts:
                burst = loud[(loud > begin - 0.2) & (loud < end + 0.2)]
                edges = [burst.min().item(), burst.max().item()]
                assert edges == pytest.approx([begin, end], abs=ONSET_TOLERANCE_SECONDS)

    def test_no_clicks_between_segments(self):
        audio = sine(440.0).expand(3, -1)
        shifted = augment.pitch_shift(audio, values(-6.3, 2.2, 6.7), RATE_HZ)
        fastest = 2 * math.pi * 440 * 2 ** (6.7 / 12) / RATE_HZ * 0.5
        assert shifted[:, 30:-30].diff().abs().max() < 1.1 * fastest

    def test_upward_shift_does_not_alias(self):
        audio = sine(9000.0)[None]
        shifted = augment.pitch_shift(audio, values(7.0), RATE_HZ)
        assert level_db(shifted, audio)[0] < -50

    def test_shifts_are_drawn_from_the_whole_range(self):
        audio = sine(440.0, 8192).expand(200, -1)
        shifted = augment.PitchShift(RATE_HZ, p=1.0)(audio, seeded())
        semitones = [12 * math.log2(peak_frequency_hz(row) / 440) for row in shifted]
        assert -7.1 < min(semitones) < -6.5
        assert 6.5 < max(semitones) < 7.1
        assert abs(np.mean(semitones)) < 1


class TestReverb:
    def test_equals_the_recursion(self):
        reverberance, damping, room_size = 80.0, 60.0, 10.0
        audio = torch.zeros(1, 6000)
        audio[0, :500] = white_noise(1, 500)
        feedback = 1 - math.exp(
            math.log(0.7) + (math.log(0.02) - math.log(0.7)) * reverberance / 100
        )
        absorption = 0.2 + 0.3 * damping / 100
        scale = (0.1 + 0.9 * room_size / 100) * RATE_HZ / 44_100
        x = audio[0].double().numpy()
        wet = np.zeros(len(x))
        for length in (1116, 1188, 1277, 1356, 1422, 1491, 1557, 1617):
            line, store = np.zeros(int(scale * length + 0.5)), 0.0
            for n in range(len(x)):
                slot = n % len(line)
                out = line[slot]
                store = out + (store - out) * absorption
                line[slot] = x[n] + feedback * store
                wet[n] += out
        for length in (225, 341, 441, 556):
            line = np.zeros(int(length * RATE_HZ / 44_100 + 0.5))
            for n in range(len(x)):
                slot = n % len(line)
                out = line[slot]
                line[slot] = wet[n] + 0.5 * out
                wet[n] = out - wet[n]
        result = augment.reverb(
            audio, values(reverberance), values(damping), values(room_size), RATE_HZ
        )
        np.testing.assert_allclose(result[0].numpy(), x + 0.015 * wet, atol=2e-5)

    def impulse_responses(self, reverberance, damping, room_size):
        impulse = torch.zeros(len(reverberance), SAMPLES)
        impulse[:, 0] = 1.0
        return augment.reverb(impulse, reverberance, damping, room_size, RATE_HZ)

    def decay_seconds(self, response, drop_db=30.0):
        """Decay time by `drop_db` of the remaining energy (Schroeder integration)."""
        energy = response[:, 1:].double().square().flip(-1).cumsum(-1).flip(-1)
        decibels = 10 * torch.log10(energy / energy[:, :1] + 1e-12)
        return (decibels > -drop_db).sum(-1) / RATE_HZ

    def test_decay_grows_with_reverberance_and_room_size(self):
        reverberance = values(0.0, 30.0, 60.0, 90.0)
        decay = self.decay_seconds(
            self.impulse_responses(reverberance, values(*[50.0] * 4), values(*[50.0] * 4))
        )
        assert (decay.diff() > 0.02).all()
        room_size = values(0.0, 30.0, 60.0, 90.0)
        decay = self.decay_seconds(
            self.impulse_responses(values(*[50.0] * 4), values(*[50.0] * 4), room_size)
        )
        assert (decay.diff() > 0.02).all()

    def test_damping_shortens_the_highs(self):
        response = self.impulse_responses(values(80.0, 80.0), values(0.0, 99.0), values(80.0, 80.0))
        late = response[:, RATE_HZ // 2 : RATE_HZ]
        highs = band_rms(late, 4000, 8000) / band_rms(late, 100, 500)
        assert highs[1] < 0.5 * highs[0]

    def test_direct_sound_comes_first_and_unchanged(self):
        response = self.impulse_responses(values(0.0, 99.0), values(0.0, 50.0), values(0.0, 99.0))
        assert response[:, 0].tolist() == pytest.approx([1, 1], abs=1e-4)
        shortest_comb = int(0.1 * 1116 * RATE_HZ / 44_100)
        assert response[:, 1:shortest_comb].abs().max() < 1e-3

    def test_energy_stays_finite(self):
        audio = white_noise(2)
        most = values(99.0, 99.0)
        wet = augment.reverb(audio, most, values(0.0, 99.0), most, RATE_HZ) - audio
        assert (rms(wet) < rms(audio)).all()

    def test_what_outlasts_the_audio_hardly_wraps_around(self):
        audio = torch.zeros(1, SAMPLES)
        audio[:, -RATE_HZ:] = white_noise(1, RATE_HZ)
        result = augment.reverb(audio, values(99.0), values(0.0), values(99.0), RATE_HZ)
        start = result[:, : SAMPLES - RATE_HZ]
        assert level_db(start, audio[:, -RATE_HZ:])[0] < -60


class TestTransforms:
    def test_probabilities(self):
        audio = white_noise(1000, 1024)
        generator = seeded()
        for transform in augment.clmr_chain(RATE_HZ).transforms:
            changed = (transform(audio, generator) != audio).any(-1).sum().item()
            expected = len(audio) * transform.p
            deviation = math.sqrt(len(audio) * transform.p * (1 - transform.p))
            assert abs(changed - expected) < 4 * deviation, name(transform)

    def test_published_order_and_probabilities(self):
        chain = [(name(t), t.p) for t in augment.clmr_chain().transforms]
        assert chain == [
            ("PolarityInversion", 0.8),
            ("Noise", 0.01),
            ("Gain", 0.3),
            ("HighLowPass", 0.8),
            ("Delay", 0.3),
            ("PitchShift", 0.6),
            ("Reverb", 0.6),
        ]

    @pytest.mark.parametrize("transform", every_transform(p=1.0), ids=name)
    def test_a_seed_reproduces_and_another_differs(self, transform):
        audio = white_noise(6, 12_000)
        first = transform(audio, seeded(3))
        assert torch.equal(first, transform(audio, seeded(3)))
        if not isinstance(transform, augment.PolarityInversion):
            assert not torch.equal(first, transform(audio, seeded(4)))

    @pytest.mark.parametrize("transform", every_transform(p=1.0)[1:], ids=name)
    def test_each_sample_draws_its_own_parameters(self, transform):
        audio = white_noise(1, 12_000).expand(8, -1)
        result = transform(audio, seeded())
        distinct = len(result.unique(dim=0))
        assert distinct >= 4 if isinstance(transform, augment.Delay) else distinct == 8

    @pytest.mark.parametrize("transform", every_transform(p=0.5), ids=name)
    def test_unpicked_samples_and_the_input_stay_as_they_are(self, transform):
        audio = white_noise(16, 12_000)
        original = audio.clone()
        result = transform(audio, seeded())
        assert torch.equal(audio, original)
        same = (result == audio).all(-1)
        assert 0 < same.sum() < 16

    def test_neighbours_do_not_matter(self):
        chain = augment.clmr_chain(RATE_HZ)
        audio = white_noise(8, 19_683)
        others = audio.clone()
        others[:4] = 1000 * white_noise(4, 19_683, seed=9)
        first, second = chain(audio, seeded()), chain(others, seeded())
        torch.testing.assert_close(first[4:], second[4:], atol=1e-6, rtol=1e-5)

    @pytest.mark.parametrize("transform", every_transform(p=1.0), ids=name)
    @pytest.mark.parametrize("samples", [1, 100, 1809, 4000, 19_683])
    def test_short_audio(self, transform, samples):
        for rows in (1, 5):
            result = transform(white_noise(rows, samples), seeded())
            assert result.shape == (rows, samples)
            assert result.isfinite().all()

    @pytest.mark.parametrize("transform", every_transform(p=1.0), ids=name)
    def test_silence_stays_silence(self, transform):
        assert not transform(torch.zeros(3, 12_000), seeded()).any()

    def test_chain_is_finite_on_extreme_audio(self):
        audio = torch.zeros(24, 19_683)
        audio[:8] = 1.0
        audio[8:16, 5000] = 1e4
        audio[16:] = white_noise(8, 19_683) * 1e-20
        assert augment.clmr_chain(RATE_HZ)(audio, seeded()).isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_precision_of_the_input_is_returned(self, dtype):
        audio = white_noise(8, 12_000).to(dtype)
        chain = augment.clmr_chain(RATE_HZ)
        result = chain(audio, seeded())
        assert result.dtype == dtype
        assert torch.equal(result, chain(audio.float(), seeded()).to(dtype))

    def test_two_views_differ(self):
        generator = seeded()
        chain = augment.clmr_chain(RATE_HZ)
        audio = white_noise(8, 12_000)
        assert not torch.equal(chain(audio, generator), chain(audio, generator))

    def test_nothing_but_the_generator_is_drawn_from(self):
        state = torch.get_rng_state()
        augment.clmr_chain(RATE_HZ)(white_noise(16, 4000), seeded())
        assert torch.equal(torch.get_rng_state(), state)

    def test_louder_than_full_scale_is_not_clipped(self):
        audio = 3 * sine(440.0, 12_000)[None].repeat(16, 1)
        assert augment.clmr_chain(RATE_HZ)(audio, seeded()).abs().max() > 1

    @pytest.mark.parametrize(
        "audio", [torch.zeros(100), torch.zeros(2, 0), torch.zeros(2, 5, dtype=torch.int16)]
    )
    def test_other_input_is_refused(self, audio):
        with pytest.raises(ValueError, match=r"\(batch, samples\)"):
            augment.clmr_chain()(audio, seeded())

    def test_impossible_probability_is_refused(self):
        with pytest.raises(ValueError, match="between 0 and 1"):
            augment.Gain(p=1.5)
