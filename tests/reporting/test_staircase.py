from __future__ import annotations

from pathlib import Path

from autoprune.latency import Curve, Stairs
from autoprune.reporting import plot_stairs


def test_a_picture_of_one_or_more_curves(tmp_path: Path) -> None:
    curve = Curve((1, 2, 3, 4), (1.0, 1.1, 2.0, 2.1), (0.01,) * 4)
    sizes = []
    for number, stairs in enumerate(
        (Stairs(2, "eager", {"conv": curve}), Stairs(1, "onnx", {"a": curve, "b": curve}))
    ):
        path = plot_stairs(stairs, tmp_path / "new" / f"{number}.png")
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG")
        sizes.append(int.from_bytes(data[16:20], "big"))
    assert sizes[1] == 2 * sizes[0]
