"""A clip is predicted frame by frame, and a run that was stopped goes on as if it had not been."""

import errno
import itertools
import json
import os
import signal
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pixelwise.errors import DataError, RecipeError
from pixelwise.inference.model_folder import ModelCard
from pixelwise.inference.predictor import Options, Predictor
from pixelwise.inference.scene import Scene
from pixelwise.inference.video import predict as module
from pixelwise.inference.video.input import Frame, VideoClip, open_images, open_video
from pixelwise.inference.video.output import VideoOutput
from pixelwise.inference.video.predict import VideoJob, look_for_results, predict_video
from pixelwise.inference.video.state import ClipMemory, ClipProgress, read_state, write_state
from pixelwise.inference.video.tracking import track
from pixelwise.labels import LabelSet
from pixelwise.ops import rle
from pixelwise.ops.resize_rule import ResizeRule
from tests.contract.annotations import LABELS as FIVE
from tests.forked import Forked
from tests.inference.simple_models import panels, pointwise, pointwise_card
from tests.inference.video import slow_clip
from tests.inference.video.slow_clip import job
from tests.models.small_vpsnet import gliding_squares, small_vpsnet
from tests.models.small_yolact import small_yolact
from tests.small_videos import GREEN, GREY, RED, cut, read_video, squares, write_video


@pytest.fixture
def clip(tmp_path: Path) -> VideoClip:
    times = [40 * index + 25 * (index % 3 == 1) for index in range(20)]
    return open_video(write_video(tmp_path / "clip.mp4", squares(20), times=times, time_base=Fraction(1, 1000)))


def predict(clip: VideoClip, job: VideoJob, *, overwrite: bool = False) -> list[str]:
    return list(predict_video(clip, job, look_for_results(clip, job, overwrite=overwrite)))


def records(job: VideoJob) -> list[dict]:
    """The lines, but for how long each took."""
    return [
        {name: value for name, value in json.loads(line).items() if name != "seconds"}
        for line in job.lines.read_text("utf-8").splitlines()
    ]


def stop_after(count: int, clip: VideoClip, job: VideoJob) -> int:
    """Begin a run and leave it after so many lines; how many frames it has written."""
    with closing(predict_video(clip, job, look_for_results(clip, job))) as lines:
        for _ in range(count):
            next(lines)
    return len(records(job))


def test_lines_and_pictures(tmp_path: Path, clip: VideoClip):
    mine = job(tmp_path / "out")
    lines = predict(clip, mine)
    assert [f"{line}\n" for line in lines] == mine.lines.read_text("utf-8").splitlines(keepends=True)
    first, last = records(mine)[0], records(mine)[-1]
    assert list(json.loads(lines[0])) == ["frame", "time", "size", "model", "labels", "segments", "seconds"]
    assert (first["frame"], first["size"], first["model"]) == (0, [32, 48], "panels")
    assert [segment["name"] for segment in first["segments"]] == ["background", "apple"]
    assert [segment["name"] for segment in last["segments"]] == ["background", "apple", "pear"]
    assert [segment["track_id"] for segment in last["segments"]][1:] == [0, 1]
    apple = rle.decode(last["segments"][1]["rle"])
    assert apple.shape == (32, 48)
    assert abs(int(apple.sum()) - 144) < 20
    assert apple[3:13, 22:32].all()  # the square of the twentieth picture

    pictures, times = read_video(mine.video)
    assert times == pytest.approx([record["time"] for record in records(mine)], abs=1e-5)
    assert times[:4] == pytest.approx([0, 0.065, 0.08, 0.12])
    predictor, tracks = mine.predictor, None
    for frame, picture in zip(clip.frames(), pictures, strict=True):
        annotation, _ = predictor.annotate_frame(frame.image, None, mine.options)
        annotation, tracks = track(annotation, tracks, num_classes=3)
        scene = Scene(frame.image, annotation, predictor.labels, seconds=0, model="", is_tracked=True)
        assert np.abs(np.asarray(scene.draw(legend=False, names=True)).astype(int) - picture).mean() < 8


