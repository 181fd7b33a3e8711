"""LSTMs of float32 data are not compared, and the report says why; a layer behind them is judged."""

from __future__ import annotations

import numpy as np
import pytest

from karat24.delegates import delegate_named
from karat24.export.tflite import read_tflite, with_lowest_versions, write_tflite
from karat24.golden.verify import verify
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Array, Graph, Quantization


def _network(weights: type[np.generic]) -> Graph:
    """Four cells fed with three values a step, and a QUANTIZE behind."""
    rng, builder = np.random.default_rng(5), GraphBuilder()
    quantization = Quantization.per_tensor(0.01) if weights is np.int8 else None

    def filled(name: str, columns: int) -> int:
        values: Array = rng.integers(-127, 128, (4, columns)).astype(weights)
        return builder.constant(name, values if quantization else values / np.float32(100), quantization)

    data = builder.input("data", (2, 5, 3), "float32")
    from_data = [filled(f"from_data{gate}", 3) for gate in range(4)]
    from_output = [filled(f"from_output{gate}", 4) for gate in range(4)]
    biases = [builder.constant(f"bias{gate}", rng.normal(size=4).astype(np.float32)) for gate in range(4)]
    states = [builder.variable(name, (2, 4), "float32") for name in ("output_state", "cell_state")]
    inputs = [data, *from_data, *from_output, *(-1,) * 3, *biases, -1, -1, *states, *(-1,) * 4]
    made = builder.tensor("made", (2, 5, 4), "float32")
    builder.layer("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, [made], fused_activation_function="TANH")
    output = builder.tensor("output", (2, 5, 4), "int8", Quantization.per_tensor(1 / 128, 3))
    builder.layer("QUANTIZE", [made], [output])
    return with_lowest_versions(builder.build([output]))


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (np.int8, "an LSTM of float32 data and int8 weights is not computed"),
        (np.float32, "an LSTM of float32 is not computed"),
    ],
)
def test_an_lstm_of_float32_data_is_not_compared(weights: type[np.generic], said: str) -> None:
    content = write_tflite(_network(weights))
    feeds = [np.random.default_rng(1).normal(size=(2, 5, 3)).astype(np.float32)]
    with delegate_named("litert-ref", time_limit=60.0) as delegate:
        report = verify(content, read_tflite(content), delegate, [feeds], threads=1)
    lstm, quantize = report.layers
    assert lstm.verdict == "not_compared"
    assert said in lstm.reason
    assert quantize.verdict == "bit_exact"
    assert report.exit_code() == 3
