"""A stand-in for the Edge TPU's compiler: writes compiled files of small graphs, byte for byte as the format
says, in plain loops that share no code with the reader or the proof. The device could not run them."""

from __future__ import annotations

import struct

import flatbuffers
import numpy as np
from flatbuffers import flexbuffers

from karat24.export.tflite import write_tflite
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.graph import Array, Graph, LayerView, Tensor

KINDS = {"STAND_ALONE": 0, "PARAMETER_CACHING": 1, "EXECUTION_ONLY": 2}
F32 = np.float32


def compiled(source: Graph, first: int = 0, last: int | None = None, token: int = 7) -> bytes:
    """A compiled file of the source's layers ``first`` to ``last``, whose parameters the device keeps."""
    views = source.views()[first:last]
    written = [index for view in views for index in view.layer.outputs]
    read = {i for view in views for i in view.layer.inputs if i >= 0 and not source.tensors[i].is_constant}
    inputs = [source.tensors[i] for i in sorted(read - set(written))]
    later = {i for view in source.views() if view not in views for i in view.layer.inputs} | {*source.outputs}
    outputs = [source.tensors[i] for i in written if i in later]
    blob = b"".join(aligned(parameters(view)) for view in views)
    stream = b"".join(stages(view) for view in views)
    executables = [
        executable("EXECUTION_ONLY", token, [stream], b"", inputs, outputs),
        executable("PARAMETER_CACHING", token, [], blob, [], []),
    ]
    return file_of(package(executables), inputs, outputs)


def file_of(
    package: bytes, inputs: list[Tensor], outputs: list[Tensor], further: tuple[int, ...] = ()
) -> bytes:
    """The .tflite around a package; ``further`` stands where further executables would."""
    options = flexbuffers.Builder()
    with options.Map():
        options.Int("1", 0)
        options.Key("4")
        options.Blob(package)
        options.Int("5", -1)
        options.TypedVectorFromElements("6", [18, 300])
        if further:
            options.TypedVectorFromElements("7", list(further))
    builder = GraphBuilder()
    given = [builder.input(t.name, t.shape, t.dtype, t.quantization) for t in inputs]
    made = [builder.tensor(t.name, t.shape, t.dtype, t.quantization) for t in outputs]
    content = bytes(options.Finish())
    builder.layer("CUSTOM:edgetpu-custom-op", given, made, custom_options=content)
    return write_tflite(builder.build(made))


def table(builder: flatbuffers.Builder, size: int, *fields: tuple[int, str, int]) -> int:
    """A table of (slot, kind, value); a kind is a method of the builder without Prepend and Slot."""
    builder.StartObject(size)
    for slot, kind, value in fields:
        getattr(builder, f"Prepend{kind}Slot")(slot, value, 0)
    return builder.EndObject()


def offsets(builder: flatbuffers.Builder, items: list[int]) -> int:
    builder.StartVector(4, len(items), 4)
    for item in reversed(items):
        builder.PrependUOffsetTRelative(item)
    return builder.EndVector()


def package(executables: list[bytes], min_runtime: int = 12) -> bytes:
    inner = flatbuffers.Builder()
    strings = [inner.CreateString(raw) for raw in executables]
    inner.Finish(table(inner, 1, (0, "UOffsetTRelative", offsets(inner, strings))))
    builder = flatbuffers.Builder()
    serialized = builder.CreateByteVector(bytes(inner.Output()))
    version = builder.CreateString("stand-in")
    fields = (0, "Int32", min_runtime), (1, "UOffsetTRelative", serialized), (4, "UOffsetTRelative", version)
    builder.Finish(table(builder, 8, *fields), file_identifier=b"DWN1")
    return bytes(builder.Output())


def executable(
    kind: str, token: int, streams: list[bytes], blob: bytes, inputs: list[Tensor], outputs: list[Tensor]
) -> bytes:
    builder = flatbuffers.Builder()
    bitstreams = []
    for stream in streams:
        content = builder.CreateByteVector(stream)
        bitstreams.append(table(builder, 2, (0, "UOffsetTRelative", content)))
    layers = [[io_layer(builder, t, number) for t in some] for number, some in ((2, inputs), (1, outputs))]
    chip = builder.CreateString("beagle")
    vectors = [offsets(builder, items) for items in (bitstreams, *layers)]
    parameters = builder.CreateByteVector(blob)
    builder.Finish(
        table(
            builder, 17, (3, "Int32", 1), (5, "UOffsetTRelative", vectors[0]),
            (6, "UOffsetTRelative", parameters), (8, "UOffsetTRelative", vectors[1]),
            (9, "UOffsetTRelative", vectors[2]), (10, "UOffsetTRelative", chip), (13, "Int16", KINDS[kind]),
            (14, "Uint64", token),
        )
    )  # fmt: skip
    return bytes(builder.Output())


def io_layer(builder: flatbuffers.Builder, tensor: Tensor, role: int) -> int:
    name = builder.CreateString(tensor.name)
    zero_point = tensor.zero_point + (128 if tensor.dtype == "int8" else 0)
    numerics = table(builder, 2, (0, "Int32", zero_point), (1, "Float32", tensor.scale))
    y, x, z = (1, 1, 1, *tensor.shape)[-3:]
    kind = {"uint8": 0, "int8": 8}[tensor.dtype]
    return table(
        builder, 12, (0, "UOffsetTRelative", name), (1, "Int32", y * x * z), (2, "Int32", y), (3, "Int32", x),
        (4, "Int32", z), (5, "UOffsetTRelative", numerics), (6, "Int16", kind), (7, "Uint8", role),
    )  # fmt: skip


def aligned(content: bytes) -> bytes:
    return content + bytes(-len(content) % 64)


