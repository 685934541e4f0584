"""Patches: new values for the numbers of a module, such as `groups`, after its tensors were narrowed.

Each number follows from the shapes of the module's tensors by one rule of PATCH_RULES. Stale numbers fail, or
compute wrong results without an error. A saved model stores its patches, so that loading needs no trace.

    patches_for(conv, {"weight": (8, 1, 3, 3)})   # a depthwise convolution of 16 channels, cut to 8
    {"out_channels": 8, "groups": 8, "in_channels": 8}
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from autoprune.errors import PlanError
from autoprune.graph.capture import named_tensors
from autoprune.graph.orientation import keeps_groups

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""{local name of a parameter or buffer ("weight"): its new shape}."""

PatchRule: TypeAlias = Callable[[nn.Module, Shapes], object]
"""(module with its dense numbers, new shapes) -> the new number, or None if the shapes do not decide it."""

Rules: TypeAlias = Mapping[str, PatchRule]
"""{attribute: rule} for one class of modules."""


_UNTABLED = "_autoprune_numbers"
"""Attribute of a model that lists, as (module, attribute), its patched numbers outside PATCH_RULES."""


@dataclass(frozen=True)
class Patch:
    """A new value for one number of one module. `module` is its path, "" for the model itself."""

    module: str
    attribute: str
    value: object


def patches_for(module_old: nn.Module, shapes: Shapes, rules: Rules | None = None) -> dict[str, object]:
    """Compute the numbers of one module for new shapes of its tensors, without changing the module.

    Args:
        module_old: the dense module. Its number of heads and the size of its convolution groups stay.
        shapes: {local name: new shape} of the module's own parameters and buffers. A number that follows
            from a missing tensor (a norm without scale) is left out of the result.
        rules: `rules_of(type(module_old))`, if the caller already has it.

    Returns:
        {attribute: value} for every number in PATCH_RULES that the shapes determine, changed or not.

    Raises:
        PlanError: if a grouped convolution loses part of a group, or heads do not divide their embedding.
    """
    values: dict[str, object] = {}
    for attribute, rule in (rules_of(type(module_old)) if rules is None else rules).items():
        if hasattr(module_old, attribute) and (value := rule(module_old, shapes)) is not None:
            values[attribute] = value
    return values


def rules_of(cls: type[nn.Module]) -> dict[str, PatchRule]:
    """Return {attribute: rule} for a class. If several of its bases have a row, the most derived one wins."""
    rules: dict[str, PatchRule] = {}
    for base in cls.__mro__:  # from the most derived class to the least, and setdefault keeps the first rule
        names = (base, f"{base.__module__}.{base.__qualname__}")
        for (owner, attribute), rule in PATCH_RULES.items():
            if owner in names:
                rules.setdefault(attribute, rule)
    return rules


def read_patches(model: nn.Module) -> list[Patch]:
    """Return the current value of every number that a rebuild may have patched.

    The numbers of PATCH_RULES come first, in the order of `named_modules`. Then come the other numbers that
    `apply_patches` has set.
    """
    tabled = [
        Patch(path, attribute, getattr(module, attribute))
        for path, module in model.named_modules()
        for attribute in rules_of(type(module))
        if hasattr(module, attribute)
    ]
    untabled: tuple[tuple[str, str], ...] = model.__dict__.get(_UNTABLED, ())
    return tabled + [
        Patch(path, attribute, getattr(model.get_submodule(path), attribute)) for path, attribute in untabled
    ]


def apply_patches(model: nn.Module, patches: Iterable[Patch]) -> None:
    """Set the patched numbers on `model`, in place.

    A list, as JSON files hold it, takes the type of the old value. The model records the numbers that are
    outside PATCH_RULES, so that `read_patches` finds them.

    Raises:
        PlanError: if a module or attribute does not exist, or a value has another type than the old one. No
            number is set then.
    """
    patches = list(patches)
    checked = [_checked(model, patch) for patch in patches]  # all of them before the first one is set
    for module, attribute, value in checked:
        setattr(module, attribute, value)
    untabled = [
        (patch.module, patch.attribute)
        for patch, (module, _, _) in zip(patches, checked, strict=True)
        if patch.attribute not in rules_of(type(module))
    ]
    if untabled:
        model.__dict__[_UNTABLED] = tuple(untabled)


