"""Models that behave badly, in a module of their own so that other processes can import it."""

import faulthandler
import multiprocessing
import os
import signal
import time

import torch

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


class ModelElsewhere(hear_tune.EmbeddingModel):
    """Pretends to be on a GPU, and logs which process moves it where."""

    def __init__(self, encoder, log):
        super().__init__(encoder)
        self.log, self.place = log, "cuda:0"

    @property
    def device(self):
        return torch.device(self.place)

    def to(self, place):
        if self.place != "cpu":
            with open(self.log, "a") as file:
                file.write(f"{type(multiprocessing.current_process()).__name__}: to {place}\n")
            self.place = "cpu"
        return self
