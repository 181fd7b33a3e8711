"""The conformance suite, once per delegate, and what is particular to each."""

from __future__ import annotations

import numpy as np
import pytest

from karat24.delegates import DELEGATES, Delegate, delegate_named
from karat24.delegates import conformance_models as models
from karat24.delegates.conformance import DelegateConformance, named
from karat24.delegates.onnx_lanes import ONNX_LANES
from karat24.export.tflite import write_tflite
from karat24.refimpl.errors import UsageError


class TestOracle(DelegateConformance):
    name = "oracle"
    in_child = False


class TestLitertRef(DelegateConformance):
    name = "litert-ref"

    def test_nothing_is_delegated(self, delegate: Delegate) -> None:
        assert delegate.run(write_tflite(models.chain()), [models.image()]).delegated == frozenset()


class TestLitertBuiltin(DelegateConformance):
    name = "litert-builtin"
    hostile = staticmethod(models.without_bias_input)

    def test_two_threads_are_refused_with_the_reason(self, delegate: Delegate) -> None:
        with pytest.raises(UsageError, match="litert-builtin runs on one thread: the optimised MEAN"):
            delegate.run(write_tflite(models.chain()), [models.image()], threads=2)


class TestLitertXnnpack(DelegateConformance):
    name = "litert-xnnpack"
    hostile = staticmethod(models.without_bias_input)

    @pytest.mark.parametrize("tensors", ["all", "outputs"])
    def test_says_which_layers_xnnpack_took(self, delegate: Delegate, tensors: str) -> None:
        """Both where each layer is delegated by itself and where they are one cluster."""
        run = delegate.run(write_tflite(models.chain()), [models.image()], tensors=tensors)  # type: ignore[arg-type]
        assert run.delegated == {0, 1, 2}
        run = delegate.run(write_tflite(models.reshape_from_shape()), [models.image()], tensors=tensors)  # type: ignore[arg-type]
        assert run.delegated == {4}


class TestTfliteRef(DelegateConformance):
    name = "tflite-2.14-ref"
    hostile = staticmethod(models.slice_from_far_outside)

    def test_a_tensor_overwritten_in_place_is_not_read(self, delegate: Delegate) -> None:
        """``left`` holds the sum after the run; the last RESHAPE shares its buffer without harm."""
        graph, x = models.residual(), models.image()
        run = delegate.run(write_tflite(graph), [x])
        reasons = {graph.tensors[index].name: reason for index, reason in run.unreadable.items()}
        assert reasons == {"left": "layer 2 (ADD) ran in place over it"}
        assert set(named(graph, run)) == {"image", "right", "output", "last"}
        assert (
            named(graph, run)["output"].tolist() == named(graph, run)["last"].reshape(models.SHAPE).tolist()
        )


class TestTfliteBuiltin(DelegateConformance):
    name = "tflite-2.14-builtin"
    hostile = staticmethod(models.without_bias_input)


class TestTflm(DelegateConformance):
    name = "tflm"

    def test_two_threads_are_refused(self, delegate: Delegate) -> None:
        with pytest.raises(UsageError, match="tflm runs on one thread"):
            delegate.run(write_tflite(models.chain()), [models.image()], threads=2)


def test_litert_reads_what_2_14_overwrites() -> None:
    graph = models.residual()
    for name in ("litert-ref", "litert-builtin", "litert-xnnpack"):
        with delegate_named(name) as delegate:
            if not delegate.probe().available:
                pytest.skip(delegate.probe().reason)
            run = delegate.run(write_tflite(graph), [models.image()])
        left = models.image().copy()
        left[:, :-1] = np.maximum(left[:, :-1], left[:, 1:])
        left[:, :, :-1] = np.maximum(left[:, :, :-1], left[:, :, 1:])
        assert not run.unreadable
        assert np.array_equal(named(graph, run)["left"], left)


def test_every_delegate_has_a_conformance_class() -> None:
    tested = {cls.name for cls in DelegateConformance.__subclasses__()}
    onnx = {lane.name for lane in ONNX_LANES}
    own = {"edgetpu", "tensorrt"} | onnx
    assert tested | own == set(DELEGATES), "the Edge TPU, ONNX and TensorRT have tests of their own"


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no delegate 'litert'; known: oracle, litert-ref"):
        delegate_named("litert")
