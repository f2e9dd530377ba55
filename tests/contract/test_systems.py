"""What every system promises, whichever it is: found by walking `pixelwise.models`."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pixelwise.contracts import Recipe, Sizes, System, SystemFile, Term, as_system
from pixelwise.errors import DataError
from pixelwise.inference.model_folder import ModelCard, read_model, write_model
from pixelwise.inference.predictor import Predictor
from pixelwise.inference.systems import system_module, system_names
from pixelwise.ops.resize_rule import ResizeRule
from pixelwise.training.run.recipes import recipe_values
from pixelwise.types import Annotation, Batch, Instances
from tests.contract.annotations import CLASSES, LABELS, VOID, empty_annotation, random_batch
from tests.outputs import require_equal

NAMES = system_names()
VIDEO_NAMES = [name for name in NAMES if system_module(name).TRAITS.uses_memory]
TASKS = {"semantic", "instance", "panoptic", "weak", "attention"}
ORIGINAL_SIZES = [(50, 71), (130, 33)]


@pytest.fixture(params=NAMES)
def module(request: pytest.FixtureRequest) -> SystemFile:
    return system_module(request.param)


def name_of(module: SystemFile) -> str:
    return module.__name__.rpartition(".")[2]


def small_arguments(module: SystemFile) -> dict[str, Any]:
    """The smallest backbone, narrow heads and few proposals, where there are such to choose."""
    small = {"backbone": "mobilenet_v2", "proposals": 20, "box_width": 32, "samples": 32, "post_nms_topk": [60, 30]}
    if "box_width" in inspect.signature(module.build).parameters:
        small |= {"channels": 16, "max_detections": 12}
    return {name: value for name, value in small.items() if name in inspect.signature(module.build).parameters}


@pytest.fixture
def system(module: SystemFile) -> nn.Module:
    """With random weights, and batch-norm statistics of the noise that it is tested with, so that predictions vary.

    Layers that begin at zero get small weights, as they hide errors.
    """
    torch.manual_seed(0)
    system = module.build(num_classes=CLASSES, **small_arguments(module))
    for parameter in system.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    for part in system.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # averages over all it gets
    with torch.no_grad():
        system.train()(a_batch(system).images)
    return system.eval()


def size_of(system: nn.Module) -> tuple[int, int]:
    return as_system(system).traits.input_size or (64, 96)


def a_batch(system: nn.Module, **arguments: Any) -> Batch:
    return random_batch(size_of(system), ORIGINAL_SIZES, **arguments)


def forward(system: nn.Module, batch: Batch) -> Any:
    return system(batch.images, sizes=batch.valid_sizes, truth=batch.truth if system.training else None)


def total(terms: dict[str, Term]) -> Tensor:
    """As `fit` joins them in one process."""
    return torch.stack([term.weight * term.sum / term.count.clamp(min=1) for term in terms.values()]).sum()


def require_close(one: Any, other: Any) -> None:
    """Within 1e-5 of the largest value."""
    assert type(one) is type(other)
    if isinstance(one, Tensor):
        assert one.shape == other.shape
        limit = 1e-5 * max(1.0, float(other.abs().max())) if other.numel() else 0.0
        assert float((one.double() - other.double()).abs().max() if other.numel() else 0) <= limit
    elif isinstance(one, tuple):
        for pair in zip(one, other, strict=True):
            require_close(*pair)


def row(output: Any, index: int) -> Any:
    """One image of an output, whose parts may be outputs of the system that it extends."""

    def of_part(part: Any) -> Any:
        if hasattr(part, "_fields"):
            return row(part, index)
        return part[index : index + 1] if isinstance(part, Tensor | tuple) else part

    return type(output)(*map(of_part, output))


def tensors_of(parts: Any) -> list[Tensor]:
    """All tensors of nested tuples, but for memories."""
    if isinstance(parts, Tensor):
        return [parts]
    if isinstance(parts, list | tuple):
        parts = without_memory(parts) if hasattr(parts, "_fields") else parts
        return [tensor for part in parts for tensor in tensors_of(part)]
    return []


def leaves(value: Any) -> list[Any]:
    """What nested tuples hold."""
    return [leaf for part in value for leaf in leaves(part)] if isinstance(value, tuple) else [value]


def without_memory(output: Any) -> Any:
    """What is said of the frames alone; what is kept for the next is of one clip."""
    return output._replace(memory=None) if "memory" in output._fields else output


# ---- the file


def test_there_are_systems() -> None:
    assert "deeplab_v3_plus" in NAMES


def test_the_file_opens_with_its_citation_and_its_differences(module: SystemFile) -> None:
    text = module.__doc__ or ""
    head, colon, citation = text.partition(": ")
    assert colon
    assert len(head.splitlines()) == 1, "the name of the system, a colon, the citation"
    assert re.search(r"\b(19|20)\d\d\b", citation.split("\n\n")[0]), "the citation has no year"
    assert "from the paper" in text, "say what differs from the paper, or that nothing does"


def test_the_file_offers_task_variants_recipe_and_build(module: SystemFile) -> None:
    assert module.TASK in TASKS
    assert isinstance(module.RECIPE, Recipe)
    assert module.VARIANTS
    assert module.RECIPES.keys() <= module.VARIANTS.keys()
    parameters = inspect.signature(module.build).parameters
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters.values())
    defaults = {name: parameter.default for name, parameter in parameters.items() if name != "num_classes"}
    assert parameters["num_classes"].default is inspect.Parameter.empty
    assert json.loads(json.dumps(defaults)).keys() == defaults.keys(), "model.json holds the arguments"


def test_every_variant_can_be_built(module: SystemFile) -> None:
    for variant, arguments in module.VARIANTS.items():
        assert variant.startswith(name_of(module))
        with torch.device("meta"):
            built = module.build(num_classes=CLASSES, **arguments)
        assert sum(parameter.numel() for parameter in built.parameters())


def test_the_papers_numbers_stand_beside_ours(module: SystemFile) -> None:
    values = recipe_values(module.RECIPE)
    assert module.RECIPE.paper or module.PUBLISHED
    assert set(module.RECIPE.paper) <= set(values)
    assert all(isinstance(value, str) and value for value in module.RECIPE.paper.values())


# ---- the network


def test_it_is_a_system(module: SystemFile, system: nn.Module) -> None:
    assert isinstance(system, System)
    assert system.task == module.TASK
    assert module.build(num_classes=CLASSES).traits == module.TRAITS
    parameters = inspect.signature(system.forward).parameters
    taken = ["proposals"] if system.traits.takes_proposals else []
    assert list(parameters) == ["images", "sizes", "truth", "memory", *taken]
    assert all(parameter.default is None for name, parameter in parameters.items() if name != "images")


def test_every_tensor_of_the_classes_is_told_with_its_rows(module: SystemFile) -> None:
    """As many rows as there are, and all but the first ones in a network of no classes but the first."""
    arguments = small_arguments(module)
    others = [{"num_classes": CLASSES + 1}]
    if "thing_ids" in inspect.signature(module.build).parameters:
        others.append({"thing_ids": [1]})
    with torch.device("meta"):
        systems = [module.build(**{"num_classes": CLASSES, **arguments, **other}) for other in ({}, *others)]
    found, *changed = ({key: value.shape for key, value in one.state_dict().items()} for one in systems)
    told: set[str] = set()
    for rows in systems[0].class_rows():
        keys = {rows.name, f"{rows.name}.weight", f"{rows.name}.bias"} & found.keys()
        assert keys, rows
        for key in keys:
            for axis in rows.axes:
                assert sorted(rows.of(rows.class_ids)) == [*range(found[key][axis])], key
        told |= keys
    assert told == {key for key, shape in found.items() if any(other[key] != shape for other in changed)}


def test_the_output_is_a_named_tuple_for_the_losses_or_for_decode(module: SystemFile, system: nn.Module) -> None:
    """Of one type where both need the same; else no field stands for a part that the mode does not have."""
    outputs = [forward(system.train(training), a_batch(system)) for training in (True, False)]
    with torch.no_grad():
        assert type(system.train()(a_batch(system).images)) is type(outputs[1]), "without ground truth it predicts"
    for output in outputs:
        assert type(output).__module__ == module.__name__
        assert isinstance(output, tuple)
        assert output._fields
        assert all(part is None or isinstance(part, Tensor | tuple) for part in output)


def test_no_field_of_an_output_belongs_to_one_mode(module: SystemFile, system: nn.Module) -> None:
    """Where training and prediction share a type, what one has the other has; the auxiliary logits alone are left."""
    learnt, predicted = (forward(system.train(training), a_batch(system)) for training in (True, False))
    if type(learnt) is type(predicted):
        empty = [
            {name for name, part in one._asdict().items() if part is None and name != "aux_logits"}
            for one in (learnt, predicted)
        ]
        assert empty[0] == empty[1]


def test_no_system_takes_the_attributes_of_another(module: SystemFile) -> None:
    source = inspect.getsource(inspect.getmodule(module.build) or module.build)
    assert "vars(self)" not in source
    assert "_fields[" not in source, "outputs are made by name"


def test_the_loss_of_a_prediction_is_refused(system: nn.Module) -> None:
    batch = a_batch(system)
    learnt, predicted = (forward(system.train(training), batch) for training in (True, False))
    if type(learnt) is not type(predicted):
        with pytest.raises(DataError, match="forward was called without ground truth"):
            system.loss(predicted, batch)


def test_the_losses_are_finite_and_reach_every_parameter(system: nn.Module) -> None:
    batch = a_batch(system)
    terms = system.train().loss(forward(system, batch), batch)
    assert terms
    for term in terms.values():
        assert term.sum.shape == term.count.shape == ()
        assert torch.isfinite(term.sum)
        assert term.count > 0
        assert term.weight > 0
    total(terms).backward()
    for name, parameter in system.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} has no gradient"
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.any(), f"the gradient of {name} is zero"


def test_the_losses_are_finite_in_half_precision(system: nn.Module) -> None:
    """As training computes where the processor has bfloat16: forward in half precision, the losses behind it."""
    batch = a_batch(system)
    system.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = forward(system, batch)
    loss = total(system.loss(output, batch))
    assert torch.isfinite(loss)
    loss.backward()
    gradients = [parameter.grad for parameter in system.parameters() if parameter.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_without_ground_truth_in_an_image_the_losses_are_zero(system: nn.Module) -> None:
    size = size_of(system)
    batch = a_batch(system, truth=[empty_annotation(size)] * 2)
    terms = system.train().loss(forward(system, batch), batch)
    loss = total(terms)
    assert torch.isfinite(loss)
    if system.task == "semantic":
        assert {(float(term.sum.detach()), int(term.count)) for term in terms.values()} == {(0.0, 0)}
    loss.backward()
    gradients = [parameter.grad for parameter in system.parameters() if parameter.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@torch.no_grad()
def test_an_image_alone_gets_the_output_it_has_in_a_batch_of_equal_sizes(system: nn.Module) -> None:
    # in double precision, as batch norms of so little noise enlarge rounding a hundredfold
    images, sizes = a_batch(system).images.double(), a_batch(system).valid_sizes
    together = system.double()(images, sizes=sizes)
    for index in range(len(images)):
        alone = system(images[index : index + 1], sizes=sizes[index : index + 1])
        require_close(without_memory(alone), row(without_memory(together), index))


@torch.no_grad()
def test_predictions_have_the_original_size(system: nn.Module) -> None:
    batch = a_batch(system)
    annotations = system.decode(forward(system, batch), Sizes.of(batch))
    assert len(annotations) == len(batch)
    for annotation, size in zip(annotations, ORIGINAL_SIZES, strict=True):
        for part in (annotation.semantic, annotation.confidence, annotation.saliency):
            assert part is None or part.shape == size
        assert annotation.panoptic is None or annotation.panoptic.ids.shape == size
        if annotation.instances is not None and annotation.instances.masks is not None:
            assert annotation.instances.masks.size == size
    if system.task == "instance":
        for annotation, (height, width) in zip(annotations, ORIGINAL_SIZES, strict=True):
            found = annotation.instances
            assert len(found) <= system.thresholds.max_detections
            assert set(found.labels.tolist()) <= {*range(1, CLASSES)}
            assert found.boxes.shape == (len(found), 4)
            if len(found):
                assert found.boxes.min() >= 0
                assert (found.boxes <= torch.tensor([width, height, width, height])).all()
                assert (found.scores.diff() <= 0).all()
                assert found.scores[-1] >= system.thresholds.score
    if system.task == "panoptic":
        for annotation in annotations:
            found = annotation.panoptic
            ids = found.segment_ids.tolist()
            assert sorted(ids) == sorted({*found.ids.unique().tolist()} - {0})
            for id, label in zip(ids, found.labels.tolist(), strict=True):
                assert 0 <= label < CLASSES
                assert id == label + 1 or (id > CLASSES and label in system.things)
            assert not found.crowd.any()
    if system.task == "semantic":
        for annotation in annotations:
            assert annotation.semantic.dtype == torch.uint8
            assert set(annotation.semantic.unique().tolist()) <= {*range(CLASSES), VOID}
            assert 0 < annotation.confidence.min() <= annotation.confidence.max() <= 1


def test_loss_and_decode_call_no_part_of_the_network(system: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = a_batch(system)
    output = forward(system.train(), batch)
    with torch.no_grad():
        answer = forward(system.eval(), batch)

    def refuse(part: nn.Module, *_: object, **__: object) -> None:
        raise AssertionError(f"{type(part).__name__} was called outside forward")

    monkeypatch.setattr(nn.Module, "__call__", refuse)
    system.loss(output, batch)
    with torch.no_grad():
        system.decode(answer, Sizes.of(batch))


@torch.no_grad()
def test_a_stored_model_predicts_as_the_one_that_was_stored(
    module: SystemFile, system: nn.Module, tmp_path: Path
) -> None:
    card = ModelCard(
        task=module.TASK,
        system=name_of(module),
        labels=LABELS,
        arguments=small_arguments(module),
        resize=ResizeRule(length=64),
    )
    write_model(tmp_path / "model", system.state_dict(), card)
    loaded, loaded_card = read_model(tmp_path / "model")
    assert loaded_card == card
    assert not loaded.training
    batch = a_batch(system)
    expected, found = forward(system, batch), forward(loaded, batch)
    assert type(found) is type(expected)
    require_equal(found, expected)


@pytest.mark.parametrize("module", VIDEO_NAMES, indirect=True)
@torch.no_grad()
def test_what_is_known_of_a_clip_lies_in_the_memory_alone(system: nn.Module) -> None:
    frames = torch.rand(2, 6, 1, 3, *size_of(system), generator=torch.Generator().manual_seed(1))
    apart: list[list[Any]] = []
    for clip in frames:
        memory, outputs = None, []
        for frame in clip:
            outputs.append(system(frame, memory=memory))
            memory = outputs[-1].memory
            assert all(isinstance(part, Tensor) for part in leaves(memory))
        apart.append(outputs)
    memories: list[Any] = [None, None]
    for number in range(6):
        for clip in (0, 1):
            output = system(frames[clip, number], memory=memories[clip])
            memories[clip] = output.memory
            require_equal(output, apart[clip][number])
    anew = [system(frame) for frame in frames[0]]
    told = [torch.cat([part.flatten().double() for part in tensors_of(one)]) for one in (apart[0], anew)]
    assert told[0].shape != told[1].shape or not torch.equal(*told), "what was kept changes nothing"
    sizes = [sum(part.numel() for part in leaves(outputs[-1].memory)) for outputs in apart]
    assert max(sizes) < 100 * frames[0, 0].numel()


def test_images_of_mixed_sizes_are_predicted_one_by_one(module: SystemFile, system: nn.Module) -> None:
    card = ModelCard(task=module.TASK, system=name_of(module), labels=LABELS, resize=ResizeRule(length=64))
    predictor = Predictor(system, card, device="cpu")
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
        for size in ((40, 64), (97, 30), (64, 64), (1, 5))
    ]
    together = [scene.annotation for scene in predictor(images)]
    for image, annotation in zip(images, together, strict=True):
        alone = predictor(image).annotation
        for part in Annotation.__dataclass_fields__:
            one, other = getattr(annotation, part), getattr(alone, part)
            assert type(one) is type(other)
            if isinstance(one, Tensor):
                assert one.shape == image.shape[1:]
                assert torch.equal(one, other)
            elif isinstance(one, Instances):
                assert one.masks is not None
                assert one.masks.size == tuple(image.shape[1:])
                for field in ("boxes", "labels", "scores"):
                    assert torch.equal(getattr(one, field), getattr(other, field))
                assert torch.equal(one.masks.crops, other.masks.crops)
