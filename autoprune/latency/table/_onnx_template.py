"""Write the ONNX files of candidates from one template, much faster than by an export of each.

The dense model and a few narrowed ones are exported. Every number in which their files differ is traced back
to the widths of the groups. The file of a candidate is the dense file with its weights cut and these numbers
set. The weights have dense values, since only their shapes matter for timing.

Example:
    template = make_template(prunable, sizes, setting)     # exports
    template.calls                                         # for each observation the calls of its nodes
    template.write(widths, path)                           # int64 [groups] -> a file for `open_session`
"""

from __future__ import annotations

import ast
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.cost.polynomial import Size
from autoprune.errors import LatencyError
from autoprune.graph import Prunable
from autoprune.latency.probes.onnx_runtime import export_for_timing
from autoprune.latency.setting import LatencySetting
from autoprune.latency.table._candidates import narrowed
from autoprune.latency.table._operator_sizes import Observations
from autoprune.latency.table._operators import Call
from autoprune.support.arrays import IntArray

_SCOPES = "pkg.torch.onnx.name_scopes"
"""Key under which the exporter lists the modules around a node, and then the node."""

_LONGEST_CONSTANT = 64
"""Number of elements up to which an integer tensor may hold shapes and positions. Larger ones are data."""


@dataclass(frozen=True, eq=False)
class OnnxTemplate:
    """An ONNX file with its numbers as functions of the widths.

    Attributes:
        graph: the dense model's file without its initialisers.
        arrays: {initialiser: its dense values}.
        axes: {initialiser: size of each of its axes}, of those whose shape follows the widths.
        values: {initialiser: size that each element holds}, of those whose values follow the widths.
        attributes: {(node, attribute): size that each of its integers holds}, of those that follow the
            widths.
        nodes: names of the nodes, in order.
        outputs: {tensor: the node that writes it}.
        calls: for each observation the calls of the nodes.
    """

    graph: Any
    arrays: Mapping[str, NDArray[Any]]
    axes: Mapping[str, tuple[Size | int, ...]]
    values: Mapping[str, tuple[Size | int, ...]]
    attributes: Mapping[tuple[int, str], tuple[Size | int, ...]]
    nodes: tuple[str, ...]
    outputs: Mapping[str, str]
    calls: tuple[tuple[Call, ...], ...]

    def write(self, widths: IntArray, path: Path) -> None:
        """Write the file of the candidate with the widths [groups]."""
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self.graph)
        for (place, name), numbers in self.attributes.items():
            attribute = next(each for each in model.graph.node[place].attribute if each.name == name)
            _set_integers(attribute, _at(numbers, widths))
        for name, array in self.arrays.items():
            if name in self.axes:
                array = array[tuple(slice(length) for length in _at(self.axes[name], widths))]
            if name in self.values:
                array = np.array(_at(self.values[name], widths), array.dtype).reshape(array.shape)
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        onnx.save_model(model, path)


def make_template(prunable: Prunable, sizes: Observations, setting: LatencySetting) -> OnnxTemplate:
    """Export the model at each observation's widths, and trace the differences back to the widths.

    Raises:
        LatencyError: the model cannot be exported, or the nodes of the exported graph depend on the widths.
    """
    import onnx

    files = []
    with tempfile.TemporaryDirectory(prefix="autoprune-") as folder:
        path = Path(folder) / "model.onnx"
        for widths in sizes.widths:
            model = narrowed(prunable, widths)
            export_for_timing(model, prunable.example_inputs, setting, path, free_batch=True)
            files.append(onnx.load_model(path))
    name = type(prunable.model).__name__
    _require_one_graph(files, name)
    nodes = [list(file.graph.node) for file in files]
    dense = files[0]
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in dense.graph.initializer}
    template = OnnxTemplate(
        graph=dense,
        arrays=arrays,
        axes=dict(_moving(name, sizes, [_dimensions(file) for file in files])),
        values=dict(_moving(name, sizes, [_constants(file) for file in files])),
        attributes=dict(_moving(name, sizes, [_attributes(each) for each in nodes])),
        nodes=tuple(node.name for node in nodes[0]),
        outputs={output: node.name for node in nodes[0] for output in node.output},
        calls=tuple(tuple(_calls(file)) for file in files),
    )
    del dense.graph.initializer[:]
    del dense.graph.value_info[:]
    return template


