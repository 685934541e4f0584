"""Training steps a second: number formats, layouts, CUDA graphs, torch.compile, and what pays for a trial.

    python -m experiments.gpu.training [--device cuda] [--tiny]

"trainer" is the package's own loop. All other modes are a bare loop of the same step. The first step of a
mode is apart: it holds compilation, capture and the choice of kernels. `pays_after_steps` is the number of
steps after which a mode has made up for it, against the eager step in the same format and layout. Trials
differ in their shapes, so the modes that compile or capture are measured on a net with half of its channels
too, in the same process, whose caches hold the compiled code of the dense net.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from autoprune.criteria import make_plan
from autoprune.execution import Setting
from autoprune.rebuilding import rebuild
from autoprune.tracing import trace
from autoprune.training import Schedule, Task, Trainer
from experiments.gpu.common import Bench, bench_of, net_of

STEPS, WARM_UP = 60, 5
COLUMNS = (
    *("first_s", "ms_per_step", "steps_per_s", "images_per_s", "peak_mib", "pays_after_steps", "loss"),
    "failure",
)
Images = tuple[Tensor, Tensor]
"""Images and labels."""

Step = Callable[[], Tensor]
"""Does one training step and returns its loss."""


@dataclass(frozen=True)
class Case:
    """A net, its batch size and its image size."""

    net: str
    batch: int


@dataclass(frozen=True)
class Mode:
    """How a step runs.

    Attributes:
        kind: "eager", "trainer", "graph" or a mode of torch.compile.
        dtype: "float32", "bfloat16" or "float16".
        channels_last: whether images and weights are in this layout.
        tf32: whether float32 products may use TF32.
    """

    kind: str
    dtype: str
    channels_last: bool = False
    tf32: bool = True

    @property
    def columns(self) -> dict[str, object]:
        """What a row says of the mode."""
        return {
            "mode": self.kind,
            "dtype": self.dtype if self.tf32 or self.dtype != "float32" else "float32 without TF32",
            "layout": "channels_last" if self.channels_last else "contiguous",
        }


CASES = (Case("autoprune/resnet20", 128), Case("resnet50", 64))
EAGER = (
    Mode("eager", "float32", tf32=False),
    *(Mode("eager", dtype, last) for dtype in ("float32", "bfloat16", "float16") for last in (False, True)),
    Mode("trainer", "bfloat16", channels_last=True),
    Mode("trainer", "float16", channels_last=True),
)
GRAPHS = tuple(Mode("graph", dtype, channels_last=True) for dtype in ("float32", "bfloat16"))
COMPILED = tuple(Mode(kind, "bfloat16", True) for kind in ("compile", "compile reduce-overhead"))
MODES = (EAGER, GRAPHS, COMPILED)
TINY = (
    (Mode("eager", "float32"), Mode("eager", "bfloat16", True), Mode("trainer", "bfloat16", True)),
    (Mode("graph", "float32"),),
    (Mode("compile", "float32"),),
)


def main() -> None:
    bench = bench_of("training")
    eager, graphs, compiled = TINY if bench.tiny else MODES
    nets = []
    for case in CASES[:1] if bench.tiny else CASES:
        model, example = net_of(case.net, tiny=bench.tiny)
        prunable = trace(model, example)
        half = rebuild(prunable, make_plan(prunable, 0.5))
        batch = batch_like(example, 8 if bench.tiny else case.batch)
        nets += [Net(case.net, "dense", model, batch), Net(case.net, "half", half, batch)]
    for net in nets:
        modes = eager if net.widths == "dense" else [mode for mode in eager if mode.kind == "eager"]
        measure(bench, net, (*modes, *graphs))
    for net in nets:  # these take longest, and come last
        measure(bench, net, compiled)


@dataclass(frozen=True, eq=False)
class Net:
    """A net to train.

    Attributes:
        name: its name.
        widths: "dense" or "half".
        model: the net, of which copies are trained.
        batch: the batch of all steps.
        eager_s: {(number format, whether channels_last): seconds of an eager step}, as they are measured.
    """

    name: str
    widths: str
    model: nn.Module
    batch: Images
    eager_s: dict[tuple[str, bool], float] = field(default_factory=dict)


def measure(bench: Bench, net: Net, modes: Sequence[Mode]) -> None:
    """Measure the modes of one net, the eager ones first, with which the others are compared."""
    for mode in modes:
        known = {"net": net.name, "widths": net.widths, "batch": len(net.batch[0]), **mode.columns}

        def work(mode: Mode = mode) -> dict[str, object]:
            with products(mode):
                return timed_steps(bench, mode, net)

        bench.attempt(known, COLUMNS, work)


def timed_steps(bench: Bench, mode: Mode, net: Net) -> dict[str, object]:
    """Time the steps of one mode on a copy of the net, and remember the seconds of an eager step."""
    bench.reset_peak()
    setting = Setting(bench.device, mode.dtype, mode.channels_last, torch.get_num_threads())
    # The very first use of a device sets up libraries, which no mode is charged for.
    torch.zeros(1, device=bench.device).add_(1)
    made: list[Step] = []
    losses: list[Tensor] = []

    def first() -> None:
        made.append(KINDS[mode.kind.split()[0]](mode, copy.deepcopy(net.model), setting, net.batch))
        losses.append(made[0]())

    first_s = bench.timed(first)
    steps = 3 if bench.tiny else STEPS
    for _ in range(1 if bench.tiny else WARM_UP):
        made[0]()
    one = bench.timed(lambda: [made[0]() for _ in range(steps)]) / steps
    key = (mode.dtype, mode.channels_last)
    if mode.kind == "eager" and mode.tf32:
        net.eager_s[key] = one
    gain = net.eager_s.get(key, 0.0) - one
    pays = gain > 0 and mode.kind not in ("eager", "trainer")
    return {
        "first_s": round(first_s, 2),
        "ms_per_step": round(1000 * one, 3),
        "steps_per_s": round(1 / one, 1),
        "images_per_s": round(len(net.batch[0]) / one),
        "peak_mib": bench.peak_mib(),
        "pays_after_steps": round(first_s / gain) if pays else "",
        "loss": round(float(losses[0]), 3),
    }


def eager(mode: Mode, model: nn.Module, setting: Setting, batch: Images) -> Step:
    """Return a bare step: forward in the format, backward, SGD with momentum."""
    model = setting.place(model).train()
    inputs, targets = setting.arrange(batch[0]), batch[1].to(setting.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, foreach=True)
    scaler = torch.amp.GradScaler(torch.device(setting.device).type, enabled=setting.scales_gradients)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with setting.autocast():
            loss = nn.functional.cross_entropy(model(inputs).float(), targets)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    return step


def trainer(mode: Mode, model: nn.Module, setting: Setting, batch: Images) -> Step:
    """Return a step of the package's trainer, which reads its loss once in 50 steps and here in each."""
    taught = Trainer(model, Schedule(steps=10**6), setting, Task(), total_steps=10**6)
    placed = (setting.arrange(batch[0]), batch[1].to(setting.device))
    return lambda: torch.tensor(taught.run(iter([placed]), 1))


