"""Models that behave badly, in a module of their own so that other processes can import it."""

import faulthandler
import os
import signal
import time

import hear_tune


class CrashingModel(hear_tune.EmbeddingModel):
    """Takes its process down at clips that begin with a certain sample, as a decoder may."""

    def windows(self, blocks):
        return super().windows(map(self.decode, blocks))

    def decode(self, block):
        if 0.25 in block[:1]:
            faulthandler.disable()  # pytest's would print all stacks
            os.kill(os.getpid(), signal.SIGSEGV)
        return block


class SlowModel(hear_tune.EmbeddingModel):
    """Takes its time over every clip."""

    def windows(self, blocks):
        time.sleep(0.5)
        return super().windows(blocks)
