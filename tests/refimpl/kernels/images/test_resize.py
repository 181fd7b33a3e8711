"""RESIZE_BILINEAR in 16 bits against its spec: where sums just fit, where they do not, and every tail."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from karat24.refimpl.engine import compile_graph
from karat24.refimpl.graph import Array
from karat24.refimpl.kernels.images import resize
from karat24.refimpl.kernels.images.resize_short import resize_short
from karat24.refimpl.kernels.threads.task_kernel import TaskKernel
from tests.cases.case import Case
from tests.cases.single_layer import Constant, Feed, Result, noise, single_layer

pytestmark = pytest.mark.usefixtures("tiny_layers_shared")

PROFILES = ("litert-2.3-ref", "litert-2.3-xnnpack")
MODES = ((False, True), (False, False), (True, False))


def resizing(image: Array, size: tuple[int, int], modes: tuple[bool, bool] = (False, True)) -> Case:
    """To ``size``; ``modes``: align_corners, half_pixel_centers."""
    shape = image.shape[0], *size, image.shape[3]
    return single_layer(
        "resize_bilinear", "", "RESIZE_BILINEAR",
        [Feed(image, 0.5, 3), Constant(np.array(size, np.int32))], [Result(shape, image.dtype.name, 0.5, 3)],
        align_corners=modes[0], half_pixel_centers=modes[1],
    )  # fmt: skip


def kernel_of(case: Case, profile: str) -> TaskKernel:
    kernel = compile_graph(case.graph, profile).steps[0].kernel
    assert isinstance(kernel, TaskKernel)
    return kernel


def assert_equals_spec(case: Case, profile: str) -> None:
    (expected,) = compile_graph(case.graph, profile, 1, "spec").run(case.feeds).outputs
    for threads in (1, 2):
        (found,) = compile_graph(case.graph, profile, threads).run(case.feeds).outputs
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_doubling_equals_the_spec_for_every_number_of_channels(profile: str, dtype: str) -> None:
    """Blocks of 32 and of 8 channels and what is left of them; two images; ties of both signs."""
    for channels in range(1, 70):
        image = noise((2, 3, 4, channels), dtype, channels)
        assert_equals_spec(resizing(image, (6, 8)), profile)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_sizes_of_every_kind_equal_the_spec(profile: str, dtype: str) -> None:
    """Powers of two, one pixel, the same size, smaller, odd; extremes next to one another."""
    bounds = np.iinfo(dtype)
    image = noise((1, 4, 6, 5), dtype, 0)
    image[:, ::2, ::2], image[:, 1::2, 1::2] = bounds.min, bounds.max
    sizes = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 96)
    for size, modes in itertools.product(itertools.product(sizes, sizes), MODES):
        assert_equals_spec(resizing(image, size, modes), profile)


@pytest.mark.parametrize("profile", PROFILES)
def test_16_bits_are_taken_as_far_as_they_go(profile: str) -> None:
    """Twice the size: quarters. Eight times: sixteenths, whose sums of 128 * 256 and a half do not fit."""
    image = noise((1, 4, 4, 3), "int8", 0)
    for size, short in (((8, 8), True), ((4, 8), True), ((32, 32), False), ((7, 9), False)):
        assert (kernel_of(resizing(image, size), profile).loop is resize_short) == short, size


def test_uint8_by_xnnpack_takes_16_bits_and_by_the_reference_floating_point() -> None:
    case = resizing(noise((1, 4, 4, 3), "uint8", 0), (8, 8))
    assert kernel_of(case, "litert-2.3-xnnpack").loop is resize_short
    assert kernel_of(case, "litert-2.3-ref").loop is resize._float_weight_by_weight
