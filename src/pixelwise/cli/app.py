"""`pixelwise`: the commands, and how errors and interruptions become one line and an exit code.

Exit codes: 0 done · 1 done, but something in the input failed or faults were found · 2 nothing was attempted ·
130 interrupted · 143 terminated. Command modules import torch inside their functions, so that `--help` is quick.
"""

from __future__ import annotations

import atexit
import io
import os
import signal
import sys
import warnings
from typing import Annotated

import typer

import pixelwise
from pixelwise.cli.compare import compare
from pixelwise.cli.data import data_app
from pixelwise.cli.doctor import doctor
from pixelwise.cli.evaluate import evaluate
from pixelwise.cli.import_weights import import_weights
from pixelwise.cli.launch import is_first_process
from pixelwise.cli.merge import merge
from pixelwise.cli.models import models
from pixelwise.cli.predict import predict
from pixelwise.cli.pseudo_label import pseudo_label
from pixelwise.cli.terminal import print, printable
from pixelwise.cli.train import train
from pixelwise.errors import PixelwiseError

app = typer.Typer(
    name="pixelwise",
    help="Segment images and videos; check data, train, evaluate, compare.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> None:
    if requested:
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
app.command()(compare)
app.command()(merge)
app.command()(pseudo_label)
app.command()(models)
app.command("import")(import_weights)
app.command()(doctor)
app.add_typer(data_app, name="data")


def main() -> None:
    """Run the command line and leave with its exit code."""
    warnings.filterwarnings("ignore", module="PIL")  # our own errors name faults of files once
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names may hold bytes that are no text
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        code = _refused(_usage_fault(error))
    except PixelwiseError as error:
        code = _refused(f"pixelwise: {' '.join(str(error).splitlines())}")
    except MemoryError as error:
        code = _refused(f"pixelwise: not enough memory ({str(error) or 'no more is given'}); make the input smaller")
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except BrokenPipeError:  # the reader of stdout is closed, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python fails to flush at exit
        code = 1
    except OSError as error:
        if error.filename is None:
            raise
        code = _refused(f"pixelwise: {printable(str(error.filename))}: {(error.strerror or str(error)).lower()}")
    if code == 130:
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would print tracebacks
    sys.exit(code if isinstance(code, int) else 0)


def _refused(text: str) -> int:
    if is_first_process():
        for line in text.split("\n"):  # several lines are the help
            print(line, file=sys.stderr)
    return 2


def _usage_fault(error: typer.TyperException) -> str:
    """The fault of the command line in one line with a pointer to the help; or the help that typer raises."""
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        return message
    context: typer.Context | None = getattr(error, "ctx", None)
    hint = f" (see {context.command_path} --help)" if context else ""
    text = " ".join(message.splitlines()).rstrip(".")
    return f"pixelwise: {text}{_what_came(error, text)}{hint}"


def _what_came(error: Exception, text: str) -> str:
    """The value that pydantic refused for typer, whose message often names only what was expected."""
    errors = getattr(error.__cause__, "errors", None)
    value = repr(errors()[0]["input"]) if errors else ""
    return f", not {value}" if value and value not in text else ""