def test_a_thing_keeps_its_colour(tmp_path: Path, clip: VideoClip):
    mine = job(tmp_path / "out")
    predict(clip, mine)
    pictures, _ = read_video(mine.video)
    centres = np.array([picture[8, 8 + index] for index, picture in enumerate(pictures)], dtype=int)
    assert np.abs(centres - centres[0]).max() < 30
    pears = np.array([picture[24, 26] for picture in pictures[5:]], dtype=int)
    assert np.abs(pears - pears[0]).max() < 30
    assert np.abs(pears[0] - centres[0]).max() > 60


@pytest.mark.parametrize("uses_memory", [False, True])
@pytest.mark.parametrize("count", [1, 6, 17])
def test_a_run_that_was_left_goes_on_with_its_identities(
    tmp_path: Path, clip: VideoClip, monkeypatch: pytest.MonkeyPatch, uses_memory: bool, count: int
):
    monkeypatch.setattr(module, "COMMIT_FRAMES", 4)
    predictor = panels(uses_memory=True) if uses_memory else None
    whole, mine = job(tmp_path / "whole", predictor), job(tmp_path / "parts", predictor)
    predict(clip, whole)
    written = stop_after(count, clip, mine)
    assert count <= written < 20
    assert len(read_video(mine.video)[0]) == written  # it plays
    # what a kill leaves behind the last commit
    for path in (mine.video, mine.lines):
        with path.open("ab") as file:
            file.write(b'{"half')
    rest = predict(clip, mine)
    assert len(rest) == 20 - written
    assert records(mine) == records(whole)
    ids = [segment["id"] for record in records(mine) for segment in record["segments"] if segment["label"] == 1]
    assert ids == ([4 + 2 * index for index in range(20)] if uses_memory else [4] * 20)
    (pictures, times), (others, other_times) = read_video(mine.video), read_video(whole.video)
    assert times == other_times
    assert max(np.abs(one.astype(int) - other).mean() for one, other in zip(pictures, others, strict=True)) < 3
    assert predict(clip, mine) == []
    assert look_for_results(clip, mine).is_done


def shards(clip: VideoClip, job: VideoJob, counts: Sequence[int]) -> list[int]:
    """Work through a clip in several runs, each left after so many lines; the frames written after each."""
    return [stop_after(count, clip, job) for count in counts] + [len(predict(clip, job))]


def track_ids(job: VideoJob) -> list[list[int]]:
    return [
        [segment["track_id"] for segment in record["segments"] if segment["track_id"] is not None]
        for record in records(job)
    ]


def moving_clip(path: Path, count: int) -> VideoClip:
    """The squares of VPSNet's own tests."""
    return open_video(
        write_video(path, [(255 * frame[0]).byte().permute(1, 2, 0).numpy() for frame in gliding_squares(count)])
    )


def test_ids_of_a_model_with_memory_are_the_same_in_one_run_and_in_shards(tmp_path: Path):
    """VPSNet of random weights: its memory, vectors, boxes, numbers and maps, goes through the file of state."""
    clip = moving_clip(tmp_path / "clip.mp4", 14)
    card = ModelCard(task="panoptic", system="vpsnet", labels=FIVE, resize=ResizeRule(length=96))
    vpsnet = Predictor(small_vpsnet(max_known=9), card, device="cpu")
    whole, parts = (job(tmp_path / name, vpsnet) for name in ("whole", "parts"))
    predict(clip, whole)
    assert shards(clip, parts, (1, 2))[-1] > 0
    assert records(parts) == records(whole)
    ids = track_ids(whole)
    assert all(ids)
    assert len({id for one in ids for id in one}) > len(ids[0])  # some go on, and some are new
    assert any(set(one) & set(other) for one, other in itertools.pairwise(ids))

    # had the memory been lost between two runs, the numbers would begin again
    tenth = next(itertools.islice(clip.frames(), 9, None))
    annotation, _ = vpsnet.annotate_frame(tenth.image, None, whole.options)
    segments = Scene(tenth.image, annotation, FIVE, seconds=0, model="", is_tracked=True).record()["segments"]
    assert [segment["track_id"] for segment in segments if segment["track_id"] is not None] != ids[9]


