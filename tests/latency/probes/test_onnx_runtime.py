from __future__ import annotations

from pathlib import Path

import onnxruntime  # type: ignore[import-untyped]  # the package ships no types
import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import LatencyError
from autoprune.latency import LatencySetting
from autoprune.latency.probes.onnx_runtime import (
    export_for_timing,
    onnx_runtime,
    open_session,
    session_timed,
)

IMAGES = torch.zeros(1, 3, 8, 8)
HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


@pytest.mark.parametrize(("free", "batch"), [(True, None), (False, 5)])
def test_the_file_takes_any_batch_or_the_one_of_the_setting(
    tmp_path: Path, free: bool, batch: int | None
) -> None:
    path = tmp_path / "net.onnx"
    setting = LatencySetting("onnx", batch=5)
    export_for_timing(nn.Conv2d(3, 4, 3), IMAGES, setting, path, free_batch=free)
    session = open_session(path, setting)
    size, *rest = session.get_inputs()[0].shape
    assert rest == [3, 8, 8]
    assert size == batch if batch else isinstance(size, str)


def test_half_precision_is_exported_and_runs(tmp_path: Path) -> None:
    setting = LatencySetting("onnx", dtype="float16")
    export_for_timing(nn.Conv2d(3, 4, 3), IMAGES, setting, tmp_path / "net.onnx", free_batch=True)
    assert open_session(tmp_path / "net.onnx", setting).get_inputs()[0].type == "tensor(float16)"
    with onnx_runtime(nn.Conv2d(3, 4, 3), IMAGES, setting) as timed:
        assert timed() > 0


class Untraceable(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images if images.sum() > 0 else -images


def test_what_cannot_be_timed_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(LatencyError, match=r'latency\.probe = "onnx": Untraceable cannot be exported to ONNX'),
        onnx_runtime(Untraceable(), IMAGES, LatencySetting("onnx")),
    ):
        pass
    (tmp_path / "bad.onnx").write_text("no model")
    with pytest.raises(LatencyError, match=r"bad\.onnx: ONNX Runtime cannot open it"):
        open_session(tmp_path / "bad.onnx", LatencySetting("onnx"))


@pytest.mark.parametrize("inputs", [(IMAGES, IMAGES), (torch.zeros(1, 5, 8, 8),), (IMAGES.bfloat16(),)])
def test_inputs_that_do_not_fit_are_named(tmp_path: Path, inputs: tuple[Tensor, ...]) -> None:
    path, setting = tmp_path / "net.onnx", LatencySetting("onnx")
    export_for_timing(nn.Conv2d(3, 4, 3), IMAGES, setting, path, free_batch=True)
    with pytest.raises(LatencyError, match=r"net\.onnx does not run in ONNX Runtime: ."):
        session_timed(open_session(path, setting), inputs, setting, "net.onnx")


@pytest.mark.skipif(HAS_CUDA, reason="this onnxruntime has CUDA")
def test_a_provider_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(LatencyError, match=r'got "cuda", but this onnxruntime has no CUDAExecutionProvider'):
        open_session(tmp_path / "any.onnx", LatencySetting("onnx", device="cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_CUDA, reason="needs onnxruntime with CUDA")
def test_cuda_runs_on_the_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    with onnx_runtime(nn.Conv2d(3, 4, 3), IMAGES, LatencySetting("onnx", device="cuda")) as timed:
        assert all(timed() > 0 for _ in range(3))
