"""Tests, run by pytest, that every delegate of .tflite models must pass.

For authors of delegates, here and elsewhere: inherit :class:`DelegateConformance` in a test module and set
``name``. It needs pytest and is imported by nothing else.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from karat24.delegates import Delegate, DelegateRun, delegate_named
from karat24.delegates import conformance_models as models
from karat24.delegates.child import MEMORY_MAPPED_FROM, TIME_LIMIT
from karat24.export.tflite import write_tflite
from karat24.refimpl.errors import (
    DelegateCrashed,
    DelegateError,
    DelegateTimeout,
    FeedError,
    ModelError,
    UsageError,
)
from karat24.refimpl.graph import Array, Graph


def named(graph: Graph, run: DelegateRun) -> dict[str, Array]:
    """The tensors of a run by name."""
    return {graph.tensors[index].name: value for index, value in run.trace.tensors.items()}


class DelegateConformance:
    """The suite; skipped, with the probe's reason and remedy, where the runtime is absent."""

    name: str
    """The delegate's, as ``karat24 delegates`` lists it."""

    hostile: Callable[[], Graph] | None = None
    """Makes a graph of one input that the runtime is known to die on."""

    in_child = True
    """Whether the runtime works in a ``karat24.delegates.child.Child``, kept as ``_child``."""

    @classmethod
    def make(cls) -> Delegate:
        """A new delegate; starts nothing."""
        return delegate_named(cls.name)

    @pytest.fixture(scope="class")
    @classmethod
    def delegate(cls) -> Iterator[Delegate]:
        with cls.make() as delegate:
            probe = delegate.probe()
            if not probe.available:
                pytest.skip(f"{cls.name}: {probe.reason}; {probe.remedy}")
            yield delegate

    def test_says_what_it_is(self, delegate: Delegate) -> None:
        probe = delegate.probe()
        assert probe.library
        assert probe.version
        assert delegate.versions()[probe.library] == probe.version
        assert delegate.name == self.name
        assert delegate.profile

    def test_outputs(self, delegate: Delegate) -> None:
        graph, x = models.chain(), models.image()
        run = delegate.run(write_tflite(graph), [x], tensors="outputs")
        expected = models.chain_values(x)
        assert [output.tolist() for output in run.outputs] == [expected["output"].tolist()]
        assert set(named(graph, run)) == {"image", "output"}
        assert run.trace.producer == self.name
        assert run.trace.profile == delegate.profile
        assert run.trace.versions == delegate.versions()

    def test_all_tensors(self, delegate: Delegate) -> None:
        """Every layer's output, of the right values, and nothing that is not a value of the run."""
        graph, x = models.chain(), models.image(1)
        run = delegate.run(write_tflite(graph), [x])
        found, expected = named(graph, run), models.chain_values(x)
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert found[name].dtype == value.dtype
            assert np.array_equal(found[name], value), name
        assert not run.unreadable
        assert not run.capture_changed

    def test_tensors_of_a_size_known_only_when_run(self, delegate: Delegate) -> None:
        graph, x = models.reshape_from_shape(), models.image(2)
        run = delegate.run(write_tflite(graph), [x])
        found = named(graph, run)
        assert found["shape"].tolist() == [1, 4, 6, 2]
        assert found["height"].tolist() == 4
        assert found["new"].tolist() == [4, 12]
        assert np.array_equal(found["flat"], x.reshape(4, 12))
        assert np.array_equal(found["output"], np.pad(x.reshape(4, 12), ((1, 0), (0, 0)), constant_values=3))

    @pytest.mark.parametrize("by", ["order", "name", "index"])
    def test_feeds(self, delegate: Delegate, by: str) -> None:
        left, right = np.array([[1, 2]], np.int8), np.array([[3, 4, 5]], np.int8)
        graph = models.two_inputs()
        feeds: Any = {
            "order": [left, right],
            "name": {"right": right, "left": left},
            "index": {graph.inputs[1]: right, graph.inputs[0]: left},
        }[by]
        run = delegate.run(write_tflite(graph), feeds)
        assert run.outputs[0].tolist() == [[1, 2, 3, 4, 5]]
        assert np.array_equal(run.trace.tensors[graph.inputs[0]], left)
        assert np.array_equal(run.trace.tensors[graph.inputs[1]], right)

    def test_a_model_without_a_signature_and_with_float_input(self, delegate: Delegate) -> None:
        graph = models.float_input()
        graph = Graph(graph.tensors, graph.layers, graph.inputs, graph.outputs)
        values = np.array([[-100, -1.6, -0.4, 0, 0.1, 0.6, 62, 1000]], np.float32)
        run = delegate.run(write_tflite(graph), [values])
        assert run.outputs[0].tolist() == [[-128, 0, 2, 3, 3, 4, 127, 127]]

    @pytest.mark.parametrize(
        ("feeds", "message"),
        [
            ([models.image()] * 2, "2 arrays given, the model has 1 input"),
            ([models.image().astype(np.uint8)], r"'image' \(tensor 0\): got uint8"),
            ([models.image(shape=(1, 4, 5, 2))], r"got .*\(1, 4, 5, 2\), the model needs"),
            ({"picture": models.image()}, "no input 'picture'; it has 'image'"),
            ({3: models.image()}, "no input 3"),
            ({}, r"'image' \(tensor 0\): no value given; the model needs int8 \(1, 4, 6, 2\)"),
        ],
        ids=["too many", "element type", "shape", "name", "index", "none"],
    )
    def test_feeds_that_do_not_fit(self, delegate: Delegate, feeds: object, message: str) -> None:
        with pytest.raises(FeedError, match=message):
            delegate.run(write_tflite(models.chain()), feeds)  # type: ignore[arg-type]

    def test_a_broken_file_is_an_error_and_not_the_end(self, delegate: Delegate) -> None:
        x = models.image()
        with pytest.raises((DelegateError, ModelError)):
            delegate.run(b"not a model at all", [x])
        with pytest.raises(UsageError, match=r"absent\.tflite: No such file"):
            delegate.run(Path("absent.tflite"), [x])
        run = delegate.run(write_tflite(models.chain()), [x])
        assert np.array_equal(run.outputs[0], models.chain_values(x)["output"])

    def test_many_models_one_of_them_broken(self, delegate: Delegate) -> None:
        """The answers keep the order of the jobs, and a broken one costs only itself."""
        chain, two = write_tflite(models.chain()), write_tflite(models.two_inputs())
        left, right = np.zeros((1, 2), np.int8), np.ones((1, 3), np.int8)
        jobs = [(chain, [models.image(seed)]) for seed in range(3)]
        answers = list(delegate.run_many([*jobs, (b"broken", [left]), (two, [left, right])]))
        assert len(answers) == 5
        for seed, answer in enumerate(answers[:3]):
            assert isinstance(answer, DelegateRun)
            assert np.array_equal(answer.outputs[0], models.chain_values(models.image(seed))["output"])
        assert isinstance(answers[3], DelegateError)
        assert isinstance(answers[4], DelegateRun)
        assert answers[4].outputs[0].tolist() == [[0, 0, 1, 1, 1]]

    def test_a_file_that_changed_is_read_again(self, delegate: Delegate, tmp_path: Path) -> None:
        path = tmp_path / "model.tflite"
        path.write_bytes(write_tflite(models.chain()))
        delegate.run(path, [models.image()])
        path.write_bytes(write_tflite(models.two_inputs()))
        run = delegate.run(path, [np.zeros((1, 2), np.int8), np.ones((1, 3), np.int8)])
        assert run.outputs[0].tolist() == [[0, 0, 1, 1, 1]]

    def test_results_outlive_the_delegate(self) -> None:
        """Large arrays are mapped from files that are gone by then."""
        x = models.image(0, (1, 256, 256, 32))
        assert x.nbytes >= MEMORY_MAPPED_FROM
        with self.make() as delegate:
            if not delegate.probe().available:
                pytest.skip(f"{self.name}: {delegate.probe().reason}")
            run = delegate.run(write_tflite(models.large()), [x], tensors="outputs")
        assert np.array_equal(run.outputs[0], x.reshape(256, -1))

    def test_closing_twice_and_running_after_it(self) -> None:
        delegate = self.make()
        if not delegate.probe().available:
            pytest.skip(f"{self.name}: {delegate.probe().reason}")
        delegate.close()
        delegate.close()
        x = models.image()
        run = delegate.run(write_tflite(models.chain()), [x], tensors="outputs")
        assert np.array_equal(run.outputs[0], models.chain_values(x)["output"])
        delegate.close()

    def test_a_crash_is_a_report(self, delegate: Delegate) -> None:
        if self.hostile is None:
            pytest.skip(f"{self.name}: no model is known that kills this runtime")
        graph = self.hostile()
        x = models.image(shape=graph.tensors[graph.inputs[0]].shape)
        hostile = write_tflite(graph)
        with pytest.raises(DelegateCrashed, match=r"the runtime died of SIG\w+ on model [0-9a-f]{16}"):
            delegate.run(hostile, [x])
        image = models.image()
        answers = list(delegate.run_many([(hostile, [x]), (write_tflite(models.chain()), [image])]))
        assert isinstance(answers[0], DelegateCrashed)
        assert isinstance(answers[1], DelegateRun)
        assert np.array_equal(answers[1].outputs[0], models.chain_values(image)["output"])

    def test_a_late_answer_is_a_report(self) -> None:
        """A process that is stopped answers nothing, however fast the machine; another takes its place."""
        if not self.in_child:
            pytest.skip(f"{self.name} runs in this process and has no time limit")
        if os.name != "posix":
            pytest.skip("stops a process the POSIX way")
        model, x = write_tflite(models.chain()), models.image()
        with self.make() as delegate:
            if not delegate.probe().available:
                pytest.skip(f"{self.name}: {delegate.probe().reason}")
            delegate.run(model, [x])
            child = delegate._child  # type: ignore[attr-defined]
            os.kill(child._process._popen.pid, signal.SIGSTOP)
            child.time_limit = 0.01
            with pytest.raises(DelegateTimeout, match=f"{self.name}: no answer about .* within 0.01 s"):
                delegate.run(model, [x])
            child.time_limit = TIME_LIMIT
            run = delegate.run(model, [x])
        assert np.array_equal(run.outputs[0], models.chain_values(x)["output"])

    def test_thread_counts(self, delegate: Delegate) -> None:
        with pytest.raises(UsageError):
            delegate.run(write_tflite(models.chain()), [models.image()], threads=0)