def test_ids_by_tracking_are_the_same_in_one_run_and_in_shards(tmp_path: Path):
    """YOLACT of random weights: many doubtful objects, which appear, vanish and come back."""
    clip = moving_clip(tmp_path / "clip.mp4", 14)
    six = LabelSet.from_names("six", [f"class {index}" for index in range(6)])
    card = ModelCard(task="instance", system="yolact", labels=six, resize=ResizeRule(length=96))
    yolact = Predictor(small_yolact(), card, device="cpu")
    options = Options(score_threshold=0.0, max_detections=12)
    whole, parts = (job(tmp_path / name, yolact, tracks=True, options=options) for name in ("whole", "parts"))
    predict(clip, whole)
    assert shards(clip, parts, (1, 3, 1))[-1] > 0
    assert records(parts) == records(whole)
    ids = track_ids(whole)
    assert all(len(set(one)) == len(one) > 0 for one in ids)
    assert any(set(one) & set(other) for one, other in itertools.pairwise(ids))
    assert len({id for one in ids for id in one}) > len(ids[0])


def test_a_killed_run_goes_on(tmp_path: Path, clip: VideoClip):
    whole, mine = job(tmp_path / "whole"), job(tmp_path / "out")
    predict(clip, whole)
    process = Forked(slow_clip.main, clip.path, mine.video.parent)
    process.wait_until(lambda: process.out.exists() and process.out.read_text().count("\n") >= 9)
    process.send_signal(signal.SIGKILL)
    assert process.ended().returncode == -signal.SIGKILL
    before = len(read_video(mine.video)[0])
    assert 3 <= before < 20
    assert len(predict(clip, mine)) == 20 - before
    assert records(mine) == records(whole)
    assert read_video(mine.video)[1] == read_video(whole.video)[1]


