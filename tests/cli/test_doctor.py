"""`pixelwise doctor`: what it says of a sound installation, and of what breaks one."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from pixelwise.cli import app
from pixelwise.cli.doctor import doctor
from pixelwise.inference import load
from pixelwise.inference.model_folder import read_model, write_model


def examined(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, Any]]]:
    code = doctor(as_json=True)
    content = json.loads(capsys.readouterr().out)
    assert content["faults"] == sum(one["status"] == "fault" for one in content["findings"])
    return code, {one["name"]: one for one in content["findings"]}


def test_a_sound_installation_has_no_faults(capsys: pytest.CaptureFixture[str]) -> None:
    code, findings = examined(capsys)
    assert code == 0
    names = {"pixelwise", "python", "torch", "torchvision", "threads", "image codecs", "HEIC", "video encoders"}
    names |= {"video decoders", "this folder", "temporary files", "weights default", "weights default_instance"}
    assert names <= findings.keys()
    assert all(one["advice"] for one in findings.values() if one["status"] != "ok")
    assert findings["torch"]["value"] == metadata.version("torch")


def test_every_fault_stands_on_a_line_with_its_advice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 5 * 10**6))
    monkeypatch.setattr(sys, "argv", ["pixelwise", "doctor"])
    with pytest.raises(SystemExit) as left:
        app.main()
    lines = capsys.readouterr().out.splitlines()
    assert left.value.code == 1
    assert [line.split()[0] for line in lines].count("FAULT") == 2
    place = next(index for index, line in enumerate(lines) if "this folder" in line)
    assert "free some room" in lines[place + 1]
    assert lines[-1] == "2 faults"


def test_damaged_weights_are_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, card = read_model(load.WEIGHTS_FOLDER / "default")
    write_model(tmp_path / "default", module.state_dict(), card)
    weights = bytearray((tmp_path / "default" / "model.safetensors").read_bytes())
    weights[-1000] ^= 1
    (tmp_path / "default" / "model.safetensors").write_bytes(weights)
    monkeypatch.setattr(load, "WEIGHTS_FOLDER", tmp_path)
    code, findings = examined(capsys)
    assert code == 1
    assert findings["weights default"]["status"] == "fault"
    assert "SHA-256" in findings["weights default"]["value"]


def test_missing_weights_are_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(load, "WEIGHTS_FOLDER", tmp_path)
    code, findings = examined(capsys)
    assert (code, findings["shipped weights"]["status"]) == (1, "fault")


def test_packages_that_are_missing_or_too_old(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = ["numpy>=999", "no-such-package>=1.2", 'nor-this>=1; extra == "heif"']
    monkeypatch.setattr(metadata, "requires", lambda _: needed)
    code, findings = examined(capsys)
    assert code == 1
    assert "pip install 'numpy>=999'" in findings["numpy"]["advice"]
    assert findings["no-such-package"]["status"] == "fault"
    assert findings["extra heif"] == {
        "name": "extra heif",
        "value": "nor-this missing",
        "status": "note",
        "advice": "pip install 'pixelwise[heif]'",
    }


def test_what_a_broken_package_raises_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)  # importing it raises ImportError
    code, findings = examined(capsys)
    assert (code, findings["video"]["status"]) == (1, "fault")
    assert "\n" not in findings["video"]["value"]
    assert "weights default" in findings


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid"), reason="permissions of Unix")
def test_a_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    code, findings = examined(capsys)
    assert (code, findings["this folder"]["status"]) == (1, "fault")
    assert "cannot be written (Permission denied)" in findings["this folder"]["value"]


def test_the_threads_that_the_environment_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one core")
    command = [sys.executable, "-m", "pixelwise", "doctor", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    threads = next(one for one in json.loads(result.stdout)["findings"] if one["name"] == "threads")
    assert threads["status"] == "note"
    assert "OMP_NUM_THREADS" in threads["advice"]