def require_written(
    model: nn.Module, patches: Iterable[Patch], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse patches that no rebuild of `model` writes.

    A number in PATCH_RULES must have the value that follows from the shapes. It may be missing if that is the
    dense value. Any other number must belong to a user's own module (see `Follower`) and must not grow.

    Args:
        model: the dense model.
        patches: all patches of the small model.
        shapes: {full name: shape} of all parameters and buffers of the small model.

    Raises:
        PlanError: naming the first wrong patch.
    """
    given: dict[tuple[str, str], Patch] = {}
    for patch in patches:
        if given.setdefault((patch.module, patch.attribute), patch) is not patch:
            raise PlanError(f"{_named(patch)}: given twice.")
    for path, module in model.named_modules():
        for attribute, value in _written_numbers(path, module, shapes).items():
            dense = Patch(path, attribute, getattr(module, attribute))
            patch = given.pop((path, attribute), dense)
            if repr(_plain(patch.value)) != repr(_plain(value)):
                raise PlanError(
                    f"{_named(patch)}: expected {_plain(value)!r}, which follows from the tensors."
                )
    for patch in given.values():
        module, attribute, value = _checked(model, patch)
        if not (_is_own(module, attribute) and _shrinks(getattr(module, attribute), value)):
            raise PlanError(f"{_named(patch)}: no rebuild writes it. {_dense_value(module, attribute)}.")


def _written_numbers(
    path: str, module: nn.Module, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, object]:
    """Return the numbers of a module in PATCH_RULES after a rebuild that gives its tensors these shapes."""
    prefix = f"{path}." if path else ""
    own = {
        name: tuple(tensor.shape)
        for name, tensor in named_tensors(module, shared=True)
        if "." not in name or name.startswith("parametrizations.")
    }
    small = {name: shapes.get(prefix + name, shape) for name, shape in own.items()}
    numbers = {name: getattr(module, name) for name in rules_of(type(module)) if hasattr(module, name)}
    return numbers if small == own else {**numbers, **patches_for(module, small)}


def _is_own(module: nn.Module, attribute: str) -> bool:
    """Return whether a number belongs to a user's own code. A stride or a padding belongs to torch."""
    if isinstance(module, nn.Unflatten):
        return attribute == "unflattened_size"
    bases = [base for base in type(module).__mro__[:-1] if base.__module__.startswith("torch.nn.")]
    theirs = {name for base in bases for name in (*getattr(base, "__constants__", ()), *base.__annotations__)}
    return type(module) not in bases and attribute not in theirs


def _shrinks(dense: object, value: object) -> bool:
    """Return whether every number is unchanged, or an integer from 1 to the dense one."""
    if isinstance(dense, tuple | list) and isinstance(value, tuple | list):
        return len(dense) == len(value) and all(map(_shrinks, dense, value))
    are_integers = type(dense) is int and type(value) is int
    return are_integers and (value == dense or 1 <= value < dense)  # type: ignore[operator]  # both are int


def _dense_value(module: nn.Module, attribute: str) -> str:
    return f"{type(module).__name__} has {_plain(getattr(module, attribute))!r}"


def _plain(value: object) -> object:
    """Return a value as JSON stores it, with lists instead of tuples."""
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _named(patch: Patch) -> str:
    return f"Patch {patch.module or '(model)'}.{patch.attribute} = {patch.value!r}"


def _checked(model: nn.Module, patch: Patch) -> tuple[nn.Module, str, object]:
    """Return the module, the attribute and the value in the type of the old one."""
    where = _named(patch)
    try:
        module = model.get_submodule(patch.module)
    except AttributeError:
        raise PlanError(
            f"{where}: the model has no such module. Pass the architecture that was pruned."
        ) from None
    old = getattr(module, patch.attribute, None)
    if not _is_number(old):
        raise PlanError(
            f"{where}: {type(module).__name__} has no number of that name. "
            "Pass the architecture that was pruned."
        )
    value = patch.value
    if isinstance(old, tuple | list) and isinstance(value, tuple | list):
        value = type(old)(value)
    if not _is_number(value) or type(value) is not type(old):
        raise PlanError(f"{where}: expected a value like the old one, {old!r}.")
    return module, patch.attribute, value


def _is_number(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_number(item) for item in value)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shape(shapes: Shapes, name: str) -> tuple[int, ...] | None:
    """Return the shape of a tensor, which weight norm or spectral norm may store under another name."""
    if name in shapes:
        return tuple(shapes[name])
    parametrized = f"parametrizations.{name}.original"
    for stored in (f"{parametrized}1", parametrized, f"{name}_orig", f"{name}_v"):
        if stored in shapes:
            return tuple(shapes[stored])
    return None


def _axis(axis: int, *names: str) -> PatchRule:
    """Make a rule that returns the size along `axis` of the first of these tensors that the module has."""

    def rule(module: nn.Module, shapes: Shapes) -> int | None:
        found = (_shape(shapes, name) for name in names)
        return next((shape[axis] for shape in found if shape is not None), None)

    return rule


def _whole_shape(module: nn.Module, shapes: Shapes) -> tuple[int, ...] | None:
    return _shape(shapes, "weight")


def _conv_groups(module: nn.Module, shapes: Shapes) -> int | None:
    """Return the number of groups left: all of them, or as many as axis 0 of the weight still holds.

    Axis 0 holds the output channels, or the input channels if the convolution is transposed.
    """
    shape = _shape(shapes, "weight")
    if shape is None or not isinstance(module, _ConvNd):
        return None
    groups = module.groups
    channels = module.in_channels if isinstance(module, _ConvTransposeNd) else module.out_channels
    all_stay = groups == 1 or keeps_groups(groups, module.in_channels // groups)
    step = groups if all_stay else channels // groups
    if shape[0] % step:
        expected = "the same number in each group" if all_stay else "a whole number of groups"
        raise PlanError(
            f"{type(module).__name__} with {groups} groups of {channels // groups} channels: {shape[0]} "
            f"channels are not {expected}. Keep a multiple of {step}."
        )
    return groups if all_stay else shape[0] // step


def _conv_across_groups(module: nn.Module, shapes: Shapes) -> int | None:
    """Return the channels of all groups left: axis 1 of the weight holds those of one group."""
    shape, groups = _shape(shapes, "weight"), _conv_groups(module, shapes)
    return None if shape is None or groups is None else shape[1] * groups


def _head_dim(module: nn.Module, shapes: Shapes) -> int | None:
    """Return the embedding width divided by the number of heads, which stays."""
    shape = _shape(shapes, "in_proj_weight") or _shape(shapes, "q_proj_weight")
    if shape is None or not isinstance(module, nn.MultiheadAttention):
        return None
    if shape[1] % module.num_heads:
        raise PlanError(
            f"MultiheadAttention: an embedding of {shape[1]} does not divide by its "
            f"{module.num_heads} heads. Keep a multiple of {module.num_heads}."
        )
    return int(shape[1] // module.num_heads)


PATCH_RULES: dict[tuple[type | str, str], PatchRule] = {
    (_ConvNd, "out_channels"): _axis(0, "weight"),
    (_ConvNd, "groups"): _conv_groups,
    (_ConvNd, "in_channels"): _conv_across_groups,
    (_ConvTransposeNd, "in_channels"): _axis(0, "weight"),
    (_ConvTransposeNd, "out_channels"): _conv_across_groups,
    (nn.Linear, "out_features"): _axis(0, "weight"),
    (nn.Linear, "in_features"): _axis(1, "weight"),
    (nn.Bilinear, "out_features"): _axis(0, "weight"),
    (nn.Bilinear, "in1_features"): _axis(1, "weight"),
    (nn.Bilinear, "in2_features"): _axis(2, "weight"),
    (_NormBase, "num_features"): _axis(0, "weight", "running_mean"),
    (nn.GroupNorm, "num_channels"): _axis(0, "weight"),
    (nn.LayerNorm, "normalized_shape"): _whole_shape,
    (nn.RMSNorm, "normalized_shape"): _whole_shape,
    (nn.PReLU, "num_parameters"): _axis(0, "weight"),
    (nn.Embedding, "embedding_dim"): _axis(1, "weight"),
    (nn.EmbeddingBag, "embedding_dim"): _axis(1, "weight"),
    (nn.RNNBase, "input_size"): _axis(1, "weight_ih_l0"),
    (nn.RNNCellBase, "input_size"): _axis(1, "weight_ih"),
    (nn.MultiheadAttention, "embed_dim"): _axis(1, "in_proj_weight", "q_proj_weight"),
    (nn.MultiheadAttention, "kdim"): _axis(1, "in_proj_weight", "k_proj_weight"),
    (nn.MultiheadAttention, "vdim"): _axis(1, "in_proj_weight", "v_proj_weight"),
    (nn.MultiheadAttention, "head_dim"): _head_dim,
    ("timm.layers.blur_pool.BlurPool2d", "channels"): _axis(0, "filt"),
    ("torchvision.models.vision_transformer.VisionTransformer", "hidden_dim"): _axis(2, "class_token"),
}
"""{(module class, attribute): rule}. Subclasses inherit the rows of their bases.

The qualified name of a class replaces a class whose library is optional. `_ConvNd` is the base of all
convolutions, `_NormBase` that of BatchNorm, SyncBatchNorm and InstanceNorm. To add a module, add one row:
`PATCH_RULES[MyNorm, "dim"] = my_rule`.
"""
