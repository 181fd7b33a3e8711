"""Arrays to feed a model: from .npy, .npz and image files, or seeded random.

Images become what the model's input type expects: uint8 takes pixels 0..255 as
they are, int8 takes pixel - 128 (the same picture for the usual zero point of a
"mobile-compatible" model), float32 takes pixel / 255.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from refimpl.errors import FeedError, UsageError
from refimpl.graph import DTYPES, QUANTIZED_RANGE, Array, Graph, Tensor

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp"})


def load_feeds(graph: Graph, paths: Sequence[Path]) -> dict[int, Array]:
    """Feeds by tensor index from files: one .npz with arrays by input name or tensor
    index, or one .npy or image file per input, in input order.

    Raises FeedError for a file that is missing, unreadable or does not fit.
    """
    for path in paths:
        if not path.is_file():
            raise FeedError(f"{path}: no such file")
    if len(paths) == 1 and paths[0].suffix.lower() == ".npz":
        return _from_npz(graph, paths[0])
    if len(paths) != len(graph.inputs):
        names = ", ".join(f"{graph.tensors[i].name!r}" for i in graph.inputs)
        raise FeedError(f"{len(paths)} input files given, the model has {len(graph.inputs)} inputs: {names}")
    return {
        index: _load_one(graph.tensors[index], path) for index, path in zip(graph.inputs, paths, strict=True)
    }


def _from_npz(graph: Graph, path: Path) -> dict[int, Array]:
    names = {graph.tensors[i].name: i for i in graph.inputs} | {str(i): i for i in graph.inputs}
    try:
        with np.load(path, allow_pickle=False) as archive:
            unknown = [key for key in archive.files if key not in names]
            if unknown:
                raise FeedError(
                    f"{path}: holds {unknown[0]!r}, which is no input of the model; it has {', '.join(names)}"
                )
            return {names[key]: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise FeedError(f"{path}: not a readable .npz file: {error}") from error


def _load_one(tensor: Tensor, path: Path) -> Array:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return image_feed(tensor, path)
    try:
        loaded: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FeedError(
            f"{path}: not a readable .npy file ({error}); .npy, .npz and images can be read"
        ) from error
    if not isinstance(loaded, np.ndarray):
        raise FeedError(f"{path}: an .npz archive must be the only input file")
    if loaded.shape != tensor.shape and loaded.shape == tensor.shape[1:]:
        loaded = loaded[None]
    return loaded


def image_feed(tensor: Tensor, path: Path) -> Array:
    """An image file as one input: resized (bilinear) to the model's height and width,
    grey or RGB as its channel count says."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise UsageError("reading images needs pillow: pip install 'karat[image]'") from error
    if len(tensor.shape) != 4 or tensor.shape[0] != 1 or tensor.shape[3] not in (1, 3):
        raise FeedError(
            f"{path}: input {tensor.name!r} has shape {tensor.shape}, which is no single image "
            "[1, y, x, 1 or 3]; give a .npy file"
        )
    _, height, width, channels = tensor.shape
    try:
        with Image.open(path) as image:
            picture = image.convert("L" if channels == 1 else "RGB")
            if picture.size != (width, height):
                picture = picture.resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.asarray(picture, np.uint8).reshape(tensor.shape)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise FeedError(f"{path}: not a readable image: {error}") from error
    return pixels_as(pixels, tensor)


def pixels_as(pixels: Array, tensor: Tensor) -> Array:
    """uint8 pixels as the element type of ``tensor``; see the module's head."""
    if tensor.dtype == "uint8":
        return pixels
    if tensor.dtype == "int8":
        return (pixels.astype(np.int16) - 128).astype(np.int8)
    if tensor.dtype == "float32":
        return pixels.astype(np.float32) / np.float32(255)
    raise FeedError(f"an image cannot feed input {tensor.name!r} of type {tensor.dtype}; give a .npy file")


def random_feeds(graph: Graph, seed: int) -> dict[int, Array]:
    """Seeded random values for every input: the whole range of an integer type; for a
    float32 input the range its QUANTIZE layer can represent, else [0, 1)."""
    generator = np.random.default_rng(seed)
    return {index: _random(graph, graph.tensors[index], generator) for index in graph.inputs}


def _random(graph: Graph, tensor: Tensor, generator: np.random.Generator) -> Array:
    if tensor.is_opaque:
        raise FeedError(f"input {tensor.name!r} is of element type {tensor.dtype}: no values can be drawn")
    dtype = DTYPES[tensor.dtype]
    if tensor.dtype == "bool":
        return generator.integers(0, 2, tensor.shape).astype(bool)
    if dtype.kind in "iu":
        low, high = QUANTIZED_RANGE.get(tensor.dtype, (0, 2**31 - 1))
        return generator.integers(low, high, tensor.shape, dtype=dtype, endpoint=True)
    low_real, high_real = _representable(graph, tensor.index)
    return (low_real + (high_real - low_real) * generator.random(tensor.shape)).astype(dtype)


def _representable(graph: Graph, index: int) -> tuple[float, float]:
    for layer in graph.layers:
        if layer.op in ("QUANTIZE", "QuantizeLinear") and layer.inputs[0] == index:
            output = graph.tensors[layer.outputs[0]]
            if output.quantization is not None and output.dtype in QUANTIZED_RANGE:
                qmin, qmax = QUANTIZED_RANGE[output.dtype]
                scale, zero_point = output.scale, output.zero_point
                return (qmin - zero_point) * scale, (qmax - zero_point) * scale
    return 0.0, 1.0
