"""The criteria that read feature maps, against loops over images and channels of explicit nets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from autoprune.criteria import importance
from autoprune.criteria.activations import CHIP_POSITIONS, IMAGES, nuclear_losses
from autoprune.criteria.feature_maps import places_of
from autoprune.errors import DataError
from autoprune.graph import Prunable
from autoprune.tracing import trace
from tests.models import CASES
from tests.models import Residual as Stream

SHAPE = (3, 6, 6)
IMAGE_CRITERIA = ("activation", "apoz", "hrank", "chip")


class Plain(nn.Module):
    """A convolution with its ReLU, pooled and read by a classifier."""

    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Linear(width, 4)

    def maps(self, x: Tensor) -> Tensor:
        return functional.relu(self.norm(self.conv(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.maps(x).mean((2, 3)))  # type: ignore[no-any-return]  # modules return Any


class Features(nn.Module):
    """Layers without images: each map is one number, or one for each token."""

    def __init__(self, activation: Callable[[Tensor], Tensor] = functional.relu) -> None:
        super().__init__()
        self.hidden, self.head, self.activation = nn.Linear(6, 8), nn.Linear(8, 4), activation

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.activation(self.hidden(x)))  # type: ignore[no-any-return]  # modules return Any


def traced(model: nn.Module, shape: tuple[int, ...] = SHAPE) -> Prunable:
    return trace(model.double().eval(), torch.zeros(1, *shape, dtype=torch.float64))


def plain(width: int = 5) -> tuple[Plain, Prunable]:
    torch.manual_seed(0)
    model = Plain(width)
    return model, traced(model)


def batch(count: int = 6, shape: tuple[int, ...] = SHAPE) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
    return images, torch.randint(4, (count,), generator=generator)


def by_loop(maps: Tensor, measure: Callable[[Tensor], float]) -> list[float]:
    """Average a measure of single maps [H, W] over the images, channel by channel."""
    return [
        sum(measure(maps[image, channel]) for image in range(len(maps))) / len(maps)
        for channel in range(maps.shape[1])
    ]


@pytest.mark.parametrize(
    ("criterion", "measure"),
    [
        ("activation", lambda image: float(image.abs().sum()) / image.numel()),
        ("apoz", lambda image: 1 - int((image == 0).sum()) / image.numel()),
        ("hrank", lambda image: float(np.linalg.matrix_rank(image.numpy()))),
    ],
)
def test_a_criterion_averages_its_measure_of_single_maps(
    criterion: str, measure: Callable[[Tensor], float]
) -> None:
    model, prunable = plain()
    images, labels = batch()
    with torch.no_grad():
        expected = by_loop(model.maps(images), measure)
        sizes = by_loop(model.maps(images), lambda image: float(image.abs().mean()))
    found = importance(prunable, criterion, [(images[:4], labels[:4]), (images[4:], labels[4:])])["conv"]
    least = np.diff(np.unique(np.round(expected, 9))).min()
    np.testing.assert_allclose(found, expected, atol=0.5001 * least)
    np.testing.assert_array_equal(np.argsort(found), np.lexsort(np.array([sizes, np.round(expected, 9)])))
    np.testing.assert_array_equal(importance(prunable, criterion, [images])["conv"], found)


def test_the_mean_of_activations_is_exact() -> None:
    model, prunable = plain()
    images, _ = batch()
    with torch.no_grad():
        expected = model.maps(images).abs().mean((0, 2, 3))
    np.testing.assert_allclose(importance(prunable, "activation", [images])["conv"], expected, rtol=1e-12)


def test_chip_is_the_fall_of_the_nuclear_norm_without_a_channel() -> None:
    model, prunable = plain()
    images, _ = batch()
    with torch.no_grad():
        maps = model.maps(images).flatten(2)
    expected = np.zeros(5)
    for image in maps:
        for channel in range(5):
            without = image.clone()
            without[channel] = 0
            fall = torch.linalg.matrix_norm(image, "nuc") - torch.linalg.matrix_norm(without, "nuc")
            expected[channel] += float(fall) / len(maps)
    np.testing.assert_allclose(importance(prunable, "chip", [images])["conv"], expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (1, 3), (3, 1)])
def test_nuclear_losses_of_any_shape(shape: tuple[int, int]) -> None:
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    whole = torch.linalg.matrix_norm(matrix, "nuc")
    expected = []
    for row in range(len(matrix)):
        without = matrix.clone()
        without[row] = 0
        expected.append(whole - torch.linalg.matrix_norm(without, "nuc"))
    torch.testing.assert_close(nuclear_losses(matrix), torch.stack(expected), atol=1e-7, rtol=0)


def test_of_equally_large_channels_chip_ranks_copies_last() -> None:
    matrix = torch.eye(6, dtype=torch.float64)
    matrix[4] = matrix[1]
    assert set(nuclear_losses(matrix).argsort()[:2].tolist()) == {1, 4}


def test_chip_draws_positions_of_wide_groups_by_the_seed() -> None:
    torch.manual_seed(0)
    prunable = traced(Plain(CHIP_POSITIONS + 2), (3, 12, 12))
    images, _ = batch(2, (3, 12, 12))
    first, again, other = (importance(prunable, "chip", [images], seed=seed)["conv"] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_maps_of_one_number_make_one_matrix_of_all_images_for_chip() -> None:
    torch.manual_seed(0)
    model = Features()
    images, _ = batch(5, (6,))
    with torch.no_grad():
        hidden = functional.relu(model.double().hidden(images))
    found = importance(traced(model, (6,)), "chip", [images])["hidden"]
    np.testing.assert_allclose(found, nuclear_losses(hidden.T), atol=1e-9)


@pytest.mark.parametrize(
    ("criterion", "activation", "shape"),
    [("hrank", functional.relu, (7, 6)), ("hrank", functional.relu, (6,)), ("apoz", functional.gelu, (7, 6))],
)
def test_maps_that_a_criterion_cannot_measure_are_ranked_by_their_activations(
    criterion: str, activation: Callable[[Tensor], Tensor], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    prunable = traced(Features(activation), shape)
    data = [batch(shape=shape)]
    found = importance(prunable, criterion, data)["hidden"]
    by_size = importance(prunable, "activation", data)["hidden"]
    np.testing.assert_array_equal(np.argsort(found), np.argsort(by_size))
    assert len(set(found)) == len(found)


def test_fisher_is_half_the_mean_square_of_activations_times_gradients() -> None:
    model, prunable = plain()
    images, labels = batch()
    expected = np.zeros(5)
    for image, label in zip(images, labels, strict=True):
        maps = model.maps(image[None]).detach().requires_grad_()
        lost = functional.cross_entropy(model.head(maps.mean((2, 3))), label[None])
        (gradient,) = torch.autograd.grad(lost, maps)
        maps = maps.detach()
        for channel in range(5):
            products = [
                float(maps[0, channel, row, column] * gradient[0, channel, row, column])
                for row in range(maps.shape[2])
                for column in range(maps.shape[3])
            ]
            expected[channel] += sum(products) ** 2 / (2 * len(images))
    np.testing.assert_allclose(
        importance(prunable, "fisher", [(images, labels)])["conv"], expected, rtol=1e-9
    )


def test_one_gate_of_fisher_serves_the_whole_residual_stream() -> None:
    torch.manual_seed(0)
    model = Stream()
    prunable = traced(model, (3, 8, 8))
    images, labels = batch(4, (3, 8, 8))
    expected = torch.zeros(8, dtype=torch.float64)
    for image, label in zip(images, labels, strict=True):
        gates = torch.ones(8, dtype=torch.float64, requires_grad=True)
        gate = gates[None, :, None, None]
        x = model.stem(image[None]).relu() * gate
        x = (x + model.bn(model.outer1(model.inner1(x).relu()))) * gate
        lost = 3 * functional.cross_entropy(model.head(x.mean((2, 3))), label[None])
        expected += torch.autograd.grad(lost, gates)[0].square() / (2 * len(images))
    loss = lambda outputs, targets: 3 * functional.cross_entropy(outputs, targets)  # noqa: E731  # one use
    found = importance(prunable, "fisher", [(images, labels)], loss)
    np.testing.assert_allclose(found["stem"], expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("residual", {"stem": ["relu", "add"], "inner1": ["relu_1"]}),
        ("squeeze_excite", {"conv": ["conv2d", "conv2d_2"], "squeeze": ["relu"]}),
        ("norms", {"conv1": ["group_norm"], "conv2": ["prelu"], "fc": ["layer_norm"]}),
        ("hand_attention", {"q": ["linear", "linear_1"], "v": ["linear_2"]}),
        ("train_only_head", {"conv": ["relu"]}),
        ("global_filter", {"weight": ["conv2d"]}),
    ],
)
def test_maps_are_activations_or_sums_or_else_outputs_of_layers(
    case: str, expected: dict[str, list[str]]
) -> None:
    prunable = trace(CASES[case].make(), CASES[case].inputs)
    places = places_of(prunable, prunable.searchable)
    assert {name: [place.node for place in listed] for name, listed in places.items()} == expected


def test_a_group_without_maps_is_ranked_by_its_filters() -> None:
    torch.manual_seed(0)
    prunable = trace(CASES["train_only_head"].make(), CASES["train_only_head"].inputs)
    found = importance(prunable, "hrank", [torch.randn(2, 3, 8, 8)])
    np.testing.assert_array_equal(found["aux"], importance(prunable, "l2")["aux"])


@pytest.mark.parametrize("criterion", [*IMAGE_CRITERIA, "fisher"])
def test_data_that_is_missing_or_wrong_is_one_line(criterion: str) -> None:
    _, prunable = plain()
    images, labels = batch()
    larger = torch.zeros(2, 3, 8, 8, dtype=torch.float64)
    with pytest.raises(DataError, match=f'criterion "{criterion}": the data gave no images'):
        importance(prunable, criterion, [])
    shapes = r"images of shape \[\[3, 8, 8\]\], expected \[\[3, 6, 6\]\], which the model was traced at"
    with pytest.raises(DataError, match=f'criterion "{criterion}": the data gave {shapes}'):
        importance(prunable, criterion, [(larger, labels[:2])])
    with pytest.raises(DataError, match=f'criterion "{criterion}": the (model|gradient of the loss) failed'):
        importance(prunable, criterion, [(images.to(torch.int64), labels)])
    with pytest.raises(
        DataError, match=f'criterion "{criterion}": the feature maps of group "conv" are not f'
    ):
        importance(prunable, criterion, [(images * torch.nan, labels)])


@pytest.mark.parametrize("criterion", [*IMAGE_CRITERIA, "fisher"])
def test_a_model_without_free_groups_has_nothing_to_rank(criterion: str) -> None:
    prunable = traced(nn.Conv2d(3, 4, 1))
    assert importance(prunable, criterion, [batch()]) == {}


def test_fisher_needs_targets() -> None:
    _, prunable = plain()
    with pytest.raises(DataError, match=r"the data gave no targets, expected batches \(inputs, targets\)"):
        importance(prunable, "fisher", [batch()[0]])


def test_no_more_images_are_drawn_than_are_used() -> None:
    _, prunable = plain()
    drawn = 0

    def stream() -> Iterator[Any]:
        nonlocal drawn
        while True:
            drawn += 4
            yield batch(4)

    importance(prunable, "activation", stream())
    assert drawn == IMAGES


class Whole(nn.Module):
    """Doubles its images, runs a part, and classifies the average of its maps."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3))
        self.head = nn.Linear(5, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.part(images * 2).mean((2, 3)))  # type: ignore[no-any-return]  # modules return Any


