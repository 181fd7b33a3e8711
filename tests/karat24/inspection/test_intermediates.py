"""``inspect --layer`` shows the scales inside an LSTM, which stand at tensors without values."""

from __future__ import annotations

from karat24.cli.inspect import layer_text
from karat24.inspection.layer import describe_layer
from tests.cases.lstm import Lstm


def test_scales_inside_a_layer_are_shown() -> None:
    content = describe_layer(Lstm("shown", projection=True, outputs=4).case().graph, 0)
    assert [entry["dtype"] for entry in content["intermediates"]] == ["int16"] * 4 + ["int8"]
    assert content["intermediates"][4]["zero_point"] == [3]
    (line,) = [text for text in layer_text(content).splitlines() if text.startswith("intermediate 4:")]
    assert "scale 0.0065 zero point 3" in line
