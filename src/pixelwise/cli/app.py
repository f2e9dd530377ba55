"""`pixelwise`: the commands joined, and how errors and interruptions become one line and an exit code.

Exit codes: 0 done · 1 done, but something in the input failed or faults were found · 2 nothing was attempted ·
130 interrupted · 143 terminated. Command modules import torch inside their functions, so that `--help` is quick.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import pixelwise
from pixelwise.cli.data import data_app
from pixelwise.cli.evaluate import evaluate
from pixelwise.cli.models import models
from pixelwise.cli.predict import predict
from pixelwise.cli.train import train
from pixelwise.errors import PixelwiseError

app = typer.Typer(
    name="pixelwise",
    help="Label every pixel: segment images, check data, train, evaluate.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pixelwise {pixelwise.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    pass


app.command()(predict)
app.command()(train)
app.command()(evaluate)
app.command()(models)
app.add_typer(data_app, name="data")


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        code = app(standalone_mode=False)
    except typer.TyperException as error:  # typer carries its own click: those of the click package are not raised
        message = error.format_message()
        is_help = type(error).__name__ == "NoArgsIsHelpError"  # typer tells it so too
        print(message if is_help else f"pixelwise: {' '.join(message.split())}", file=sys.stderr)
        code = 2
    except PixelwiseError as error:
        print(f"pixelwise: {' '.join(str(error).split())}", file=sys.stderr)
        code = 2
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except BrokenPipeError:  # the reader of our stdout has gone, as with `| head`
        sys.stderr.close()
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
