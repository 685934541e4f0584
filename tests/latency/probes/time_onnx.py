"""A command of a user's: times an ONNX file with onnxruntime, as one would on a board."""

from __future__ import annotations

import sys
import time

import numpy as np
import onnxruntime  # type: ignore[import-untyped]  # the package ships no types


def main(path: str) -> None:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
    # Every size is fixed in the file, so the command does not need the batch.
    feed = {put.name: np.zeros(put.shape, kinds[put.type]) for put in session.get_inputs()}
    session.run(None, feed)
    started = time.perf_counter()
    session.run(None, feed)
    print("runs: 1")
    print(f"{1000 * (time.perf_counter() - started):.6f}")


if __name__ == "__main__":
    main(sys.argv[1])
