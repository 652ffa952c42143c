"""Base class of the package's errors, and how to recognise those for lack of memory."""


class HearTuneError(Exception):
    """Base class of all errors of the package; the message names the cause and the remedy.

    The command line prints it in one line and ends with code 2.
    """


def lacks_memory(error: BaseException) -> bool:
    """Whether an error is for lack of memory, here or on a device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
        return True
    texts = ("out of memory", "ALLOC_FAILED")  # of MPS; of cuDNN and cuBLAS
    return isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
