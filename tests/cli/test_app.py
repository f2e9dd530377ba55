"""The manners of the command line: one line and an exit code, whatever is wrong, in a process of its own."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pixelwise
from tests.cli.own_process import require_refusal, run_apart, run_python


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["segment"], "No such command 'segment'"),
        (["evalute"], "Did you mean 'evaluate'?"),
        (["data", "chekc", "x"], "No such command 'chekc'"),
        (["--nonsense"], "No such option: --nonsense"),
        (["predict", "a.png", "--ou", "x"], "No such option: --ou"),
        (["predict"], "Missing argument 'INPUT'"),
        (["evaluate", "model"], "Missing option '--data'"),
        (["evaluate", "--data"], "Option '--data' requires an argument"),
        (["predict", "a.png", "--tta=yes"], "Option '--tta' does not take a value"),
        (
            ["predict", "a.png", "--input-size", "big"],
            "input size big: expected the long side in pixels",
        ),
        (["predict", "a.png", "--input-size", "0"], "input size 0: expected at least 1 pixel"),
        (["predict", "a.png", "--score-threshold", "7"], "less than or equal to 1, not '7'"),
        (["predict", "a.png", "--device", "tpu"], "'tpu' is not one of 'auto', 'cpu', 'cuda'"),
        (["models", "a", "b"], "Got unexpected extra argument"),
    ],
)
def test_a_wrong_command_line_is_one_line_that_says_where_to_look(arguments: list[str], text: str) -> None:
    result = run_apart(*arguments)
    require_refusal(result, text)
    if "Option '" not in text:
        assert "--help)" in result.stderr


def test_an_error_of_ours_is_one_line() -> None:
    require_refusal(
        run_apart("evaluate", "--predictions", "x", "--data", "masks:/no/such/folder"), "no folder /no/such/folder"
    )
    require_refusal(run_apart("predict", "/no/such/photo.jpg"), "/no/such/photo.jpg")


@pytest.mark.parametrize("command", [[], ["data"]])
def test_without_a_command_the_help_is_shown(command: list[str]) -> None:
    result = run_apart(*command)
    assert result.returncode == 2
    assert "Usage:" in result.stderr
    assert "Commands:" in result.stderr
    assert "Traceback" not in result.stderr


COMMANDS = ["predict", "train", "evaluate", "compare", "pseudo-label", "models", "import", "data"]


@pytest.mark.parametrize("arguments", [[], *([command] for command in COMMANDS)])
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_is_plain_text_on_stdout(arguments: list[str], option: str) -> None:
    result = run_apart(*arguments, option)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("Usage: ")
    if not arguments:
        assert all(f"  {command} " in result.stdout for command in COMMANDS)


def test_the_version_is_printed() -> None:
    result = run_apart("--version")
    assert (result.returncode, result.stdout) == (0, f"pixelwise {pixelwise.__version__}\n")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from pixelwise.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'torchvision', 'timm', 'numpy', 'PIL', 'accelerate', 'safetensors', 'skimage'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    for arguments in ([], ["predict"], ["train"], ["evaluate"], ["models"], ["data"], ["data", "check"]):
        assert run_python(code, *arguments, "--help").stderr == "[]\n"


def test_help_takes_less_than_half_a_second() -> None:
    def seconds() -> float:
        """Of the processor, as other programs may keep it waiting."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run_apart("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.5


STUB = """
import sys
import pixelwise.cli.app as app
from pixelwise.errors import DataError

@app.app.command()
def stub() -> {kind}:
    {body}

app.main()
"""


@pytest.mark.parametrize(
    ("kind", "body", "code", "error"),
    [
        ("None", "pass", 0, ""),
        ("int", "return 0", 0, ""),
        ("int", "return 1", 1, ""),
        ("int", "return 130", 130, ""),
        ("None", "raise SystemExit(143)", 143, ""),
        ("None", "raise KeyboardInterrupt", 130, ""),
        ("None", "raise DataError('a  b.png: broken;\\nrepair it')", 2, "pixelwise: a  b.png: broken; repair it\n"),
    ],
)
def test_what_a_command_returns_or_raises_becomes_the_exit_code(kind: str, body: str, code: int, error: str) -> None:
    result = run_python(STUB.format(kind=kind, body=body.replace("\n", "\\n")), "stub")
    assert (result.returncode, result.stderr) == (code, error)


def test_a_bug_of_ours_keeps_its_traceback() -> None:
    result = run_python(STUB.format(kind="None", body="raise RuntimeError('ours')"), "stub")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert "RuntimeError: ours" in result.stderr


def test_ctrl_c_ends_with_130_and_without_a_word() -> None:
    body = "print('ready', flush=True); import time; time.sleep(60)"
    command = [sys.executable, "-c", STUB.format(kind="None", body=body), "stub"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (130, "")


@pytest.mark.parametrize("body", ["print('x')", "print('x' * 10_000_000)"], ids=["a word", "much"])
def test_a_reader_that_has_gone_is_no_traceback(body: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", STUB.format(kind="None", body=body), "stub"]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    result = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, env=buffered, text=True, timeout=60, check=False
    )
    os.close(writing)
    assert (result.returncode, result.stderr) == (1, "")


def test_the_installed_program_is_the_same() -> None:
    program = Path(sys.executable).parent / "pixelwise"
    if not program.exists():
        pytest.skip(f"no {program}")
    result = subprocess.run([program, "segment"], capture_output=True, text=True, timeout=60, check=False)
    require_refusal(result, "(see pixelwise --help)")
