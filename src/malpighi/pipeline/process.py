"""How a process that works for a run is set up."""

import logging
from pathlib import Path

from transformers.utils import logging as transformers_logging

from malpighi.training.runtime import settle


def set_up(threads: int, log: Path) -> None:
    """Compute repeatably on so many threads, and write what is said into the run's log."""
    settle(threads)
    log_to(log)


def log_to(path: Path) -> None:
    """Write what the run says of itself, and every warning, into the run's log and nowhere else."""
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, logging.FileHandler)]:
        root.removeHandler(handler)
        handler.close()
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    logging.getLogger("malpighi").setLevel(logging.INFO)
    transformers_logging.disable_default_handler()
    transformers_logging.enable_propagation()
