"""Models by name, and reading checkpoints into them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from autoprune import make_plan, rebuild, trace, verify
from autoprune.errors import CheckpointError, ConfigError
from autoprune.nn import ChannelSelection, add_channel_selection
from autoprune.training import weights_hash
from autoprune.zoo import MODELS, checkpoint_hash, load_checkpoint, make_model, model_names
from autoprune.zoo._checkpoint import read_state
from autoprune.zoo.densenet import DenseNet
from autoprune.zoo.preresnet import PreActivationResNet
from tests.support.test_files import SPECIAL

PARAMETERS = {  # of the papers' nets with 10 classes and 3 channels, plus what the 1x1 shortcuts add
    "resnet20": 272_474,
    "resnet56": 855_770,
    "vgg16_bn": 14_728_266 - 4_224,
    "vgg16_bn_half": 3_684_842,
    "densenet40": 1_019_722,
    "preresnet20": 219_482,
    "preresnet164": 1_703_258,
}


def own_factory(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))


def returns_no_module() -> int:
    return 1


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3), (64, 3)])
def test_forward_at_every_size(name: str, size: int, channels: int) -> None:
    model = make_model(name, classes=7, in_channels=channels).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, channels, size, size)).shape == (2, 7)


def test_digits_resnet_takes_digits() -> None:
    model = make_model("digits_resnet", classes=10, in_channels=1)
    assert model(torch.zeros(4, 1, 8, 8)).shape == (4, 10)


def test_vgg_has_13_convolutions_and_one_linear_layer() -> None:
    kinds = [type(module) for module in make_model("vgg16_bn", 10).modules()]
    assert kinds.count(nn.Conv2d) == 13
    assert kinds.count(nn.Linear) == 1


@pytest.mark.parametrize("name", list(PARAMETERS))
def test_parameter_counts(name: str) -> None:
    model = make_model(name, 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize(
    "make",
    [
        partial(PreActivationResNet, 2, (2, 3), classes=5, in_channels=3),
        partial(DenseNet, 2, 4, classes=5, in_channels=3),
    ],
)
def test_selecting_nets_select_at_every_shared_tensor(make: Callable[..., nn.Module], tmp_path: Path) -> None:
    """The oracle is `add_channel_selection`, which finds these places in the graph."""
    image = torch.zeros(1, 3, 8, 8)
    plain, selecting = make(), make(select=True)
    inserted = add_channel_selection(plain, image)
    sizes = [
        sorted(len(each.index) for each in model.modules() if isinstance(each, ChannelSelection))
        for model in (selecting, inserted)
    ]
    assert sizes[0] == sizes[1] != []
    torch.save(plain.state_dict(), tmp_path / "plain.pt")
    load_checkpoint(selecting, tmp_path / "plain.pt")  # which lacks the selections
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(selecting.eval()(images), plain.eval()(images))
    prunable = trace(selecting, image)
    plan = make_plan(prunable, 0.5, criterion="bn")
    assert verify(prunable, plan, rebuild(prunable, plan)) <= 1e-9
    frozen = {group.name.partition(":")[0] for group in prunable.groups if group.frozen}
    norms = {name for name, module in selecting.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert not frozen & norms


def test_torchvision_by_name_with_other_channels_and_classes() -> None:
    model = make_model("mobilenet_v3_small", classes=5, in_channels=1).eval()
    assert model(torch.zeros(1, 1, 64, 64)).shape == (1, 5)
    assert type(make_model("torchvision/vgg16_bn", 10)).__module__.startswith("torchvision")


def test_every_name_is_listed_once() -> None:
    names = model_names()
    assert len(set(names)) == len(names)
    assert {"resnet20", "vgg16_bn", "torchvision/vgg16_bn", "resnet50"} <= set(names)


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r'unknown model "resnet21".*Did you mean "resnet'):
        make_model("resnet21", 10)


def test_weights_are_checked_before_any_download() -> None:
    with pytest.raises(ConfigError, match=r'"DEFAULT" of resnet18 is for 1000 classes, the data have 10'):
        make_model("resnet18", 10, weights="DEFAULT")
    with pytest.raises(ConfigError, match=r'resnet18: unknown name "DEFALT"\. Did you mean "DEFAULT"'):
        make_model("resnet18", 1000, weights="DEFALT")
    with pytest.raises(ConfigError, match="no model of torchvision or timm"):
        make_model("resnet20", 10, weights="DEFAULT")


def test_the_users_factory() -> None:
    model = make_model(f"{__name__}:own_factory", classes=6)
    assert model(torch.zeros(2, 1, 4, 4)).shape == (2, 6)
    with pytest.raises(ConfigError, match=r"returned an int, expected a torch.nn.Module"):
        make_model(f"{__name__}:returns_no_module", classes=6)


@pytest.mark.parametrize("form", ["safetensors", "bare", "state_dict", "model", "module.", "net._orig_mod."])
def test_checkpoint_reads_back_equal(tmp_path: Path, form: str) -> None:
    source, target = make_model("digits_resnet", 10, 1), make_model("digits_resnet", 10, 1)
    state = source.state_dict()
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    if form == "safetensors":
        save_file(state, path)
    elif form == "bare":
        torch.save(state, path)
    elif form.endswith("."):
        torch.save({f"{form}{name}": tensor for name, tensor in state.items()}, path)
    else:
        torch.save({form: state, "epoch": 3}, path)
    load_checkpoint(target, path)
    assert all(torch.equal(tensor, state[name]) for name, tensor in target.state_dict().items())
    assert len(checkpoint_hash(path)) == 64


def test_checkpoint_errors_name_the_leaf(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(make_model("digits_resnet", 10, 1).state_dict(), path)
    with pytest.raises(CheckpointError, match=r"fc.weight is \(10, 32\), but \(7, 32\) in the model"):
        load_checkpoint(make_model("digits_resnet", 7, 1), path)
    with pytest.raises(CheckpointError, match=r"missing layer1.2.conv1.weight, .* more"):
        load_checkpoint(make_model("resnet20", 10, 1), path)
    torch.save({**make_model("digits_resnet", 10, 1).state_dict(), "head.bias": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"unexpected head.bias"):
        load_checkpoint(make_model("digits_resnet", 10, 1), path)


def test_misfit_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    model = make_model("digits_resnet", 7, 1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.save(make_model("digits_resnet", 10, 1).state_dict(), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"fc.weight"):
        load_checkpoint(model, tmp_path / "w.pt")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_missing_and_corrupt_files(tmp_path: Path) -> None:
    model = make_model("digits_resnet", 10, 1)
    with pytest.raises(CheckpointError, match=r"there is no such file\. Train one with `autoprune train"):
        load_checkpoint(model, tmp_path / "absent.pt")
    with pytest.raises(CheckpointError, match=r"cannot be read"):
        checkpoint_hash(tmp_path / "absent.pt")
    for name in ("w.pt", "w.safetensors"):
        for content in (b"nonsense" * 40, b"abcdefghij" * 12, b"z" * 120):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(CheckpointError, match=r"corrupt") as raised:
                load_checkpoint(model, tmp_path / name)
            assert "\n" not in str(raised.value)
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(CheckpointError, match=r"the file is empty"):
            load_checkpoint(model, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"it is a folder"):
        load_checkpoint(model, tmp_path)
    torch.save({0: torch.zeros(3)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"its entry 0 is a Tensor, expected named tensors"):
        load_checkpoint(model, tmp_path / "w.pt")
    torch.save(model, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"corrupt, or holds more than tensors"):
        load_checkpoint(model, tmp_path / "w.pt")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_no_garbage_leads_to_another_error(tmp_path: Path, name: str) -> None:
    """Random bytes, random letters, and whole files with some bytes changed or cut off."""
    rng = np.random.default_rng(0)
    state = {"weight": torch.arange(6.0), "bias": torch.zeros(2)}
    path = tmp_path / name
    save_file(state, path) if name.endswith("safetensors") else torch.save(state, path)
    whole = path.read_bytes()
    refused: list[str] = []
    for turn in range(200):
        content = rng.integers(*((0, 256) if turn % 2 else (32, 127)), rng.integers(1, 300), dtype=np.uint8)
        if turn % 4 == 3:
            content = np.frombuffer(whole, np.uint8).copy()
            content[rng.integers(0, len(content), 9)] = rng.integers(0, 256, 9)
            content = content[: rng.integers(1, len(content) + 1)]
        path.write_bytes(content.tobytes())
        try:
            read_state(path)
        except CheckpointError as error:
            refused.append(str(error))
    assert len(refused) > 100
    assert not any("\n" in message for message in refused)


def test_another_architecture_is_named_by_its_weights(tmp_path: Path) -> None:
    torch.save(make_model("resnet20", 10, 1).state_dict(), tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="looks like another architecture's") as raised:
        load_checkpoint(make_model("vgg16_bn", 10, 1), tmp_path / "w.pt")
    assert "num_batches_tracked" not in str(raised.value)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = make_model("digits_resnet", 10, 1).state_dict()
    state["fc.bias"][3] = float("nan")
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"fc.bias has values that are not finite"):
        load_checkpoint(make_model("digits_resnet", 10, 1), tmp_path / "w.pt")


QUANTISED = "ignore:.*quantized tensor creation functions"
SPARSE = "ignore:Sparse CSR tensor support"
NESTED = "ignore:The PyTorch API of nested tensors"


@pytest.mark.filterwarnings(QUANTISED, SPARSE, NESTED)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda weight: weight.to_sparse(), "torch.sparse_coo, expected a plain tensor of torch.float32"),
        (lambda weight: weight.to_sparse_csr(), "torch.sparse_csr, expected a plain tensor"),
        (lambda weight: weight.to("meta"), "on the meta device, without values, expected a plain tensor"),
        (
            lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
            "quantised, expected a plain",
        ),
        (lambda weight: torch.nested.nested_tensor([weight, weight]), "nested, expected a plain tensor"),
        (lambda weight: weight.to(torch.complex64), "torch.complex64, expected torch.float32"),
        (lambda weight: weight.long(), "torch.int64, expected torch.float32"),
        (lambda weight: weight > 0, "torch.bool, expected torch.float32"),
        (lambda weight: weight.to(torch.float8_e4m3fn), "torch.float8_e4m3fn, expected torch.float32"),
    ],
)
def test_weights_that_would_be_cast_in_silence_are_refused(
    tmp_path: Path,
    change: Callable[[torch.Tensor], torch.Tensor],
    said: str,
) -> None:
    model = make_model("digits_resnet", 10, 1)
    before = weights_hash(model)
    torch.save(
        {**model.state_dict(), "fc.weight": change(model.state_dict()["fc.weight"])}, tmp_path / "w.pt"
    )
    with pytest.raises(CheckpointError, match=re.escape(f"w.pt: fc.weight is {said}")) as raised:
        load_checkpoint(model, tmp_path / "w.pt")
    assert "\n" not in str(raised.value)
    assert weights_hash(model) == before


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_floating_weights_of_another_precision_and_any_counter_are_taken(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    model = make_model("digits_resnet", 10, 1)
    state = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    torch.save(state, tmp_path / "w.pt")
    load_checkpoint(model, tmp_path / "w.pt")
    assert model.state_dict()["fc.weight"].dtype is torch.float32
    assert torch.equal(model.state_dict()["fc.weight"], state["fc.weight"].float())


def test_names_of_any_length_are_one_line(tmp_path: Path) -> None:
    model = make_model("digits_resnet", 10, 1)
    torch.save({**model.state_dict(), "x\n" * 100_000: torch.zeros(1)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match=r"unexpected x x x") as raised:
        load_checkpoint(model, tmp_path / "w.pt")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_that_are_no_file_are_refused_at_once(
    kind: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, message = SPECIAL[kind]
    path = Path(f"dense{suffix}")
    make(path)
    for read in (read_state, checkpoint_hash):
        with pytest.raises(
            CheckpointError, match=rf"checkpoint dense\{suffix}: cannot be read \({message}\)"
        ):
            read(path)
