"""The table MODELS: every vision model of the coverage experiment, with its input.

`checks` measures its rows, `run` walks over them. A model joins by one row:

    MODELS["resnet18"].build()      # the dense model with random weights
    MODELS["resnet18"].shape        # (1, 3, 64, 64)

Images are as small as the model accepts, because the proofs run in float64. Models of more than about 150
million parameters lie on the meta device: they are traced, counted, rebuilt and run for their shapes.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torchvision  # type: ignore[import-untyped]  # ships no types
from torch import Tensor, nn
from torchvision import models as vision
from torchvision.models.regnet import BlockParams, RegNet  # type: ignore[import-untyped]  # as above

SIZE = 64
"""Height and width of the example image if the model has no other size."""

STEP = 32
"""By how much the other image, tried where the dense model accepts it, is larger."""


@dataclass(frozen=True)
class Entry:
    """One model of the table.

    Attributes:
        family: the order of the table ("resnet", "segmentation").
        library: the source of the model ("torchvision", "timm").
        make: returns the dense model with random weights.
        shape: of the example input, at batch 1.
        meta: whether its tensors have no data, so that nothing is proved on it.
    """

    family: str
    library: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    meta: bool = False

    @property
    def other(self) -> tuple[int, ...]:
        """The shape of a larger image."""
        return (*self.shape[:-2], self.shape[-2] + STEP, self.shape[-1] + STEP)

    def build(self) -> nn.Module:
        """Make the model. Random states of torch go on from where they are."""
        if not self.meta:
            return self.make()
        with torch.device("meta"):
            return self.make()

    def inputs(self, batch: int, shape: tuple[int, ...] | None = None) -> Tensor:
        """Return random images of the entry's shape, or of another."""
        return torch.randn(batch, *(shape or self.shape)[1:], device="meta" if self.meta else "cpu")


_SIZES = {"inception_v3": 299, "inception_v3_without_aux": 96, "maxvit_t": 224}
"""Where 64 pixels are too few: an auxiliary head or a fixed grid of windows."""

_VITS = ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14")
"""Models that take the image size when they are made. 70 pixels are whole patches of 14."""

_META = ("vit_h_14", "vit_l_16", "vit_l_32", "regnet_y_128gf", "convnext_large")

_FAMILIES = ("wide_resnet", "resnext", "resnet", "vgg", "densenet", "shufflenet", "mobilenet", "mnasnet")
"""A family is the first of these that the name starts with, or the name up to its first underscore."""


def _regnet_y_128gf() -> nn.Module:
    """Make it as torchvision does, which computes its widths with tensors. On meta these have no data."""
    with torch.device("cpu"):
        widths = BlockParams.from_init_params(
            depth=27, w_0=456, w_a=160.83, w_m=2.52, group_width=264, se_ratio=0.25
        )
    model: nn.Module = RegNet(widths, norm_layer=functools.partial(nn.BatchNorm2d, eps=1e-5, momentum=0.1))
    return model


_MADE = {"regnet_y_128gf": _regnet_y_128gf}


def _torchvision() -> dict[str, Entry]:
    entries = {}
    for name in torchvision.models.list_models(module=torchvision.models):
        # The truncated normal initialisation of these two takes minutes.
        options: dict[str, object] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        size = _SIZES.get(name, SIZE)
        if name in _VITS:
            size = 70 if name == "vit_h_14" else 64
            options["image_size"] = size
        entries[name] = _vision_entry(_family(name), name, size, options)
    for name in ("googlenet", "inception_v3"):
        bare = f"{name}_without_aux"
        options = {"init_weights": False, "aux_logits": False}
        entries[bare] = _vision_entry(_family(name), name, _SIZES.get(bare, SIZE), options)
    return entries


def _family(name: str) -> str:
    return next((family for family in _FAMILIES if name.startswith(family)), name.partition("_")[0])