def test_a_kill_between_the_last_commit_and_the_end(tmp_path: Path, clip: VideoClip, monkeypatch: pytest.MonkeyPatch):
    mine, put = job(tmp_path / "out"), os.replace

    def killed(source: Path, target: Path) -> None:
        if target == mine.video:
            raise KeyboardInterrupt
        put(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            predict(clip, mine)
    assert len(read_video(mine.video)[0]) == 20
    assert not look_for_results(clip, mine).is_done
    assert predict(clip, mine) == []
    assert look_for_results(clip, mine).is_done
    assert len(read_video(mine.video)[0]) == 20


def test_other_options_model_or_clip_are_refused_and_overwritten_on_demand(tmp_path: Path, clip: VideoClip):
    mine = job(tmp_path / "out")
    stop_after(5, clip, mine)
    with pytest.raises(DataError, match=r"out\.mp4: was begun with other options \(score_threshold None, now 0\.7\)"):
        predict(clip, replace(mine, options=Options(score_threshold=0.7)))
    with pytest.raises(DataError, match=r"\(track True, now False\); --overwrite begins anew"):
        predict(clip, replace(mine, tracks=False))
    with pytest.raises(DataError, match="was begun with another model"):
        predict(clip, replace(mine, weights="def"))
    other = open_video(write_video(tmp_path / "other.mp4", squares(7)))
    with pytest.raises(DataError, match="was begun from another clip"):
        predict(other, mine)
    assert len(predict(other, mine, overwrite=True)) == 7
    assert len(records(mine)) == len(read_video(mine.video)[0]) == 7
    assert look_for_results(other, mine).is_done


def test_files_of_others_are_not_touched(tmp_path: Path, clip: VideoClip):
    mine = job(tmp_path / "out")
    mine.lines.write_text("mine\n")
    with pytest.raises(DataError, match=r"out\.jsonl: is there already, and not from a run like this"):
        predict(clip, mine)
    assert mine.lines.read_text() == "mine\n"
    assert len(predict(clip, mine, overwrite=True)) == 20


def test_removed_results_are_made_again(tmp_path: Path, clip: VideoClip):
    mine = job(tmp_path / "out")
    predict(clip, mine)
    before = records(mine)
    mine.video.unlink()
    assert len(predict(clip, mine)) == 20
    cut(mine.lines, 0.5)
    assert len(predict(clip, mine)) == 20
    assert records(mine) == before


def test_a_truncated_clip_is_done_up_to_there(tmp_path: Path):
    pictures = [np.random.default_rng(index).integers(0, 256, (32, 48, 3), np.uint8) for index in range(40)]
    clip = open_video(cut(write_video(tmp_path / "clip.mp4", pictures, index_first=True), 0.6))
    mine = job(tmp_path / "out")
    for _ in range(2):
        with pytest.raises(DataError) as failure:
            predict(clip, mine)
        count = len(records(mine))
        assert 15 <= count <= 30
        assert str(failure.value) == (
            f"{clip.path}: truncated; its last good frame is {count - 1}, at {(count - 1) / 25:.2f} s, "
            "and all up to it is written"
        )
        assert len(read_video(mine.video)[0]) == count


def test_few_frames_are_held(tmp_path: Path, clip: VideoClip, monkeypatch: pytest.MonkeyPatch):
    """However slow the writing is: those read ahead, one in the network, those behind it."""
    read, drawn, held = 0, 0, []

    def frames(self: VideoClip, *, after: int | None = None) -> Generator[Frame]:
        nonlocal read
        for index in range(60):
            read += 1
            yield Frame(torch.zeros(3, 32, 48, dtype=torch.uint8), index, 1)

    def add(self: VideoOutput, *_: object) -> None:
        nonlocal drawn
        time.sleep(0.002)
        held.append(read - drawn)
        drawn += 1

    monkeypatch.setattr(VideoClip, "frames", frames)
    with monkeypatch.context() as patch, closing(_begun(clip, job(tmp_path / "out"))) as lines:
        patch.setattr(VideoOutput, "add", add)
        patch.setattr(VideoOutput, "append_fragment", lambda _: None)
        for _ in range(55):
            next(lines)
    assert len(held) >= 55
    assert 2 <= max(held) <= 8


def _begun(clip: VideoClip, job: VideoJob) -> Generator[str]:
    return predict_video(clip, job, look_for_results(clip, job))


def test_a_full_disk_keeps_what_is_written(tmp_path: Path, clip: VideoClip, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "COMMIT_FRAMES", 4)
    mine, append = job(tmp_path / "out"), VideoOutput.append_fragment

    def full(self: VideoOutput) -> None:
        if self.fragments == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self)

    with monkeypatch.context() as patch:
        patch.setattr(VideoOutput, "append_fragment", full)
        with pytest.raises(DataError, match=r"out\.mp4: cannot be written \(No space left on device\); free some room"):
            predict(clip, mine)
    assert len(records(mine)) == len(read_video(mine.video)[0]) == 8
    assert len(predict(clip, mine)) == 12
    assert [record["frame"] for record in records(mine)] == list(range(20))


def test_a_state_that_cannot_be_written(tmp_path: Path, clip: VideoClip):
    mine = job(tmp_path / "out")
    written = stop_after(5, clip, mine)
    mine.state.with_name(f".{mine.state.name}.new").mkdir()
    with pytest.raises(DataError, match=r"out\.mp4: cannot be written \(Is a directory\); free some room or choose"):
        predict(clip, mine)
    mine.state.with_name(f".{mine.state.name}.new").rmdir()
    assert len(predict(clip, mine)) == 20 - written
    assert [record["frame"] for record in records(mine)] == list(range(20))


def test_of_two_runs_into_one_file_one_stops(tmp_path: Path, clip: VideoClip, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "COMMIT_FRAMES", 8)
    mine = job(tmp_path / "out")
    with closing(_begun(clip, mine)) as lines:
        next(lines)
        assert len(predict(clip, mine)) == 20  # another run, from the beginning to the end
        whole = mine.video.read_bytes(), mine.lines.read_bytes(), mine.state.read_bytes()
        with pytest.raises(DataError, match=r"out\.mp4: was changed while this run wrote it, perhaps by another run"):
            list(lines)
    assert (mine.video.read_bytes(), mine.lines.read_bytes(), mine.state.read_bytes()) == whole
    assert look_for_results(clip, mine).is_done


