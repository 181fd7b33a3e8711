"""Well-formed ONNX files that lie."""

from __future__ import annotations

import numpy as np
import onnx


def wrong_fields(content: bytes, seed: int) -> bytes:
    """The model with one number, name or list in it replaced: well-formed protobuf that lies."""
    random = np.random.default_rng(seed)
    model = onnx.load_model_from_string(content)
    node = model.graph.node[int(random.integers(len(model.graph.node)))]
    proto = model.graph.initializer[int(random.integers(len(model.graph.initializer)))]
    number = int(random.choice([0, 1, -1, 2, 3, 7, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63)]))
    match int(random.integers(9)):
        case 0 if node.attribute:
            attribute = node.attribute[int(random.integers(len(node.attribute)))]
            attribute.i = number
            if attribute.ints:
                attribute.ints[int(random.integers(len(attribute.ints)))] = number
        case 1 if node.attribute:
            node.attribute[int(random.integers(len(node.attribute)))].ints.extend([number] * 3)
        case 2:
            node.input[int(random.integers(len(node.input)))] = str(random.choice(["", "x", proto.name]))
        case 3:
            node.op_type = str(random.choice(["Conv", "Reshape", "Resize", "Split", "QLinearConv", "Gather"]))
        case 4 if proto.dims:
            proto.dims[int(random.integers(len(proto.dims)))] = number
        case 5:
            proto.data_type = int(random.integers(0, 30))
        case 6 if proto.raw_data:
            value = random.choice([np.nan, np.inf, 0, -1, 1e38])
            proto.raw_data = np.full(len(proto.raw_data) // 4 or 1, value, np.float32).tobytes()
        case 7:
            sizes = model.graph.input[0].type.tensor_type.shape.dim
            sizes[int(random.integers(len(sizes)))].dim_value = number
        case _:
            del node.input[int(random.integers(len(node.input))) :]
    return model.SerializeToString()