class Listed(Whole):
    """The same with a list of images and an output that holds a list."""

    def forward(self, images: list[Tensor]) -> dict[str, list[Tensor]]:  # type: ignore[override]  # as detectors
        return {"rows": list(super().forward(torch.stack(images)))}


@pytest.mark.parametrize("criterion", [*IMAGE_CRITERIA, "fisher", "taylor"])
def test_a_part_is_ranked_by_runs_of_the_whole_model(criterion: str) -> None:
    torch.manual_seed(0)
    model, listed = Whole().double().eval(), Listed().double().eval()
    listed.load_state_dict(model.state_dict())
    (images, labels), example = batch(), torch.zeros(1, *SHAPE, dtype=torch.float64)
    expected = importance(trace(model, example), criterion, data=[(images, labels)])["part.0"]
    part = trace(model, example, target="part")
    found = importance(part, criterion, data=[(images, labels)])["part.0"]
    np.testing.assert_allclose(found, expected, rtol=1e-9)

    def loss(outputs: dict[str, list[Tensor]], targets: list[dict[str, Tensor]]) -> Tensor:
        return functional.cross_entropy(
            torch.stack(outputs["rows"]), torch.stack([target["label"] for target in targets])
        )

    part = trace(listed, (list(example),), target="part")
    data = [((list(images),), [{"label": label} for label in labels])]
    found = importance(part, criterion, data=data, loss=loss)["part.0"]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("size", [2, 3, 6])
