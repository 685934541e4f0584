from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import LatencyError
from autoprune.latency import LatencySetting, side_by_side
from autoprune.latency.probes.eager import eager, eager_timed
from tests.latency.nets import Sees


def test_a_run_is_one_forward_of_the_batch_in_inference_mode_on_the_threads_that_were_set() -> None:
    model = Sees()
    setting = LatencySetting(batch=4, threads=2)
    with eager(model, torch.zeros(1, 3, 8, 8), setting) as timed:
        seen = []
        handle = nn.modules.module.register_module_forward_pre_hook(
            lambda module, inputs: (
                seen.append(
                    (
                        module.training,
                        torch.is_inference_mode_enabled(),
                        torch.get_num_threads(),
                        inputs[0].shape,
                    )
                )
                if isinstance(module, Sees)
                else None
            )
        )
        try:
            timed()
            torch.set_num_threads(1)  # as another model's turn may leave them
            timed()
        finally:
            handle.remove()
    assert seen == [(False, True, 2, (4, 3, 8, 8))] * 2
    assert model.seen == []


class OnlyFloat32(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        if images.dtype != torch.float32:
            raise RuntimeError("no kernel here\nand a long story")
        return images


def test_a_model_that_does_not_run_is_named() -> None:
    with (
        pytest.raises(
            LatencyError,
            match=r'OnlyFloat32 does not run under latency\.probe = "eager" on cpu in bfloat16: no k',
        ),
        eager(OnlyFloat32(), torch.zeros(1, 3), LatencySetting(dtype="bfloat16")),
    ):
        pass


class Waits(nn.Module):
    """A forward pass that waits for the GPU, which no CUDA graph can hold."""

    def forward(self, images: Tensor) -> Tensor:
        return images * float(images.sum())


@pytest.mark.gpu
@pytest.mark.parametrize(("model", "captured"), [(nn.Conv2d(3, 64, 3), True), (Waits(), False)])
def test_cuda_times_graphs_if_they_capture(
    model: nn.Module, captured: bool, caplog: pytest.LogCaptureFixture
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    caplog.set_level(logging.INFO, "autoprune.latency.probes.eager")
    with eager(model, torch.zeros(1, 3, 32, 32), LatencySetting(device="cuda", batch=8)) as timed:
        assert all(0 < timed() < 1000 for _ in range(5))
    assert ("cannot be captured" in caplog.text) is not captured


@pytest.mark.gpu
@pytest.mark.parametrize("captured", [True, False])
def test_cuda_inputs_live_as_long_as_what_reads_them_and_the_stream_is_put_back(captured: bool) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    model = nn.Conv2d(3, 8, 3).cuda() if captured else Waits()
    images = torch.zeros(2, 3, 16, 16, device="cuda")
    alive, stream = weakref.ref(images), torch.cuda.current_stream()

    def passing(images: Tensor) -> Callable[[], object]:
        return lambda: model(images)

    timed = eager_timed(passing(images), LatencySetting(device="cuda"))
    del images
    gc.collect()
    assert alive() is not None
    assert timed() > 0
    assert torch.cuda.current_stream() == stream
    del timed
    gc.collect()
    assert alive() is None


@pytest.mark.gpu
def test_cuda_more_work_takes_longer() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    small, dense = (nn.Sequential(nn.Conv2d(3, width, 3), nn.Conv2d(width, width, 3)) for width in (64, 1024))
    setting = LatencySetting(device="cuda", batch=16)
    with side_by_side(dense, torch.zeros(1, 3, 64, 64), setting, limit_seconds=3) as measure:
        measured, _, ratio = measure(small)
    assert ratio.interval[1] < 1
    assert measured.median_ms > 0
