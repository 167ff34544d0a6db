"""Where a run keeps its experts, and what their router says of a request. Loads no torch."""

from pathlib import Path

from malpighi.errors import UserError
from malpighi.models.router import ROUTER, Route, Router

EXPERTS_FOLDER = "experts"
"""A stage that trains experts leaves them in `stages/<stage>/experts`."""


def route_in(path: Path, text: str, task: str | None = None) -> Route:
    """The decision of a run's router.

    Args:
        path: a run folder, or a folder of experts.
        text: the words of the request.
        task: a task group or kind of task that overrules the words.

    Raises:
        UserError: no experts there, or those of several stages; or any reason of `Router`.
    """
    return Router.load(experts_folder(path)).route(text, task)


def experts_folder(path: Path) -> Path:
    """The folder of experts that a path means.

    Raises:
        UserError: it means none, or several.
    """
    if (path / ROUTER).is_file():
        return path
    if not path.is_dir():
        raise UserError(f"no folder {path}; give a run folder or a folder of experts")
    found = sorted(
        router.parent
        for router in path.glob(f"stages/*/{EXPERTS_FOLDER}/{ROUTER}")
        if not router.parents[1].name.endswith(".part")
    )
    if not found:
        raise UserError(
            f"{path} holds no experts: no {ROUTER} there and none in stages/*/{EXPERTS_FOLDER}. The run's "
            "recipe has no stage that trains experts, or it is not finished (malpighi status tells)"
        )
    if len(found) > 1:
        names = ", ".join(str(folder) for folder in found)
        raise UserError(f"{path} holds the experts of several stages; give one of: {names}")
    return found[0]