def test_a_link_stays_a_link(tmp_path: Path, clip: VideoClip):
    mine = job(tmp_path / "out")
    (tmp_path / "elsewhere").mkdir()
    mine.video.symlink_to(tmp_path / "elsewhere" / "real.mp4")
    predict(clip, mine)
    assert mine.video.is_symlink()
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["real.mp4"]
    assert len(read_video(tmp_path / "elsewhere" / "real.mp4")[0]) == 20
    assert look_for_results(clip, mine).is_done


def test_frames_too_large_for_a_video_leave_nothing_behind(tmp_path: Path):
    (tmp_path / "frames").mkdir()
    Image.new("RGB", (20_000, 8)).save(tmp_path / "frames" / "0.png")
    clip = open_images([tmp_path / "frames" / "0.png"], tmp_path / "frames")
    mine = job(tmp_path / "out")
    with pytest.raises(DataError, match=r"out\.mp4: .* does not support frames of 8×20,000; make them smaller"):
        list(predict_video(clip, mine, look_for_results(clip, mine)))
    assert not list(mine.video.parent.iterdir())


def test_models_whose_objects_cannot_be_followed(tmp_path: Path, clip: VideoClip):
    semantic = Predictor(pointwise(), pointwise_card(), device="cpu")
    with pytest.raises(RecipeError, match="--track: pointwise is a model for semantic segmentation, without instances"):
        predict(clip, job(tmp_path / "a", semantic, tracks=True))
    with pytest.raises(RecipeError, match="--track: panels tracks instances by itself; leave --track out"):
        predict(clip, job(tmp_path / "b", panels(uses_memory=True), tracks=True))
    assert not list((tmp_path / "a").iterdir())


def test_a_semantic_clip(tmp_path: Path, clip: VideoClip):
    mine = job(tmp_path / "out", Predictor(pointwise(), pointwise_card(), device="cpu"))
    assert len(predict(clip, mine)) == 20
    segments = records(mine)[10]["segments"]
    assert [segment["name"] for segment in segments] == ["apple", "pear"]
    picture = read_video(mine.video)[0][10]
    assert np.abs(picture[28, 4].astype(int) - GREY).max() < 12  # background is left as it is
    assert np.abs(picture[8, 18].astype(int) - RED).max() > 12
    assert np.abs(picture[24, 26].astype(int) - GREEN).max() > 12


def test_states_are_read_as_they_were_written(tmp_path: Path):
    predictor = panels(uses_memory=True)
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    _, memory = predictor.annotate_frame(image, None, Options())
    _, memory = predictor.annotate_frame(image, memory, Options())
    path = tmp_path / "state"
    assert read_state(path, torch.device("cpu")) is None
    write_state(path, ClipProgress(identity={"a": 1}, frames=3, time=7), ClipMemory(memory))
    progress, found = read_state(path, torch.device("cpu"))
    assert (progress.frames, progress.time, progress.identity) == (3, 7, {"a": 1})
    assert type(found.model) is type(memory)
    assert found.model.size_hw == (8, 8)
    assert type(found.model.state) is type(memory.state)
    assert found.model.state.frames.tolist() == [1]


@pytest.mark.parametrize("kind", [["subprocess", "Popen"], ["pixelwise.errors", "DataError"], ["pixelwise.gone", "A"]])
def test_states_make_nothing_but_tuples_of_this_package(tmp_path: Path, kind: list[str]):
    head = {"progress": ClipProgress(identity={}).model_dump_json(), "memory": json.dumps({"type": kind, "parts": []})}
    save_file({}, tmp_path / "state", metadata=head)
    with pytest.raises(DataError, match="not the state of a video that was begun; remove it, or use --overwrite"):
        read_state(tmp_path / "state", torch.device("cpu"))
    (tmp_path / "state").write_bytes(b"nonsense")
    with pytest.raises(DataError, match="not the state"):
        read_state(tmp_path / "state", torch.device("cpu"))
