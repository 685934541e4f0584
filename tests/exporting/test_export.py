from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from autoprune.criteria import make_plan
from autoprune.errors import CheckpointError, ExportError
from autoprune.exporting import (
    EXPORTERS,
    ExporterSpec,
    ExportReport,
    _runtimes,
    export,
    load_pruned,
    read_recipe,
    save_pruned,
)
from autoprune.exporting._onnx import Runner
from autoprune.graph.attached import example_of, note_example
from autoprune.graph.capture import ExampleInputs, call
from autoprune.graph.plan import Plan
from autoprune.rebuilding import rebuild
from autoprune.tracing import trace


class Net(nn.Module):
    """Parts of a recipe: grouped layers, norms, a shared weight, a buffer that is not persistent."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.depthwise = weight_norm(nn.Conv2d(width, width, 3, groups=width))
        self.slope = nn.PReLU(width)
        self.encode = nn.Linear(width, width)
        self.decode = nn.Linear(width, width)
        self.decode.weight = self.encode.weight
        self.layer_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 5)
        self.register_buffer("scale", torch.rand(width) + 0.5, persistent=False)
        self.register_buffer("steps", torch.tensor(7))

    def forward(self, images: Tensor) -> Tensor:
        x = self.slope(self.depthwise(self.norm(self.conv(images)))).mean((2, 3)) * self.get_buffer("scale")
        return self.head(self.layer_norm(self.decode(self.encode(x).relu())))  # type: ignore[no-any-return]  # nn.Module calls give Any


def small_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net = Net(4)
    net(torch.randn(16, 3, 8, 8))  # moves the running statistics
    return net.eval()


PLAN = Plan({"conv": np.array([0, 2, 5, 7])})
IMAGES = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_round_trip_gives_bit_identical_outputs(tmp_path: Path) -> None:
    small = small_net()
    small.get_parameter("head.bias").requires_grad_(False)
    save_pruned(small, PLAN, tmp_path / "a" / "b", extra={"accuracy": 0.5, "note": "ä"})
    assert {file.name for file in (tmp_path / "a" / "b").iterdir()} == {"model.safetensors", "recipe.json"}
    loaded = load_pruned(tmp_path / "a" / "b", Net)
    assert isinstance(loaded, Net)
    assert torch.equal(loaded(IMAGES), small(IMAGES))
    assert loaded.decode.weight is loaded.encode.weight
    assert torch.equal(loaded.get_buffer("scale"), small.get_buffer("scale"))
    assert "scale" not in loaded.state_dict()
    assert loaded.get_buffer("steps").dtype == torch.int64
    assert not loaded.head.bias.requires_grad
    assert loaded.head.weight.requires_grad
    assert not any(module.training for module in loaded.modules())
    assert (loaded.depthwise.groups, loaded.layer_norm.normalized_shape) == (4, (4,))
    recipe = read_recipe(tmp_path / "a" / "b")
    assert recipe.plan == PLAN
    assert recipe.plan.widths == {"conv": 4}
    assert recipe.extra == {"accuracy": 0.5, "note": "ä"}


def test_the_files_have_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    save_pruned(small_net(), PLAN, tmp_path)
    (tmp_path / "plain").touch()
    assert len({file.stat().st_mode for file in tmp_path.iterdir()}) == 1


def test_a_loaded_model_trains_and_saves_again(tmp_path: Path) -> None:
    small = small_net()
    save_pruned(small, PLAN, tmp_path / "first")
    loaded = load_pruned(tmp_path / "first", Net)
    save_pruned(loaded, PLAN, tmp_path / "second")
    assert (tmp_path / "first/model.safetensors").read_bytes() == (
        tmp_path / "second/model.safetensors"
    ).read_bytes()
    loaded.train()(IMAGES).sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtypes_and_layouts_survive(tmp_path: Path, dtype: torch.dtype) -> None:
    small = small_net().to(dtype).to(memory_format=torch.channels_last)
    save_pruned(small, PLAN, tmp_path)
    loaded = load_pruned(tmp_path, Net)
    assert torch.equal(loaded(IMAGES.to(dtype)), small(IMAGES.to(dtype)))
    assert loaded.get_parameter("conv.weight").dtype == dtype
    assert loaded.get_parameter("conv.weight").stride() == small.get_parameter("conv.weight").stride()


def test_an_architecture_on_the_meta_device_will_do(tmp_path: Path) -> None:
    def make_meta() -> nn.Module:
        with torch.device("meta"):
            return Net()

    small = small_net()
    save_pruned(small, PLAN, tmp_path)
    assert torch.equal(load_pruned(tmp_path, make_meta)(IMAGES), small(IMAGES))


def test_a_rebuilt_model_loads_without_tracing(tmp_path: Path) -> None:
    def make() -> nn.Module:
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 3, groups=8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(32, 5),
        )

    dense = make().eval()
    prunable = trace(dense, torch.zeros(1, 3, 8, 8))
    plan = make_plan(prunable, 0.5)
    assert plan.widths
    small = rebuild(prunable, plan)
    save_pruned(small, plan, tmp_path)
    loaded = load_pruned(tmp_path, make)
    assert torch.equal(loaded(IMAGES), small(IMAGES))
    assert read_recipe(tmp_path).plan == plan
    assert sum(p.numel() for p in loaded.parameters()) < sum(p.numel() for p in dense.parameters())


def test_example_inputs_travel_with_the_recipe(tmp_path: Path) -> None:
    small = small_net()
    note_example(small, {"images": torch.zeros(1, 3, 8, 8), "flag": None})
    save_pruned(small, PLAN, tmp_path)
    example = example_of(load_pruned(tmp_path, Net))
    assert isinstance(example, dict)
    assert torch.equal(torch.as_tensor(example["images"]), torch.zeros(1, 3, 8, 8))
    assert example["flag"] is None


def test_a_model_that_knows_its_inputs_needs_none_to_export(tmp_path: Path) -> None:
    small = small_net()
    note_example(small, (torch.zeros(1, 3, 8, 8),))
    assert export(small, tmp_path / "net.pt2", "pt2").max_difference == 0


def test_saving_again_replaces_the_model_and_leaves_other_files(tmp_path: Path) -> None:
    (tmp_path / "plot.png").write_text("keep me")
    save_pruned(small_net(0), PLAN, tmp_path)
    save_pruned(small_net(1), PLAN, tmp_path)
    assert torch.equal(load_pruned(tmp_path, Net)(IMAGES), small_net(1)(IMAGES))
    assert {file.name for file in tmp_path.iterdir()} == {"model.safetensors", "recipe.json", "plot.png"}


@pytest.mark.parametrize("deaths", [*itertools.product(range(3), range(4))])
def test_a_save_that_dies_between_renames_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaths: tuple[int, int]
) -> None:
    class Killed(BaseException):
        pass

    real, left = os.replace, 0

    def replace(source: Path, target: Path) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        real(source, target)

    save_pruned(small_net(0), PLAN, tmp_path)
    held = small_net(0)(IMAGES)
    for seed, renames in enumerate(deaths, start=1):  # a second death must not harm what the first has left
        left = renames
        with monkeypatch.context() as patched, contextlib.suppress(Killed):
            patched.setattr(os, "replace", replace)
            save_pruned(small_net(seed), PLAN, tmp_path)
            held = small_net(seed)(IMAGES)
        assert torch.equal(load_pruned(tmp_path, Net)(IMAGES), held)
    save_pruned(small_net(3), PLAN, tmp_path)
    assert torch.equal(load_pruned(tmp_path, Net)(IMAGES), small_net(3)(IMAGES))
    assert {file.name for file in tmp_path.iterdir()} == {"model.safetensors", "recipe.json"}


def test_a_save_that_cannot_be_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"extra cannot be stored as JSON \(Object of type bytes"):
        save_pruned(small_net(1), PLAN, tmp_path / "new", extra={"note": b"ab"})
    with pytest.raises(
        ExportError, match=r"a\\x00b: cannot be written \(its name contains a null character\)"
    ):
        save_pruned(small_net(1), PLAN, tmp_path / "a\x00b")
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_fails_leaves_the_former_model(tmp_path: Path) -> None:
    small = small_net(0)
    save_pruned(small, PLAN, tmp_path)
    with pytest.raises(ExportError, match=r"extra cannot be stored as JSON \(Object of type Conv2d"):
        save_pruned(small_net(1), PLAN, tmp_path, extra={"layer": nn.Conv2d(1, 1, 1)})
    with pytest.raises(ExportError, match=r"tensor conv.weight is on the meta device"):
        save_pruned(Net().to("meta"), PLAN, tmp_path)
    assert torch.equal(load_pruned(tmp_path, Net)(IMAGES), small(IMAGES))
    assert {file.name for file in tmp_path.iterdir()} == {"model.safetensors", "recipe.json"}


def test_an_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ExportError, match=r"file/best: cannot be written \(Not a directory\)\. Choose another folder"
    ):
        save_pruned(small_net(), PLAN, tmp_path / "file" / "best")
    with pytest.raises(ExportError, match=r"file/net.onnx: cannot be written \(.+\)\. Choose another path"):
        export(small_net(), tmp_path / "file" / "net.onnx", example_inputs=IMAGES)


class WithoutHead(Net):
    def __init__(self) -> None:
        super().__init__()
        del self.head


class WithMore(Net):
    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Linear(2, 3)


class BufferForParameter(Net):
    def __init__(self) -> None:
        super().__init__()
        del self.head.bias
        self.head.register_buffer("bias", torch.zeros(5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Net(3), r"conv.weight is stored with shape \[4, 3, 3, 3\], but has \[3, 3, 3, 3\] in"),
        (
            WithoutHead,
            r"the model has no head.weight, which is stored with shape \[5, 4\]\. Let make_model return",
        ),
        (WithMore, r"more.weight is not stored, but has shape \[3, 2\] in the model\. Let make_model return"),
        (BufferForParameter, r"head.bias is stored as a parameter, but is not one in the model"),
    ],
)
def test_another_architecture_is_refused(tmp_path: Path, make: Callable[[], nn.Module], message: str) -> None:
    save_pruned(small_net(), PLAN, tmp_path)
    with pytest.raises(CheckpointError, match=message):
        load_pruned(tmp_path, make)


def test_a_patch_that_the_architecture_has_no_place_for(tmp_path: Path) -> None:
    class Bare(nn.Module):
        def __init__(self, layer: type[nn.Module]) -> None:
            super().__init__()
            self.layer = layer()

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))

    save_pruned(Bare(lambda: nn.LayerNorm(4)), Plan({}), tmp_path)  # type: ignore[arg-type]  # any factory will do
    with pytest.raises(CheckpointError, match=r"Patch layer.normalized_shape = \[4\]: Scale has no number"):
        load_pruned(tmp_path, lambda: Bare(Scale))


def test_files_that_are_missing_damaged_or_too_new(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere/recipe.json: cannot be read \(No such file"):
        load_pruned(tmp_path / "nowhere", Net)
    save_pruned(small_net(), PLAN, tmp_path)
    weights, recipe = tmp_path / "model.safetensors", tmp_path / "recipe.json"
    tensors, values = weights.read_bytes(), json.loads(recipe.read_text())

    for damaged in (tensors[:-5], bytes([*tensors[:-1], tensors[-1] ^ 1]), b"", b"no safetensors"):
        weights.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"model.safetensors: is damaged, or not the file"):
            load_pruned(tmp_path, Net)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"model.safetensors: is missing"):
        load_pruned(tmp_path, Net)
    weights.write_bytes(tensors)

    def with_recipe(**changes: object) -> None:
        recipe.write_text(json.dumps({**values, **changes}))

    with_recipe(version=4)
    with pytest.raises(CheckpointError, match=r"recipe.json: got format version 4, expected at most 3"):
        load_pruned(tmp_path, Net)
    with_recipe(format="other")
    with pytest.raises(CheckpointError, match=r"recipe.json: not a recipe of a pruned model"):
        load_pruned(tmp_path, Net)
    with_recipe(tensors={"conv.weight": [4]})
    with pytest.raises(
        CheckpointError, match=r"tensors\.conv\.weight: got \[4\], expected a list of shape, "
    ):
        load_pruned(tmp_path, Net)
    with_recipe(
        tensors={**values["tensors"], "conv.weight": [[2, 3, 3, 3], *values["tensors"]["conv.weight"][1:]]}
    )
    with pytest.raises(
        CheckpointError, match=r"conv.weight has shape \[2, 3, 3, 3\] in recipe.json, but \[4, 3, 3, 3\]"
    ):
        load_pruned(tmp_path, Net)
    recipe.write_text(json.dumps(values)[:-20])
    with pytest.raises(CheckpointError, match=r"recipe.json: is not JSON"):
        load_pruned(tmp_path, Net)


@pytest.mark.parametrize("format", EXPORTERS)
def test_what_is_exported_gives_the_models_outputs(tmp_path: Path, format: str) -> None:
    small = small_net().train()
    small.get_submodule("norm").eval()
    modes = [module.training for module in small.modules()]
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    state = torch.get_rng_state()
    report = export(small, tmp_path / f"net.{format}", format, example_inputs=torch.zeros(1, 3, 8, 8))
    assert report.path == tmp_path / f"net.{format}"
    assert report.format == format
    assert 0 <= report.max_difference < 1e-5
    assert [file.name for file in tmp_path.iterdir()] == [f"net.{format}"]
    assert [module.training for module in small.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_with_keyword_inputs_and_several_outputs(tmp_path: Path) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
            return {"sum": self.layer(left + right), "difference": self.layer(left - right)}

    example: ExampleInputs = {"right": torch.zeros(1, 4), "left": torch.zeros(1, 4)}
    for format in EXPORTERS:
        assert export(Two(), tmp_path / f"two.{format}", format, example_inputs=example).max_difference < 1e-6


def test_a_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(model: nn.Module, inputs: ExampleInputs, path: Path) -> Runner:
        path.write_text("junk")
        return lambda inputs: [output + 0.5 for output in _runtimes._tensors(call(model, inputs))]

    monkeypatch.setitem(EXPORTERS, "junk", ExporterSpec(careless))
    (tmp_path / "net.junk").write_text("the former")
    with pytest.raises(
        ExportError, match=r"net\.junk: its outputs differ from the model's by 0.5, more than 0.000"
    ):
        export(small_net(), tmp_path / "net.junk", "junk", IMAGES)
    assert (tmp_path / "net.junk").read_text() == "the former"
    assert [file.name for file in tmp_path.iterdir()] == ["net.junk"]
    assert export(
        small_net(), tmp_path / "net.junk", "junk", IMAGES, tolerance=1.0
    ).max_difference == pytest.approx(0.5)


def test_a_model_that_cannot_be_exported_is_one_line(tmp_path: Path) -> None:
    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ExportError, match=r'format: unknown name "onx"\. Did you mean "onnx"\?'):
        export(small_net(), tmp_path / "net", "onx")
    with pytest.raises(ExportError, match="Net: export needs example_inputs, such as"):
        export(small_net(), tmp_path / "net")
    with pytest.raises(ExportError, match=r"net: Branches cannot be exported to \.pt2: [^\n]+$"):
        export(Branches(), tmp_path / "net", "pt2", torch.zeros(1, 3))
    with pytest.raises(
        ExportError, match="net: the model's forward pass failed on the example inputs: Runtime"
    ):
        export(small_net(), tmp_path / "net", "onnx", torch.zeros(1, 7, 8, 8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["", ".", "/"])
def test_a_folder_is_no_file_to_export_to(path: str) -> None:
    with pytest.raises(ExportError, match=r"is a folder\. Name a file in it\.$"):
        export(small_net(), path, "pt2", IMAGES)


def test_a_folder_of_safetensors_is_saved_with_its_plan(tmp_path: Path) -> None:
    prunable = trace(small_net(), IMAGES)
    plan = make_plan(prunable, 0.5)
    report = export(rebuild(prunable, plan), tmp_path / "small", format="safetensors")
    assert report == ExportReport(tmp_path / "small", "safetensors", 0.0)
    assert read_recipe(report.path).plan.widths == plan.widths
    again = export(load_pruned(report.path, small_net), tmp_path / "again", format="safetensors")
    assert read_recipe(again.path).plan.widths == plan.widths


def test_a_model_without_a_plan_makes_no_folder_of_safetensors(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"Write it with autoprune\.save_pruned\(small, plan, folder\)\.$"):
        export(small_net(), tmp_path / "small", format="safetensors")
    assert list(tmp_path.iterdir()) == []
