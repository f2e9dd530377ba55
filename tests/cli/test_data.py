"""`pixelwise data check`, `show`, `stats` and `convert` as they are typed: what they print, write and return."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise.cli.app import main
from tests.data import drawing
from tests.data.formats import camvid_set, cityscapes_set, coco_set, masks_set, voc_set


@dataclass(frozen=True)
class Run:
    """What a command left behind."""

    code: int
    out: str
    err: str


class Shell:
    """Runs commands in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch = monkeypatch
        self.capsys = capsys

    def __call__(self, *arguments: str | Path) -> Run:
        self.monkeypatch.setattr(sys, "argv", ["pixelwise", "data", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        captured = self.capsys.readouterr()
        assert isinstance(left.value.code, int)
        return Run(left.value.code, captured.out, captured.err)


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


class TestCheck:
    def test_clean(self, data: Shell, tmp_path: Path) -> None:
        run = data("check", f"voc:{voc_set.voc(tmp_path, {'train': 'ab', 'val': 'c'})}", "--quiet")
        assert run == Run(0, "train: 2 images, 21 classes\nval: 1 image, 21 classes\nno faults\n", "")

    def test_faults_by_split_and_kind(self, data: Shell, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path)
        for name in "ac":
            (tmp_path / "train" / f"{name}.png").write_bytes(b"")
        drawing.write_mask(tmp_path / "trainannot" / "b.png", np.full((4, 6), 37))
        run = data("check", f"camvid:{tmp_path}", "--quiet", "--workers", "0")
        assert run.code == 1
        assert run.err == ""
        assert run.out.splitlines() == [
            "train: 3 images, 11 classes",
            f"  {tmp_path}/train/a.png: the file is empty",
            f"  {tmp_path}/train/c.png: the file is empty",
            f"  {tmp_path}/trainannot/b.png: value 37 (24 pixels) is not in LabelSet 'camvid' (0-10, 11 = void); "
            "1 unknown value in all; is this a colour mask, or another label set? see pixelwise data convert",
            "val: 2 images, 11 classes",
            "2 kinds of fault, 3 in all",
        ]

    def test_one_kind(self, data: Shell, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path)
        (tmp_path / "val" / "d.png").write_bytes(b"")
        run = data("check", f"camvid:{tmp_path}@val")
        assert run.out.splitlines()[-1] == "1 kind of fault, 1 in all"
        assert "train" not in run.out

    def test_many_of_a_kind_are_cut_short(self, data: Shell, tmp_path: Path) -> None:
        masks_set.masks(tmp_path, [f"{number:03}" for number in range(60)])
        for path in (tmp_path / "images").iterdir():
            path.write_bytes(b"")
        lines = data("check", f"masks:{tmp_path}@train", "--quiet", "--workers", "0").out.splitlines()
        assert len(lines) == 1 + 10 + 1 + 1
        assert lines[-2:] == ["  … 38 more (unreadable image)", "1 kind of fault, 48 in all"]

    def test_faults_between_splits_and_notes(self, data: Shell, tmp_path: Path) -> None:
        run = data("check", f"voc:{voc_set.voc(tmp_path, {'train': 'ab', 'val': 'bc'})}")
        assert run.code == 1
        lines = run.out.splitlines()
        assert lines[1].startswith("  note: 19 classes never occur: bicycle, ")
        assert lines[-3:] == [
            "between the splits:",
            f"  {tmp_path}/JPEGImages/b.jpg: 'b' is in train and in val; take it out of one of them",
            "1 kind of fault, 1 in all",
        ]

    def test_coco_is_headed_by_its_file(self, data: Shell, tmp_path: Path) -> None:
        annotations = [
            coco_set.annotation(1, 7, 3, (0, 0, 2, 2)),
            coco_set.annotation(5521, 7, 9, (3, 3, 8, 8), bbox=[12, 40, 0, 31]),
        ]
        run = data("check", f"coco:{coco_set.coco(tmp_path, annotations)}", "--quiet")
        assert run == Run(
            1,
            f"{tmp_path}/annotations/instances_train.json: 1 image, 2 annotations, 2 categories\n"
            "  annotation 5521 (image 7, 'a.png'): box [12,40,0,31] has no width\n"
            "1 kind of fault, 1 in all\n",
            "",
        )

    def test_json(self, data: Shell, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path)
        image = tmp_path / "train" / "a.png"
        image.write_bytes(b"")
        run = data("check", f"camvid:{tmp_path}", "--json")
        assert run.code == 1
        assert run.err == ""
        content = json.loads(run.out)
        assert content["data"] == f"camvid:{tmp_path}"
        assert content["faults"] == 1
        assert content["kinds"] == {"unreadable image": 1}
        train, val = content["splits"]
        assert (train["split"], train["images"], val["split"], val["images"]) == ("train", 3, "val", 2)
        assert train["faults"] == [{"kind": "unreadable image", "where": str(image), "text": "the file is empty"}]
        assert val["faults"] == content["between_splits"]["faults"] == []

    def test_json_of_a_clean_set(self, data: Shell, tmp_path: Path) -> None:
        run = data("check", f"camvid:{camvid_set.camvid(tmp_path)}", "--json")
        assert run.code == 0
        assert json.loads(run.out)["faults"] == 0

    @pytest.mark.parametrize(
        ("spec", "why"),
        [
            ("camvid:/no/such/folder", "no folder /no/such/folder"),
            ("nothing", "is not a data set"),
            ("vok:/tmp", "data format 'vok' is not known"),
        ],
    )
    def test_nothing_to_draw(self, data: Shell, spec: str, why: str) -> None:
        run = data("check", spec)
        assert run.code == 2
        assert run.out == ""
        assert run.err.startswith("pixelwise: ")
        assert why in run.err
        assert run.err.count("\n") == 1


class TestStats:
    def test_table(self, data: Shell, tmp_path: Path) -> None:
        run = data("stats", f"voc:{voc_set.voc(tmp_path, {'train': 'ab', 'val': 'c'})}@val")
        assert run.code == 0
        lines = run.out.splitlines()
        assert lines[0] == f"voc:{tmp_path}@val: 1 image, 24 pixels, 21 classes"
        assert lines[1:3] == ["height: 4 to 4, median 4", "width: 6 to 6, median 6"]
        assert lines[5].split() == ["0", "background", "50.00%", "1"]
        assert lines[7].split() == ["2", "bicycle", "0.00%", "0"]
        assert lines[-1].split() == ["void", "0.00%"]

    def test_json(self, data: Shell, tmp_path: Path) -> None:
        run = data("stats", f"masks:{masks_set.masks(tmp_path, 'abcde')}@val", "--json")
        assert run.code == 0
        content = json.loads(run.out)
        assert content["data"] == f"masks:{tmp_path}@val"
        assert content["images"] == 1
        assert content["per_class"] == {
            "floor": {"pixels": 12, "share": 0.5, "images": 1},
            "wall": {"pixels": 12, "share": 0.5, "images": 1},
        }
        assert "every fifth" in content["note"]
        assert run.err == ""

    def test_objects(self, data: Shell, tmp_path: Path) -> None:
        run = data("stats", f"voc:{voc_set.voc(tmp_path, {'val': 'c'}, objects=True)}@val")
        lines = run.out.splitlines()
        assert lines[4] == "2 instances (2 small, 0 medium, 0 large) in 1 image"
        assert lines[5].split()[-4:] == ["objects", "small", "medium", "large"]
        assert lines[7].split() == ["1", "aeroplane", "50.00%", "1", "2", "2", "0", "0"]

    def test_train_without_a_split_and_the_note(self, data: Shell, tmp_path: Path) -> None:
        run = data("stats", f"masks:{masks_set.masks(tmp_path, 'abcde')}")
        assert run.out.startswith(f"masks:{tmp_path}@train: 4 images")
        assert run.err == (
            f"masks:{tmp_path}@train: the set has no splits: every fifth pair by name is val, the others are train\n"
        )

    def test_one_unreadable_image(self, data: Shell, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path)
        (tmp_path / "train" / "b.png").write_bytes(b"")
        run = data("stats", f"camvid:{tmp_path}")
        assert run.code == 1
        assert run.out.startswith(f"camvid:{tmp_path}@train: 2 images")
        assert run.err.splitlines() == [
            "1 of 3 failed:",
            f"  {tmp_path}/train/b.png: the file is empty (image 'b'); skipped",
        ]

    def test_unknown_split(self, data: Shell, tmp_path: Path) -> None:
        run = data("stats", f"camvid:{camvid_set.camvid(tmp_path)}@test")
        assert run.code == 2
        assert run.err == f"pixelwise: {tmp_path}: no split 'test'; there are train, val\n"


class TestShow:
    def test_sheet(self, data: Shell, tmp_path: Path) -> None:
        sheet = tmp_path / "sheet.png"
        run = data("show", f"camvid:{camvid_set.camvid(tmp_path / 'set')}@train", "--out", sheet)
        assert run == Run(0, f"{sheet}: 3 of the 3 images of camvid:{tmp_path}/set@train\n", "")
        with Image.open(sheet) as picture:
            assert picture.mode == "RGB"
            assert picture.width > 2 * 320
            assert picture.height > 2 * 240

    def test_the_colours_of_the_classes_are_on_the_sheet(self, data: Shell, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path / "set")
        sheets = []
        for ids in (0, 3):  # sky, road
            for name in "abc":
                drawing.write_image(tmp_path / "set" / "train" / f"{name}.png", seed=1)
                drawing.write_mask(tmp_path / "set" / "trainannot" / f"{name}.png", np.full((4, 6), ids))
            assert data("show", f"camvid:{tmp_path / 'set'}", "--out", tmp_path / "sheet.png").code == 0
            sheets.append(np.asarray(Image.open(tmp_path / "sheet.png")).astype(int))
        sky, road = np.array([128, 128, 128]), np.array([128, 64, 128])
        patch = np.s_[40:200, 40:280]
        assert np.allclose((sheets[1] - sheets[0])[patch].mean(axis=(0, 1)), 0.55 * (road - sky), atol=1)
        for sheet, colour in zip(sheets, (sky, road), strict=True):
            assert (sheet == colour).all(axis=2).any()  # the legend

    def test_count_and_seed(self, data: Shell, tmp_path: Path) -> None:
        spec = f"masks:{masks_set.masks(tmp_path / 'set', [f'{number:02}' for number in range(20)])}@train"
        pictures = []
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            out = tmp_path / f"{name}.png"
            run = data("show", spec, "--out", out, "--count", "4", "--seed", str(seed), "--quiet")
            assert run == Run(0, f"{out}: 4 of the 16 images of {spec}\n", "")
            pictures.append(out.read_bytes())
        assert pictures[0] == pictures[1] != pictures[2]

    def test_an_unreadable_image_is_skipped(self, data: Shell, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path)
        (tmp_path / "train" / "b.png").write_bytes(b"")
        run = data("show", f"camvid:{tmp_path}@train", "--out", tmp_path / "sheet.png")
        assert run.code == 1
        assert "2 of the 3 images" in run.out
        assert "1 of 3 failed:" in run.err

    @pytest.mark.parametrize("name", ["sheet", "sheet.txt", "missing/sheet.png"])
    def test_a_name_that_is_no_picture(self, data: Shell, tmp_path: Path, name: str) -> None:
        run = data("show", f"camvid:{camvid_set.camvid(tmp_path)}", "--out", tmp_path / name)
        assert run.code == 2
        assert str(tmp_path / name) in run.err
        assert run.err.count("\n") == 1


class TestConvert:
    def test_there_and_back(self, data: Shell, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path / "a")
        run = data("convert", f"camvid:{tmp_path}/a", f"coco:{tmp_path}/b")
        assert run == Run(0, f"coco:{tmp_path}/b: 5 images of camvid:{tmp_path}/a (train 3, val 2)\n", "")
        assert data("convert", f"coco:{tmp_path}/b", f"camvid:{tmp_path}/c", "--workers", "0").code == 0
        for mask in ("trainannot/a.png", "valannot/e.png"):
            first, second = (np.asarray(Image.open(tmp_path / folder / mask)) for folder in "ac")
            assert np.array_equal(first, second)

    def test_what_the_target_cannot_hold(self, data: Shell, tmp_path: Path) -> None:
        voc_set.voc(tmp_path / "a", {"train": "a"})
        drawing.write_mask(tmp_path / "a" / "SegmentationClass" / "a.png", [[0, 0, 255, 255, 5, 5]] * 4)
        run = data("convert", f"voc:{tmp_path}/a", f"coco:{tmp_path}/b")
        assert run.out.splitlines() == [
            f"coco:{tmp_path}/b: 1 image of voc:{tmp_path}/a (train 1)",
            "  8 void pixels become background (or the class around them); a set of objects has no void",
            "  1 region of countable classes becomes one annotation each, however many objects they hold",
        ]

    def test_other_labels(self, data: Shell, tmp_path: Path) -> None:
        cityscapes_set.cityscapes(tmp_path / "a", {"val": ("jena_3_4",)})
        run = data("convert", f"cityscapes:{tmp_path}/a", f"camvid:{tmp_path}/b")
        assert run.code == 2
        assert run.out == ""
        assert run.err.startswith(f"pixelwise: label sets differ: target camvid:{tmp_path}/b has 'camvid' (11: sky, ")
        assert run.err.count("\n") == 1
        run = data("convert", f"cityscapes:{tmp_path}/a", f"camvid:{tmp_path}/b", "--map", "names", "--json")
        content = json.loads(run.out)
        assert (run.code, content["images"], content["splits"]) == (0, 1, {"val": 1})
        assert content["losses"] == {"unmapped_pixels": 4}
        assert content["map"]["sidewalk"] == "ignore"
        (tmp_path / "map.toml").write_text('[names]\nsidewalk = "pavement"\n')
        run = data("convert", f"cityscapes:{tmp_path}/a", f"camvid:{tmp_path}/c", "--map", tmp_path / "map.toml")
        assert run.out.startswith("label map cityscapes → camvid:\n")
        assert "sidewalk → pavement" in run.out
        assert np.asarray(Image.open(tmp_path / "c/valannot/jena_3_4.png")).tolist() == [[11, 3, 3, 4, 8, 8]] * 4

    def test_a_map_that_ships(self, data: Shell, tmp_path: Path) -> None:
        masks_set.masks(tmp_path / "a", "x", labels=None)
        drawing.write_mask(tmp_path / "a" / "masks" / "x.png", [[0, 1, 5, 17, 18, 90]] * 4)
        spec = f"masks:{tmp_path}/a?labels=coco"
        assert data("convert", spec, f"voc:{tmp_path}/b", "--map", "coco_to_voc", "--quiet").code == 0
        mask = np.asarray(Image.open(tmp_path / "b" / "SegmentationClass" / "x.png"))
        assert mask.tolist() == [[0, 15, 1, 8, 12, 0]] * 4

    def test_a_broken_image(self, data: Shell, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path / "a")
        (tmp_path / "a" / "train" / "b.png").write_bytes(b"")
        run = data("convert", f"camvid:{tmp_path}/a", f"masks:{tmp_path}/b")
        assert run.code == 1
        assert run.out == f"masks:{tmp_path}/b: 4 images of camvid:{tmp_path}/a (train 2, val 2)\n"
        assert run.err.splitlines() == [
            "1 of 5 failed:",
            f"  {tmp_path}/a/train/b.png: the file is empty (image 'b'); skipped",
        ]

    def test_every_image_broken(self, data: Shell, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path / "a", {"val": "x"})
        (tmp_path / "a" / "val" / "x.png").write_bytes(b"")
        run = data("convert", f"camvid:{tmp_path}/a", f"masks:{tmp_path}/b")
        assert run.code == 1
        assert "nothing was written" in run.out
        assert not (tmp_path / "b").exists()

    def test_overwrite(self, data: Shell, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path / "a")
        arguments = ("convert", f"camvid:{tmp_path}/a", f"masks:{tmp_path}/b", "--quiet")
        assert data(*arguments).code == 0
        again = data(*arguments)
        assert again.code == 2
        assert again.err == (
            f"pixelwise: masks:{tmp_path}/b: {tmp_path}/b is not empty; choose another folder, or add --overwrite\n"
        )
        assert data(*arguments, "--overwrite").code == 0

    def test_colour_masks_as_the_error_says(self, data: Shell, tmp_path: Path) -> None:
        masks_set.masks(tmp_path / "a", "x")
        pixels = np.array([(0, 0, 0), (128, 0, 0)] * 3, dtype=np.uint8)[None].repeat(4, axis=0)
        Image.fromarray(pixels).save(tmp_path / "a" / "masks" / "x.png")
        run = data("check", f"masks:{tmp_path}/a")
        assert "pixelwise data convert 'masks:…?palette=labels' masks:…" in run.out
        assert data("convert", f"masks:{tmp_path}/a?palette=labels", f"masks:{tmp_path}/b").code == 0
        assert np.asarray(Image.open(tmp_path / "b/masks/train/x.png")).tolist() == [[0, 1] * 3] * 4
        assert data("check", f"masks:{tmp_path}/b").code == 0


class TestFix:
    def test_a_file_of_coco(self, data: Shell, tmp_path: Path) -> None:
        annotations = [
            coco_set.annotation(1, 7, 3, (0, 0, 2, 2)),
            coco_set.annotation(5521, 7, 9, (4, 4, 6, 6), bbox=[12, 40, 0, 31]),
        ]
        coco_set.coco(tmp_path / "a", annotations)
        fixed = tmp_path / "fixed.json"
        run = data("check", f"coco:{tmp_path}/a", "--fix", fixed, "--quiet")
        assert run.code == 1
        spec = f"coco:{tmp_path}/a?annotations={fixed}&images=train"
        assert run.out.splitlines()[-4:] == [
            "1 kind of fault, 1 in all",
            f"{fixed}: a repaired copy, 1 image",
            "  1 box cut at the border of the image, or drawn around the segmentation",
            f"  opens as {spec}",
        ]
        assert data("check", spec).code == 0

    def test_a_folder(self, data: Shell, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path / "a")
        drawing.write_mask(tmp_path / "a" / "trainannot" / "b.png", np.full((4, 6), 37) * [0, 1, 0, 1, 0, 1])
        run = data("check", f"camvid:{tmp_path}/a", "--fix", tmp_path / "b", "--json")
        assert run.code == 1
        content = json.loads(run.out)
        assert content["kinds"] == {"unknown ids": 1}
        assert content["repaired"] == {
            "path": str(tmp_path / "b"),
            "images": 5,
            "done": {"unknown_pixels": 12},
            "opens_as": [f"camvid:{tmp_path}/b"],
            "remaining": [],
        }
        assert data("check", f"camvid:{tmp_path}/b").code == 0

    def test_nothing_to_repair(self, data: Shell, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path / "a")
        run = data("check", f"camvid:{tmp_path}/a", "--fix", tmp_path / "b", "--quiet")
        assert run.code == 0
        assert run.out.splitlines()[-1] == f"{tmp_path}/b: not written, there is nothing to repair"
        assert not (tmp_path / "b").exists()

    def test_never_in_place(self, data: Shell, tmp_path: Path) -> None:
        camvid_set.camvid(tmp_path / "a")
        run = data("check", f"camvid:{tmp_path}/a", "--fix", tmp_path / "a")
        assert run.code == 2
        assert run.err.count("\n") == 1
        assert "nothing is repaired in place" in run.err


class TestProcess:
    """As another process, where the terminal matters."""

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "pixelwise", "data", *arguments]

    def test_without_a_terminal_no_progress_is_shown(self, tmp_path: Path) -> None:
        spec = f"camvid:{camvid_set.camvid(tmp_path)}"
        done = subprocess.run(self.command("check", spec), capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert done.stderr == ""
        assert done.stdout.endswith("no faults\n")

    def test_progress_goes_to_the_terminal_and_results_to_stdout(self, tmp_path: Path) -> None:
        spec = f"camvid:{camvid_set.camvid(tmp_path)}"
        ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        process = subprocess.Popen(
            self.command("check", spec), stdout=subprocess.PIPE, stderr=theirs, text=True, env=environment
        )
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:
                break
            if not part:
                break
            shown += part
        out, _ = process.communicate()
        os.close(ours)
        assert process.returncode == 0
        assert out.endswith("no faults\n")
        assert "3/3" in shown.decode()

    def test_help_does_not_load_torch(self) -> None:
        program = "import sys, pixelwise.cli.data; print(sorted({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n"
