"""The command line: parse, call, print. Research use only; not a medical device."""

import logging
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from malpighi.errors import UserError

EXIT_USER_ERROR = 2
EXIT_FAILED_ITEMS = 3

app = typer.Typer(
    name="malpighi",
    help="Build, examine and run reasoning pathology co-pilots. Research use only; not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
data_app = typer.Typer(
    help="Public data sets on disk: list what is known, check a folder.", no_args_is_help=True
)
app.add_typer(data_app, name="data")

console = Console()
errors = Console(stderr=True)

Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a setting; may be repeated.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Work = Annotated[Path | None, typer.Option("--work", help="The run folder. Default: runs/RECIPE.")]
DataFolder = Annotated[
    Path | None, typer.Option("--data", help="A data set or a folder of them. Default: the phantom.")
]


def main() -> None:
    """Entry point of the `malpighi` command."""
    try:
        app()
    except UserError as error:
        _stop(str(error))
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] in _EXTRA_OF:
            extra = _EXTRA_OF[error.name.partition(".")[0]]
            _stop(f"{error.name} is not installed; install it with: pip install 'malpighi[{extra}]'")
        raise
    except KeyboardInterrupt:
        _stop("interrupted; what is finished is kept, and the same command goes on from there", code=130)


_EXTRA_OF = {
    **dict.fromkeys(
        ("torch", "torchvision", "transformers", "trl", "peft", "timm", "accelerate", "datasets"), "train"
    ),
    **dict.fromkeys(("tifffile", "imagecodecs", "openslide"), "slides"),
}


def _stop(message: str, code: int = EXIT_USER_ERROR) -> NoReturn:
    errors.print(f"[bold red]Error[/] {message}", highlight=False, soft_wrap=True)
    raise SystemExit(code)
