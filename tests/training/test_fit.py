"""Full trainings on digits: they learn, resume bit for bit, follow a teacher, fail in one line."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from autoprune.data import VisionData, load, seeded
from autoprune.errors import CheckpointError, TrialError
from autoprune.execution import Setting
from autoprune.training import EpochRecord, FitResult, Schedule, Task, Trainer, cross_entropy, fit
from autoprune.zoo import make_model
from tests.children import run_child

DATA = load("digits", batch_size=64)
SCHEDULE = Schedule(epochs=3, learning_rate=0.1, warmup=0.1, ema=0.9)
Trained = tuple[dict[str, Tensor], FitResult]
SETTINGS = [Setting(), Setting(dtype="bfloat16", channels_last=True)]


class InterruptedTrainingError(Exception):
    """Ends a training as Ctrl-C does."""


class Net(nn.Module):
    """BatchNorm's statistics and dropout's draws are part of what a resumed training must bring back."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(288, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.dropout(self.norm(self.conv(inputs)).relu()).flatten(1))
        return logits


def double_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return 2 * cross_entropy(outputs, targets)


def small_model() -> Net:
    with seeded(0):
        return Net()


def stop() -> None:
    raise InterruptedTrainingError


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run(
    checkpoint: Path | None,
    *,
    setting: Setting = SETTINGS[0],
    stop_after: int = 0,
    end: Callable[[], None] = stop,
) -> Trained:
    def on_epoch(record: EpochRecord) -> None:
        if record.epoch == stop_after:
            end()

    model = small_model()
    result = fit(model, DATA, SCHEDULE, setting, Task(), seed=4, on_epoch=on_epoch, checkpoint=checkpoint)
    return model.state_dict(), result


def assert_same(
    left: tuple[dict[str, Tensor], FitResult], right: tuple[dict[str, Tensor], FitResult]
) -> None:
    assert all(torch.equal(tensor, right[0][name]) for name, tensor in left[0].items())

    def strip(result: FitResult) -> list[EpochRecord]:
        return [dataclasses.replace(record, seconds=0) for record in result.records]

    assert strip(left[1]) == strip(right[1])


def test_learns_digits() -> None:
    with seeded(0):
        model = make_model("digits_resnet", 10, 1)
    seen: list[EpochRecord] = []
    schedule = Schedule(epochs=4, learning_rate=0.1, label_smoothing=0.05)
    result = fit(model, DATA, schedule, SETTINGS[1], Task(), seed=0, on_epoch=seen.append)
    assert result.score > 0.92  # one of 143 images is 0.007, and kernels of other CPUs round otherwise
    assert result.score == result.records[-1].score
    assert tuple(seen) == result.records
    assert [record.epoch for record in seen] == [1, 2, 3, 4]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.label)
def test_resumed_is_bit_identical(tmp_path: Path, setting: Setting) -> None:
    whole = run(None, setting=setting)
    with pytest.raises(InterruptedTrainingError):
        run(tmp_path / "state.pt", setting=setting, stop_after=1)
    torch.rand(17)  # a resumed process starts with other global states
    resumed = run(tmp_path / "state.pt", setting=setting)
    assert_same(whole, resumed)
    assert_same(whole, run(tmp_path / "state.pt", setting=setting))


def test_a_training_in_stages_is_bit_identical(tmp_path: Path) -> None:
    def train(until: int | None, checkpoint: Path | None) -> tuple[dict[str, Tensor], FitResult]:
        model = small_model()
        schedule = Schedule(epochs=2, ema=0.9)
        result = fit(model, DATA, schedule, SETTINGS[0], Task(), seed=4, checkpoint=checkpoint, until=until)
        return model.state_dict(), result

    whole, stage = train(None, None), train(1, tmp_path / "state.pt")
    assert [record.epoch for record in stage[1].records] == [1]
    assert_same(whole, train(2, tmp_path / "state.pt"))
    assert train(1, tmp_path / "state.pt")[1].records == train(2, tmp_path / "state.pt")[1].records


def test_a_rate_by_score_falls_with_the_epochs_and_after_a_resume(tmp_path: Path) -> None:
    schedule = Schedule(epochs=3, learning_rate=0.1, warmup=0.0, rate_by_score=((0.0, 0.02), (2.0, 0.001)))

    def train(stop_after: int) -> FitResult:
        def on_epoch(record: EpochRecord) -> None:
            if record.epoch == stop_after:
                raise InterruptedTrainingError

        state = tmp_path / "state.pt"
        return fit(
            small_model(), DATA, schedule, SETTINGS[0], Task(), seed=4, on_epoch=on_epoch, checkpoint=state
        )

    with pytest.raises(InterruptedTrainingError):
        train(2)
    assert [record.learning_rate for record in train(0).records] == [0.1, 0.02, 0.02]