def compiled(mode: Mode, model: nn.Module, setting: Setting, batch: Images) -> Step:
    """Return the bare step of a net that torch.compile compiles for its exact shapes."""
    options = {"mode": mode.kind.partition(" ")[2] or "default"}
    if not setting.device.startswith("cuda"):
        options = {"backend": "aot_eager"}  # a C++ compiler takes longer than a tiny run may
    model = setting.place(model)
    return eager(mode, torch.compile(model, dynamic=False, **options), setting, batch)  # type: ignore[call-overload]  # of the two kinds of options


def graph(mode: Mode, model: nn.Module, setting: Setting, batch: Images) -> Step:
    """Return the bare step as one CUDA graph. Its learning rate and its inputs stay those of the capture."""
    if not setting.device.startswith("cuda"):
        raise RuntimeError("CUDA graphs need a CUDA device")
    step = eager(mode, model, setting, batch)
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        loss = step()

    def replay() -> Tensor:
        captured.replay()
        return loss

    return replay


KINDS: dict[str, Callable[[Mode, nn.Module, Setting, Images], Step]] = {
    "eager": eager,
    "trainer": trainer,
    "graph": graph,
    "compile": compiled,
}


@contextlib.contextmanager
def products(mode: Mode) -> Iterator[None]:
    """Allow TF32 or not inside the block."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = mode.tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def batch_like(example: Tensor, size: int) -> Images:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(size, *example.shape[1:], generator=generator)
    return images, torch.randint(10, (size,), generator=generator)


if __name__ == "__main__":
    main()