def _vision_entry(family: str, name: str, size: int, options: Mapping[str, object]) -> Entry:
    make = functools.partial(vision.get_model, name, weights=None, **options)
    return Entry(family, "torchvision", _MADE.get(name, make), (1, 3, size, size), name in _META)


def _segmentation() -> dict[str, Entry]:
    names = vision.list_models(module=vision.segmentation)
    entries = {
        f"segmentation/{name}": _vision_entry("segmentation", name, SIZE, {"weights_backbone": None})
        for name in names
    }
    options = {"weights_backbone": None, "aux_loss": True}
    entries["segmentation/fcn_resnet50_with_aux"] = _vision_entry(
        "segmentation", "fcn_resnet50", SIZE, options
    )
    return entries


def _backbone(name: str) -> nn.Module:
    model = vision.get_model(name, weights=None, weights_backbone=None)
    backbone: nn.Module = model.backbone
    return backbone


def _detection() -> dict[str, Entry]:
    """Return the backbones. Those of fasterrcnn serve maskrcnn and keypointrcnn too."""
    sizes = {"ssd300_vgg16": 300}  # smaller ones leave nothing to its last convolutions
    same = (
        *("maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2", "keypointrcnn_resnet50_fpn"),
        "fasterrcnn_mobilenet_v3_large_320_fpn",
    )
    entries = {}
    for name in vision.list_models(module=vision.detection):
        if name not in same:
            size = sizes.get(name, 2 * SIZE)
            make = functools.partial(_backbone, name)
            entries[f"detection/{name}"] = Entry("detection", "torchvision", make, (1, 3, size, size))
    return entries


def _video() -> dict[str, Entry]:
    shapes = {"s3d": (1, 3, 16, 224, 224)}  # its last pooling takes 2 x 7 x 7 positions
    return {
        f"video/{name}": Entry(
            "video",
            "torchvision",
            functools.partial(vision.get_model, name, weights=None),
            shapes.get(name, (1, 3, 8, SIZE, SIZE)),
        )
        for name in ("r3d_18", "mc3_18", "r2plus1d_18", "s3d")
    }


def _timm_model(name: str, **options: object) -> nn.Module:
    # By name, so that the table can be read if timm is not installed.
    model: nn.Module = importlib.import_module("timm").create_model(name, pretrained=False, **options)
    return model


_TIMM_FREE = {
    "resnet": "resnet10t resnet18d seresnet18 ecaresnet26t skresnet18 resnetblur18 resnetaa34d "
    "lambda_resnet26t resnetv2_18 resnetv2_50x1_bit resnest14d res2net50_14w_8s legacy_seresnet18",
    "resnext": "gcresnext26ts seresnext26d_32x4d eca_resnext26ts res2next50",
    "selecsls": "selecsls42",
    "ghostnet": "ghostnet_050 ghostnetv2_100 ghostnetv3_050 repghostnet_050",
    "hrnet": "hrnet_w18_small",
    "dla": "dla34 dla46x_c dla60_res2net",
    "cspnet": "cspresnet50 cs3darknet_s",
    "darknet": "darknet17",
    "vovnet": "vovnet39a ese_vovnet19b_slim",
    "dpn": "dpn48b",
    "xception": "legacy_xception xception41",
    "nfnet": "nfnet_l0 nf_resnet26 nf_regnet_b0",
    "mobilenet": "mobilenetv2_035 mobilenetv3_small_050 mobilenetv4_conv_small mobilenetv4_hybrid_medium",
    "mobileone": "mobileone_s0",
    "repvgg": "repvgg_a0",
    "efficientvit": "efficientvit_b0 efficientvit_m0",
    "fastvit": "fastvit_t8",
    "metaformer": "poolformer_s12 poolformerv2_s12 caformer_s18 convformer_s18",
    "convmixer": "convmixer_1024_20_ks9_p14",
    "pvt": "pvt_v2_b0",
    "twins": "twins_pcpvt_small twins_svt_small",
    "edgenext": "edgenext_xx_small",
    "tinynet": "tinynet_e",
    "regnet": "regnetz_005 regnetv_040",
    "crossvit": "crossvit_tiny_240",
    "xcit": "xcit_nano_12_p16_224",
    "convnext": "convnext_atto convnextv2_atto",
    "inception_next": "inception_next_atto",
    "mobilevit": "mobilevit_xxs mobilevitv2_050",
    "hgnet": "hgnet_tiny hgnetv2_b0",
    "repvit": "repvit_m0_9",
    "rexnet": "rexnet_100",
    "sequencer": "sequencer2d_s",
    "starnet": "starnet_s1",
    "tiny_vit": "tiny_vit_5m_224",
    "tresnet": "tresnet_m",
    "davit": "davit_tiny",
    "focalnet": "focalnet_tiny_srf",
    "lcnet": "lcnet_050",
    "mixnet": "mixnet_s",
    "nextvit": "nextvit_small",
    "mambaout": "mambaout_femto",
    "mvit": "mvitv2_tiny",
    "rdnet": "rdnet_tiny",
    "shvit": "shvit_s1",
    "swiftformer": "swiftformer_xs",
    "fasternet": "fasternet_t0",
    "gernet": "gernet_s",
    "densenet": "densenetblur121d",
    "csatv2": "csatv2",
}
"""{family: models of timm that accept images of 64 pixels as they are}."""

