"""A process that ends when its parent does."""

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_SECONDS_BETWEEN_LOOKS = 0.2


def die_with(parent: int) -> None:
    """Let this process end when its parent is gone, were it killed: none may work on behind its back.

    Args:
        parent: the parent's process id, as the parent told it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        with suppress(InterruptedError):
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)