def test_the_usual_checkpoint_goes_on_in_a_loop_of_torch(tmp_path: Path) -> None:
    model = small_model()
    fit(model, DATA, Schedule(epochs=2), SETTINGS[0], Task(), seed=4, pth=tmp_path / "last.pth")
    saved = torch.load(tmp_path / "last.pth", weights_only=True)
    assert saved["epoch"] == 2
    assert all(torch.equal(tensor, saved["state_dict"][name]) for name, tensor in model.state_dict().items())
    groups = [[each for each in model.parameters() if (each.ndim >= 2) == wide] for wide in (True, False)]
    optimizer = torch.optim.SGD([{"params": group} for group in groups], lr=0.1)
    optimizer.load_state_dict(saved["optimizer"])
    assert all("momentum_buffer" in state for state in optimizer.state.values())


def test_resumed_after_kill_9_is_bit_identical(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    assert run_child(begin_and_die, state, torch.get_num_threads(), cwd=tmp_path)[0] == -signal.SIGKILL
    assert state.exists()
    assert_same(run(None), run(state))


def begin_and_die(state: Path, threads: int) -> None:
    torch.set_num_threads(threads)
    run(state, stop_after=1, end=die)


def test_global_random_states_stay() -> None:
    torch.manual_seed(9)
    before = torch.get_rng_state()
    fit(small_model(), DATA, Schedule(steps=2), SETTINGS[0], Task(), seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_seed_decides() -> None:
    first, again, other = (small_model() for _ in range(3))
    for model, seed in ((first, 1), (again, 1), (other, 2)):
        fit(model, DATA, Schedule(steps=3), SETTINGS[0], Task(), seed=seed)
    assert torch.equal(first.fc.weight, again.fc.weight)
    assert not torch.equal(first.fc.weight, other.fc.weight)


def test_steps_may_end_within_an_epoch() -> None:
    """Each step but the last of its epoch is reported while the training goes on."""
    seen: list[tuple[int, int]] = []
    schedule, whole = Schedule(steps=len(DATA.train) + 2), len(DATA.train)
    result = fit(
        small_model(),
        DATA,
        schedule,
        SETTINGS[0],
        Task(),
        seed=0,
        on_step=lambda done, total: seen.append((done, total)),
    )
    assert seen == [*((step, whole) for step in range(1, whole)), (1, 2)]
    assert [record.steps for record in result.records] == [len(DATA.train), len(DATA.train) + 2]


def test_one_step_equals_plain_sgd() -> None:
    ours, plain = small_model(), small_model()
    ours.dropout.p = plain.dropout.p = 0.0
    schedule = Schedule(
        steps=2, learning_rate=0.1, momentum=0.9, weight_decay=0.0, warmup=0, schedule="constant"
    )
    trainer = Trainer(ours, schedule, SETTINGS[0], Task(), total_steps=2)
    trainer.run(DATA.train.batches(0, 0), 2)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    plain.train()
    for (inputs, targets), _ in zip(DATA.train.batches(0, 0), range(2), strict=False):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(plain(inputs), targets))
        optimizer.step()
    assert torch.allclose(ours.fc.weight, plain.fc.weight, atol=1e-7)


def test_another_trainings_state_is_refused_with_the_difference(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    fit(small_model(), DATA, Schedule(steps=1), SETTINGS[0], Task(), seed=0, checkpoint=path)
    with pytest.raises(CheckpointError, match=r"belongs to another training: seed was 0 and is now 1"):
        fit(small_model(), DATA, Schedule(steps=1), SETTINGS[0], Task(), seed=1, checkpoint=path)
    another = make_model("digits_resnet", 10, 1)
    with pytest.raises(CheckpointError, match=r"belongs to another training: model was"):
        fit(another, DATA, Schedule(steps=1), SETTINGS[0], Task(), seed=0, checkpoint=path)
    retrained = small_model()
    next(retrained.parameters()).data.mul_(1.01)
    with pytest.raises(CheckpointError, match=r"belongs to another training: model was"):
        fit(retrained, DATA, Schedule(steps=1), SETTINGS[0], Task(), seed=0, checkpoint=path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"it is corrupt\. Remove it"):
        fit(small_model(), DATA, Schedule(steps=1), SETTINGS[0], Task(), seed=0, checkpoint=path)


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "state.pt"
    with pytest.raises(CheckpointError, match=r"cannot be written"):
        fit(small_model(), DATA, Schedule(steps=1), SETTINGS[0], Task(), seed=0, checkpoint=path)


def test_divergence_is_a_failed_trial() -> None:
    schedule = Schedule(steps=200, learning_rate=1e30, warmup=0)
    with pytest.raises(TrialError, match=r"epoch \d+: diverged: the loss is (nan|inf) by step .* of 200"):
        fit(small_model(), DATA, schedule, SETTINGS[0], Task(), seed=0)


def test_a_teacher_alone_teaches_its_labels() -> None:
    with seeded(0):
        teacher, student = make_model("digits_resnet", 10, 1), make_model("digits_resnet", 10, 1)
    fit(teacher, DATA, Schedule(epochs=4), SETTINGS[0], Task(), seed=0)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    wrong_labels = Task(loss=lambda outputs, targets: (outputs * 0).sum())
    schedule = Schedule(epochs=4, distill_weight=1.0, temperature=2.0)
    result = fit(student, DATA, schedule, SETTINGS[0], wrong_labels, seed=0, teacher=teacher)
    assert result.score > 0.75  # ten classes: 0.1 by chance
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_step_does_not_wait_for_the_device() -> None:
    """Otherwise the CPU could not launch the next step while the device computes."""
    with seeded(0):
        teacher = make_model("digits_resnet", 10, 1).cuda().eval()
    schedule, setting = dataclasses.replace(SCHEDULE, ema=0.9), Setting("cuda", "bfloat16", True)
    trainer = Trainer(small_model(), schedule, setting, Task(), total_steps=9, teacher=teacher)
    batches = load("digits", batch_size=64, device="cuda").train.batches(0, 0)
    trainer.run(batches, 2)
    batch = next(batches)
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer._step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_average_of_weights_equals_its_recurrence() -> None:
    model = small_model()
    trainer = Trainer(model, dataclasses.replace(SCHEDULE, ema=0.15), SETTINGS[0], Task(), total_steps=9)
    batches = DATA.train.batches(0, 0)
    trainer.run(batches, 1)
    expected = model.fc.weight.detach().clone()
    for update in range(1, 4):
        trainer.run(batches, 1)
        decay = min(0.15, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * model.fc.weight.detach()
    averaged = trainer.result
    assert averaged is not model
    assert torch.allclose(averaged.get_parameter("fc.weight"), expected, atol=1e-6)
    counts = [dict(net.named_buffers())["norm.num_batches_tracked"] for net in (averaged, model)]
    assert int(counts[0]) == int(counts[1]) == 4


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_learns_on_cuda(dtype: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    data = load("digits", batch_size=64, device="cuda")
    setting = Setting(device="cuda", dtype=dtype, channels_last=True)
    model = make_model("digits_resnet", 10, 1)
    assert fit(model, data, Schedule(epochs=4), setting, Task(), seed=0).score > 0.9


@pytest.mark.parametrize(
    ("data", "task", "differs"),
    [
        (load("digits", batch_size=32), Task(), r"batches was \d+ an epoch.* and is now \d+ an epoch"),
        (load("digits", batch_size=64, augment=False), Task(), r"batches was .*pad=1.* and is now .*pad=0"),
        (DATA, Task(loss=double_loss), r"loss was .*cross_entropy and is now .*double_loss"),
    ],
    ids=["batch size", "augmentation", "loss"],
)
def test_a_training_does_not_go_on_under_other_batches_or_another_loss(
    tmp_path: Path, data: VisionData, task: Task, differs: str
) -> None:
    """With larger batches, the steps that were done may be all that there are: it would end half trained."""
    with pytest.raises(InterruptedTrainingError):
        run(tmp_path / "state.pt", stop_after=2)
    with pytest.raises(CheckpointError, match=differs):
        fit(small_model(), data, SCHEDULE, SETTINGS[0], task, seed=4, checkpoint=tmp_path / "state.pt")


class Headed(nn.Module):
    """Returns logits, and other outputs that its training must not take for logits, or must."""

    def __init__(self, beside: str) -> None:
        super().__init__()
        self.net = small_model()
        self.beside = beside

    def forward(self, inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        features = self.net.norm(self.net.conv(inputs)).relu()
        logits: Tensor = self.net.fc(features.flatten(1))
        besides = {"features": features, "embedding": features.flatten(1), "logits": logits}
        return (logits, besides[self.beside]) if self.beside else logits


@pytest.mark.parametrize(("beside", "is_head"), [("features", False), ("embedding", False), ("logits", True)])
def test_only_what_is_shaped_as_the_logits_is_an_auxiliary_head(beside: str, is_head: bool) -> None:
    ours, plain = Headed(beside), Headed("")
    for model in (ours, plain):
        fit(model, DATA, Schedule(steps=1), SETTINGS[0], Task(), seed=0)
    assert torch.equal(ours.net.fc.weight, plain.net.fc.weight) is not is_head
