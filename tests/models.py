"""Models that behave badly, in a module of their own so that other processes can import it."""

import faulthandler
import os
import signal
import time

import hear_tune


class CrashingModel(hear_tune.EmbeddingModel):
    """Crashes its process at clips that begin with a certain sample, as a decoder may."""

    def windows(self, blocks):
        return super().windows(map(self.decode, blocks))

    def decode(self, block):
        if 0.25 in block[:1]:
            faulthandler.disable()  # pytest's would print all stacks
            os.kill(os.getpid(), signal.SIGSEGV)
        return block


class SlowModel(hear_tune.EmbeddingModel):
    """Is slow on every clip."""

    def windows(self, blocks):
        time.sleep(0.5)
        return super().windows(blocks)


class LateCrashingModel(CrashingModel):
    """Crashes its process at clips that end with a certain sample."""

    def decode(self, block):
        return super().decode(block[::-1])[::-1]


class LockstepModel(hear_tune.EmbeddingModel):
    """Tells when it cuts a clip, or embeds one, and waits for what should happen meanwhile.

    Clips hold their number, in multiples of a tenth, in all their samples. Cutting clip n + 2 waits
    until clip n is being embedded, and embedding clip n until clip n + 1 is being cut.
    """

    def __init__(self, encoder, folder, clips):
        super().__init__(encoder)
        self.folder, self.clips = folder, clips

    def windows(self, blocks):
        for block in filter(len, blocks):
            number = round(10 * float(block[0]))
            self.tell("cut", number)
            self.wait("embedded", number - 2)
            yield from super().windows([block])

    def pool_windows(self, audio):
        number = round(10 * float(audio[0, 0]))
        self.tell("embedded", number)
        self.wait("cut", number + 1)
        return super().pool_windows(audio)

    def tell(self, what, number):
        (self.folder / f"{what} {number}").touch()

    def wait(self, what, number):
        end = time.monotonic() + 30
        while 0 <= number < self.clips and not (self.folder / f"{what} {number}").exists():
            assert time.monotonic() < end, f"clip {number} is not {what}"
            time.sleep(0.005)