def _at(numbers: Sequence[Size | int], widths: IntArray) -> list[int]:
    return [int(number.at(widths)) if isinstance(number, Size) else number for number in numbers]


def _set_integers(attribute: Any, integers: Sequence[int]) -> None:
    if attribute.ints:
        attribute.ints[:] = integers
    else:
        attribute.i = integers[0]


def _require_one_graph(files: Sequence[Any], name: str) -> None:
    def structure(file: Any) -> list[tuple[object, ...]]:
        nodes = file.graph.node
        return [(node.op_type, node.name, tuple(node.input), tuple(node.output)) for node in nodes]

    dense = structure(files[0])
    if any(structure(file) != dense for file in files[1:]):
        raise LatencyError(
            f"{name}: the nodes of its ONNX file depend on the widths of its layers. Freeze the layers that "
            'decide this, or use another latency.probe such as "eager".'
        )


def _moving(
    model: str, sizes: Observations, seen: Sequence[Mapping[Any, tuple[int, ...]]]
) -> Iterator[tuple[Any, tuple[Size | int, ...]]]:
    """Iterate over the places whose numbers differ among the files, with the sizes that they hold."""
    for place, dense in seen[0].items():
        rows = [each[place] for each in seen]
        if all(row == dense for row in rows):
            continue
        numbers = tuple(sizes.find(values) for values in zip(*rows, strict=True))
        if any(number is None for number in numbers):
            raise LatencyError(
                f"{model}: {place} in its ONNX file is {list(dense)} in the dense model, and no size of the "
                "model explains its value in a narrowed one. Freeze the layer, or use another latency.probe "
                'such as "eager".'
            )
        yield place, tuple(number for number in numbers if number is not None)


def _dimensions(file: Any) -> dict[str, tuple[int, ...]]:
    return {each.name: tuple(each.dims) for each in file.graph.initializer}


def _constants(file: Any) -> dict[str, tuple[int, ...]]:
    """Return the values of small integer initialisers: the shapes of reshapes, the positions of slices."""
    import onnx

    small = (
        each
        for each in file.graph.initializer
        if each.data_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
        and int(np.prod(each.dims)) <= _LONGEST_CONSTANT
    )
    return {each.name: tuple(onnx.numpy_helper.to_array(each).ravel().tolist()) for each in small}


def _attributes(nodes: Sequence[Any]) -> dict[tuple[int, str], tuple[int, ...]]:
    return {
        (place, attribute.name): _integers(attribute)
        for place, node in enumerate(nodes)
        for attribute in node.attribute
    }


def _integers(attribute: Any) -> tuple[int, ...]:
    return tuple(attribute.ints) or ((attribute.i,) if attribute.type == attribute.INT else ())


def _calls(file: Any) -> Iterator[Call]:
    """Iterate over the nodes as calls, with 1 for dimensions that are free in the file."""
    graph = file.graph
    shapes = _dimensions(file)
    for info in (*graph.input, *graph.value_info, *graph.output):
        shapes[info.name] = tuple(axis.dim_value or 1 for axis in info.type.tensor_type.shape.dim)
    weights = _dimensions(file)
    for node in graph.node:
        names = [name for name in (*node.input, *node.output) if name in shapes]
        integers = [(each.name, _integers(each)) for each in node.attribute]
        ranks = [len(shapes[name]) for name in names]
        yield Call(
            kind=f"{node.op_type} {ranks} {[(name, len(values)) for name, values in integers]}",
            shapes=tuple(shapes[name] for name in names),
            integers=tuple(number for _, values in integers for number in values),
            weights={
                place: _weight_name(name, node)
                for place, name in enumerate(names)
                if len(weights.get(name, ())) > 1
            },
        )


def _weight_name(name: str, node: Any) -> str:
    """Return the name of a weight. The exporter calls a transposed one "val_7", so its layer names it."""
    scopes = next((each.value for each in node.metadata_props if each.key == _SCOPES), "")
    paths: list[str] = ast.literal_eval(scopes) if name.startswith("val_") and scopes else []
    return f"{paths[-2]}.weight" if len(paths) > 1 and paths[-2] else name