def u8(tensor: Tensor) -> Array:
    values = np.asarray(tensor.data).view(np.uint8)
    return values ^ 0x80 if tensor.dtype == "int8" else values


def zero(tensor: Tensor) -> int:
    return tensor.zero_point + (128 if tensor.dtype == "int8" else 0)


def factors(view: LayerView) -> list[np.float32]:
    scales = view.inputs[1].quantization.scale
    inverse = F32(1) / F32(view.outputs[0].scale)
    return [F32(F32(view.inputs[0].scale) * F32(scale)) * inverse for scale in scales]


def header(view: LayerView, channels: list[int], block: int, several_blocks: bool) -> bytes:
    """Multipliers, biases and zero points of a block."""
    scales = factors(view)
    bias = view.inputs[2].data
    content = b""
    per_channel = len(scales) > 1
    filled = -(-len(channels) // 4) * 4
    if len(set(scales)) > 1:
        beyond = 1.0 if several_blocks else 0.0
        for lane in range(block):
            value = scales[channels[lane]] if lane < len(channels) else scales[0] if lane < filled else beyond
            content += struct.pack("<f", value)
    for lane in range(block):
        content += struct.pack("<i", int(bias[channels[lane]]) if lane < len(channels) else 0)
    if per_channel:
        for lane in range(block):
            content += struct.pack("<i", 128 if lane < filled else 0)
    return content


def lstm(view: LayerView) -> bytes:
    """Four gates, a matrix of 0 and 1, and the first state, as the one public pair has them."""
    content = bytearray()
    for gate in range(4):
        bias, parts = view.inputs[12 + gate].data, (view.inputs[1 + gate], view.inputs[5 + gate])
        units = len(bias)
        block = -(-units // 16) * 16
        for lane in range(block):
            content += struct.pack("<i", int(bias[lane]) if lane < units else 0)
        for part in parts:
            values = u8(part)
            for group in range(-(-values.shape[1] // 4)):
                for lane in range(block):
                    for z in range(4 * group, 4 * group + 4):
                        real = lane < units and z < values.shape[1]
                        content.append(values[lane, z] if real else 128 if lane < -(-units // 4) * 4 else 0)
    return bytes(content) + bytes([1, 0, 0, 0] * 16) + bytes(64) + bytes([128] * 64)


def parameters(view: LayerView) -> bytes:
    if view.op == "UNIDIRECTIONAL_SEQUENCE_LSTM":
        return lstm(view)
    if view.op not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return b""
    filter_ = view.inputs[1]
    fill = filter_.quantization.zero_point[0] + (128 if filter_.dtype == "int8" else 0)
    if view.op == "DEPTHWISE_CONV_2D":
        return depthwise(view, u8(filter_)[0], fill)
    values = u8(filter_)
    if values.ndim == 2:
        values = values[:, None, None, :]
    count, height, width, depth = values.shape
    block = 64 if count > 64 else -(-count // 16) * 16
    content = bytearray()
    for start in range(0, count, block):
        channels = list(range(start, min(start + block, count)))
        filled = -(-len(channels) // 4) * 4
        content += header(view, channels, block, count > block)
        for y in range(height):
            for x in range(width):
                for group in range(-(-depth // 4)):
                    for lane in range(block):
                        for item in range(4):
                            z = 4 * group + item
                            if lane < len(channels) and z < depth:
                                content.append(values[channels[lane], y, x, z])
                            else:
                                content.append(fill if lane < filled else 0)
    return bytes(content)


def depthwise(view: LayerView, values: Array, fill: int) -> bytes:
    content = bytearray()
    count = values.shape[2]
    for start in range(0, count, 4):
        channels = list(range(start, min(start + 4, count)))
        content += header(view, channels, 4, False)
        for y in range(values.shape[0]):
            for x in range(values.shape[1]):
                for row in range(4):
                    for lane in range(4):
                        real = row == lane and lane < len(channels)
                        content.append(values[y, x, channels[lane]] if real else fill)
    return bytes(content)


def clamp_bits(tensor: Tensor, activation: str) -> tuple[int, int]:
    scale, inverse = F32(tensor.scale), F32(1) / F32(tensor.scale)
    low, high = F32(scale * F32(-zero(tensor))), F32(scale * F32(255 - zero(tensor)))
    if activation in ("RELU", "RELU6"):
        low = max(low, F32(0))
    if activation == "RELU6":
        high = min(high, F32(6))
    return bits(low * inverse + F32(0)), bits(high * inverse + F32(0))


def bits(value: float) -> int:
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def stages(view: LayerView) -> bytes:
    """An output stage in its surroundings, with other instructions around."""
    if view.op not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return b""
    output, filter_ = view.outputs[0], view.inputs[1]
    lower, upper = clamp_bits(output, view.layer.attributes.get("fused_activation_function", "NONE"))
    scales = factors(view)
    several = len(set(scales)) > 1
    count = 4 if view.op == "DEPTHWISE_CONV_2D" else -(-output.shape[-1] // 4) * 4
    last = count % 64 or 64 if count > 64 else count
    before = 0x18 << 48 | zero(view.inputs[0]) << 78
    if len(filter_.quantization.scale) == 1:
        before |= zero(filter_) << 62
    stage = (1 if several else 0) | last - 1 << 14 | min(count, 64) - 1 << 20
    stage |= (bits(1.0) if several else bits(scales[0])) << 29 | upper << 61 | lower << 93
    behind = zero(output) << 29 | 1 << 45
    filler = 0x0123456789ABCDEF0123456789ABCDEF
    words = (filler, 0, before, stage, behind, filler)
    return b"".join(word.to_bytes(16, "little") for word in words)