_TIMM_SIZED = {
    "botnet": "botnet26t_256",
    "mixer": "mixer_s32_224",
    "gmlp": "gmlp_ti16_224",
    "resmlp": "resmlp_12_224",
    "deit": "deit_tiny_patch16_224 deit_tiny_distilled_patch16_224 deit3_small_patch16_224",
    "cait": "cait_xxs24_224",
    "levit": "levit_128s levit_conv_128s",
    "coat": "coat_tiny coat_lite_tiny",
    "nest": "nest_tiny",
    "visformer": "visformer_tiny",
    "volo": "volo_d1_224",
    "tnt": "tnt_s_legacy_patch16_224",
    "pit": "pit_ti_224",
    "convit": "convit_tiny",
    "vit": "vit_tiny_patch16_224 vit_relpos_small_patch16_224",
    "eva": "eva02_tiny_patch14_224",
    "swin": "swin_s3_tiny_224 swinv2_cr_tiny_224",
    "maxvit": "maxvit_pico_rw_256 coatnet_pico_rw_224",
    "gcvit": "gcvit_xxtiny",
    "hiera": "hiera_tiny_224",
    "efficientformer": "efficientformerv2_s0",
    "vitamin": "vitamin_small_224",
}
"""{family: models of timm that are made for images of 64 pixels}."""

_TIMM_LARGE = {
    "halonet": ("halonet26t", 256),
    "efficientformer": ("efficientformer_l1", 224),
    "inception": ("inception_v4", 96),
}
"""{family: (model of timm, the smallest image that it accepts)}."""


def _timm() -> dict[str, Entry]:
    entries = {}
    for table, options in ((_TIMM_FREE, {}), (_TIMM_SIZED, {"img_size": SIZE})):
        for family, names in table.items():
            for name in names.split():
                entries[f"timm/{name}"] = _timm_entry(family, name, SIZE, options)
    for family, (name, size) in _TIMM_LARGE.items():
        entries[f"timm/{name}"] = _timm_entry(family, name, size, {})
    return entries


def _timm_entry(family: str, name: str, size: int, options: Mapping[str, object]) -> Entry:
    return Entry(family, "timm", functools.partial(_timm_model, name, **options), (1, 3, size, size))


MODELS: dict[str, Entry] = {**_torchvision(), **_segmentation(), **_detection(), **_video(), **_timm()}
"""{name: entry}. Names of other than torchvision's classifiers carry their kind before a slash."""
