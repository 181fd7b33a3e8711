"""Arrays to feed a model: from .npy, .npz and image files, or seeded random.

8-bit pictures become what the model's input type expects: uint8 takes pixels 0..255 as
they are, int8 takes pixel - 128 (the same picture for the usual zero point of a
"mobile-compatible" model), float32 takes pixel / 255. In 16-bit pictures 65535 takes the place
of 255. ``karat24.real_values`` converts everything else that is not of the input's own type.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from karat24.real_values import Fitted, Span, as_input, represented, spread
from karat24.refimpl.errors import FeedError, UsageError
from karat24.refimpl.graph import DTYPES, QUANTIZED_RANGE, Array, Graph, Tensor
from karat24.refimpl.settling import resized, takes_shape

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp"})

FULL_16_BIT = (0.0, 65535.0)
"""The range of 16-bit pixels, taken for the range of what they show unless the user says otherwise."""


class Loaded(NamedTuple):
    """Feeds by tensor index, and a line for each input whose values were not fed as the file holds them."""

    feeds: dict[int, Array]
    notes: tuple[str, ...]


def load_feeds(graph: Graph, paths: Sequence[Path], input_range: Span | None = None) -> Loaded:
    """Feeds from files: one .npz with arrays by input name or tensor index, or one .npy or image file per
    input, in input order.

    ``input_range`` are the values in the files that the whole range of each input stands for.
    Raises FeedError for a file that is missing, unreadable or does not fit.
    """
    for path in paths:
        if not path.is_file():
            raise FeedError(f"{path}: no such file")
    if len(paths) == 1 and paths[0].suffix.lower() == ".npz":
        return _fitted(graph, _from_npz(graph, paths[0]), input_range)
    if len(paths) != len(graph.inputs):
        names = ", ".join(f"{graph.tensors[i].name!r}" for i in graph.inputs)
        raise FeedError(f"{len(paths)} input files given, the model has {len(graph.inputs)} inputs: {names}")
    return _fitted(graph, dict(zip(graph.inputs, paths, strict=True)), input_range)


def stacked_feeds(graph: Graph, path: Path) -> list[dict[int, Array]]:
    """The feeds of a case of several images, as ``karat24 seek`` writes it: an .npz file whose every array
    has one axis more in front than its input. Empty for other files."""
    if path.suffix.lower() != ".npz" or not path.is_file():
        return []
    arrays = {index: array for index, (_, array) in _from_npz(graph, path).items()}
    counts = set()
    for index in graph.inputs:
        tensor, array = graph.tensors[index], arrays.get(index)
        if array is None or array.shape[1:] != tensor.shape or array.dtype.name != tensor.dtype:
            return []
        counts.add(len(array))
    if len(counts) != 1:
        return []
    return [{index: array[number] for index, array in arrays.items()} for number in range(counts.pop())]


def sized_for(graph: Graph, paths: Sequence[Path]) -> Graph:
    """The graph for inputs of the shapes that .npy and .npz files hold, where it leaves those sizes open.

    Arrays that no size of the graph fits are left to :func:`load_feeds`, which refuses them.
    """
    if len(paths) == 1 and paths[0].suffix.lower() == ".npz":
        given = {index: array.shape for index, (_, array) in _from_npz(graph, paths[0]).items()}
    elif len(paths) == len(graph.inputs):
        pairs = zip(graph.inputs, paths, strict=True)
        given = {
            index: _load_npy(graph.tensors[index], path).shape
            for index, path in pairs
            if path.suffix.lower() == ".npy"
        }
    else:
        return graph
    other = {
        index: shape
        for index, shape in given.items()
        if shape != graph.tensors[index].shape and takes_shape(graph.tensors[index], shape)
    }
    return resized(graph, other) if other else graph


def _fitted(graph: Graph, given: Mapping[int, Path | tuple[str, Array]], span: Span | None) -> Loaded:
    """What was given for each input (a file, or an array and its name), as the inputs take it."""
    feeds, notes = {}, []
    for index, source in given.items():
        tensor, saturates = graph.tensors[index], _representable(graph, index)
        if isinstance(source, Path) and source.suffix.lower() in IMAGE_SUFFIXES:
            feeds[index], note = _picture_feed(tensor, source, span, saturates)
        else:
            what, values = source if isinstance(source, tuple) else (str(source), _load_npy(tensor, source))
            feeds[index], note = as_input(tensor, values, what, span, saturates)
        notes += [note] if note else []
    return Loaded(feeds, tuple(notes))


def _from_npz(graph: Graph, path: Path) -> dict[int, tuple[str, Array]]:
    names = {graph.tensors[i].name: i for i in graph.inputs} | {str(i): i for i in graph.inputs}
    try:
        with np.load(path, allow_pickle=False) as archive:
            unknown = [key for key in archive.files if key not in names]
            if unknown:
                raise FeedError(
                    f"{path}: holds {unknown[0]!r}, not an input of the model; it has {', '.join(names)}"
                )
            return {names[key]: (f"{path}[{key!r}]", archive[key]) for key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise FeedError(f"{path}: not a readable .npz file: {error}") from error


def _load_npy(tensor: Tensor, path: Path) -> Array:
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


def _picture_feed(tensor: Tensor, path: Path, span: Span | None, saturates: Span | None) -> Fitted:
    """A picture as an input takes it: 8-bit and 16-bit pixels by convention, others by their values."""
    pixels = _picture(tensor, path)
    if span is not None or pixels.dtype not in (np.uint8, np.uint16):
        return as_input(tensor, pixels, str(path), span, saturates)
    if pixels.dtype == np.uint8:
        return Fitted(pixels_as(pixels, tensor), "")
    found = spread(tensor, pixels, FULL_16_BIT, (0.0, 1.0), str(path))
    return Fitted(
        found.values,
        f"{found.note}; its pixels reach from {pixels.min()} to {pixels.max()}: if they show another range, "
        "give it with --input-range LOW HIGH",
    )


def image_feed(tensor: Tensor, path: Path) -> Array:
    """An image file as one input: resized (bilinear) to the model's height and width,
    grey or RGB as its channel count says."""
    return _picture_feed(tensor, path, None, None).values


def _picture(tensor: Tensor, path: Path) -> Array:
    """A picture's pixels ``[1, y, x, channel]``, resized: uint8, or, where it has one wider channel,
    uint16, int32 or float32."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise UsageError("reading images needs pillow: pip install 'karat24[image]'") from error
    if len(tensor.shape) != 4 or tensor.shape[0] != 1 or tensor.shape[3] not in (1, 3):
        raise FeedError(
            f"{path}: input {tensor.name!r} has shape {tensor.shape}, which is not a single image "
            "[1, y, x, 1 or 3]; give a .npy file"
        )
    _, height, width, channels = tensor.shape
    try:
        with Image.open(path) as image:
            wide = image.mode.startswith(("I", "F"))
            if not wide:
                picture = image.convert("L" if channels == 1 else "RGB")
                return _resized(picture, width, height).reshape(tensor.shape)
            deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
            values = _resized(image if image.size == (width, height) else image.convert("F"), width, height)
    except Image.DecompressionBombError as error:
        raise FeedError(f"{path}: {error}") from error
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise FeedError(f"{path}: not a readable image: {error}") from error
    if deep:
        values = np.rint(values).astype(np.uint16)
    return np.broadcast_to(values.reshape(1, height, width, 1), tensor.shape)


def _resized(picture: Any, width: int, height: int) -> Array:
    from PIL import Image

    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture)


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
    float32 input the range its QUANTIZE layer can represent, else [0, 1). Raises UsageError for a negative
    seed."""
    if seed < 0:
        raise UsageError(f"seed {seed}: give a whole number of at least 0")
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
    low_real, high_real = reals_of(graph, tensor.index)
    return (low_real + (high_real - low_real) * generator.random(tensor.shape)).astype(dtype)


def reals_of(graph: Graph, index: int) -> Span:
    """The values that a floating-point input is expected to have: what the layer that quantizes it can
    represent, else 0 to 1."""
    return _representable(graph, index) or (0.0, 1.0)


def _representable(graph: Graph, index: int) -> Span | None:
    """The range of the layer that quantizes a floating-point input; None where no layer does that first."""
    for layer in graph.layers:
        if layer.op in ("QUANTIZE", "QuantizeLinear") and layer.inputs[0] == index:
            output = graph.tensors[layer.outputs[0]]
            if output.quantization is not None and output.dtype in QUANTIZED_RANGE:
                return represented(output)
    return None