def test_lists_of_batches_are_cut_image_by_image(size: int) -> None:
    torch.manual_seed(0)
    model, listed = Whole().double().eval(), Listed().double().eval()
    listed.load_state_dict(model.state_dict())
    images, labels = batch()

    def loss(outputs: Any, targets: Any) -> Tensor:
        rows = torch.stack(outputs["rows"]) if isinstance(outputs, dict) else outputs
        lost: Tensor = functional.cross_entropy(rows, targets[0]) + rows.square().mean() * targets[1].sum()
        return lost

    example = torch.zeros(1, *SHAPE, dtype=torch.float64)
    pairs = [(images[at : at + size], labels[at : at + size]) for at in range(0, 6, size)]
    for part, made in [
        (trace(model, example), model),
        (trace(listed, ([example[0]],), target="part"), listed),
    ]:
        given = [((list(some),) if made is listed else some, picked) for some, picked in pairs]
        expected, found = (
            importance(part, "fisher", [(some, kind([picked, picked + 1])) for some, picked in given], loss)
            for kind in (tuple, list)
        )
        np.testing.assert_array_equal(found["part.0"], expected["part.0"])


class Neck(nn.Module):
    """A neck that adds the maps of two scales, given in a list, a tuple or a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far, self.last = nn.Conv2d(4, 6, 1), nn.Conv2d(5, 6, 1), nn.Conv2d(6, 4, 1)

    def forward(self, scales: Any) -> Tensor:
        near, far = scales.values() if isinstance(scales, dict) else scales
        return self.last((self.near(near) + self.far(far)).relu())  # type: ignore[no-any-return]  # as above


class Necked(nn.Module):
    """Extracts the maps of two scales and gives them to a neck in a structure of the kind `kind`."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.first, self.second, self.neck, self.kind = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 5, 3), Neck(), kind

    def forward(self, images: Tensor) -> Tensor:
        scales = enumerate((self.first(images), self.second(images)))
        listed = self.kind(scales) if self.kind is dict else self.kind(each for _, each in scales)
        return self.neck(listed).mean((2, 3))  # type: ignore[no-any-return]  # modules return Any


@pytest.mark.parametrize("criterion", ["activation", "fisher"])
@pytest.mark.parametrize("size", [2, 6])
def test_a_part_that_takes_a_list_of_maps_is_ranked_as_one_that_takes_a_dict(
    criterion: str, size: int
) -> None:
    images, labels = batch()
    data = [(images[at : at + size], labels[at : at + size]) for at in range(0, 6, size)]
    found = []
    for kind in (dict, tuple, list):
        torch.manual_seed(0)
        model = Necked(kind).double().eval()
        part = trace(model, torch.zeros(1, *SHAPE, dtype=torch.float64), target="neck")
        found.append(importance(part, criterion, data))
    for other in found[:2]:
        assert list(found[2]) == list(other)
        for name in other:
            np.testing.assert_allclose(found[2][name], other[name], rtol=1e-12)
