"""The engine refuses before it runs, traces what it ran, and does not depend on threads."""

from __future__ import annotations

import math
import threading

import numba
import numpy as np
import pytest

from karat24.feeds import random_feeds
from karat24.refimpl import engine
from karat24.refimpl.builder import GraphBuilder
from karat24.refimpl.cost import count
from karat24.refimpl.engine import compile_graph
from karat24.refimpl.errors import FeedError, UnsupportedOp, UsageError
from karat24.refimpl.graph import Quantization
from karat24.refimpl.kernels.threads.thread_count import count_in_force, threads_in_force
from karat24.refimpl.kernels.threads.thread_pool import POOL, Job
from tests.support.small_network import small_graph


def test_unsupported_ops_are_all_named_before_anything_runs() -> None:
    builder = GraphBuilder()
    quantization = Quantization.per_tensor(0.5)
    tensors = [builder.input("a", (1, 4), "int8", quantization)]
    for op in ("SIN", "CUMSUM", "SIN"):
        tensors.append(builder.tensor(op, (1, 4), "int8", quantization))
        builder.layer(op, tensors[-2:-1], tensors[-1:])
    with pytest.raises(UnsupportedOp) as error:
        compile_graph(builder.build(tensors[-1:]))
    message = str(error.value)
    assert "SIN (layer 0, 2): karat24 lacks it" in message
    assert "CUMSUM (layer 1)" in message
    assert "karat24 export MODEL --until TENSOR" in message


def test_trace_holds_inputs_outputs_and_accumulators_but_no_constants() -> None:
    graph = small_graph()
    feeds = random_feeds(graph, 0)
    result = compile_graph(graph).run(feeds, accumulators=True)
    assert result.trace is not None
    produced = {index for layer in graph.layers for index in layer.outputs}
    assert set(result.trace.tensors) == produced | set(graph.inputs)
    assert set(result.trace.accumulators) == {layer.index for layer in graph.layers if layer.op == "CONV_2D"}
    np.testing.assert_array_equal(result.trace.tensors[graph.outputs[0]], result.outputs[0])
    for index, accumulator in result.trace.accumulators.items():
        output = graph.tensors[graph.layers[index].outputs[0]]
        assert (accumulator.dtype, accumulator.shape) == (np.int32, output.shape)


def test_a_traced_run_gives_the_same_bits() -> None:
    graph = small_graph()
    feeds = random_feeds(graph, 1)
    program = compile_graph(graph)
    assert program.run(feeds).trace is None
    np.testing.assert_array_equal(program.run(feeds).outputs[0], program.run(feeds, trace=True).outputs[0])


def test_spec_kernels_and_thread_counts_agree() -> None:
    graph = small_graph()
    feeds = random_feeds(graph, 2)
    spec = compile_graph(graph, implementation="spec").run(feeds, accumulators=True).trace
    assert spec is not None
    for threads in (1, 2):
        fast = compile_graph(graph, threads=threads).run(feeds, accumulators=True).trace
        assert fast is not None
        for index, value in spec.tensors.items():
            np.testing.assert_array_equal(fast.tensors[index], value)
        for index, value in spec.accumulators.items():
            np.testing.assert_array_equal(fast.accumulators[index], value)


several_threads = pytest.mark.skipif(
    numba.config.NUMBA_NUM_THREADS < 2, reason="Numba was started with one thread"
)


@several_threads
@pytest.mark.usefixtures("tiny_layers_shared")
@pytest.mark.parametrize("trace", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("others", [1, 3])
def test_a_program_runs_on_its_own_number_of_threads_and_leaves_the_others(
    trace: bool, threads: int, others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[int] = []
    original = POOL.run

    def recording(job: Job) -> int:
        entered.append(job.threads)
        return original(job)

    monkeypatch.setattr(POOL, "run", recording)
    graph = small_graph()
    program = compile_graph(graph, threads=threads)
    with threads_in_force(others):
        expected = program.run(random_feeds(graph, 0), trace).outputs
        again = program.run(random_feeds(graph, 0), trace, progress=iter).outputs
        assert count_in_force() == others
    assert set(entered) == ({2} if threads == 2 else set())
    assert [x.tobytes() for x in again] == [x.tobytes() for x in expected]


@several_threads
@pytest.mark.usefixtures("tiny_layers_shared")
def test_layers_run_one_by_one_where_somebody_looks_on_and_together_where_nobody_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lengths: list[int] = []
    original = POOL.run

    def recording(job: Job) -> int:
        lengths.append(len(job.table))
        return original(job)

    monkeypatch.setattr(POOL, "run", recording)
    graph = small_graph()
    program = compile_graph(graph, threads=2)
    program._workspace.run.decision = 1  # the first runs would try one thread, too
    program.run(random_feeds(graph, 0))
    together = lengths.copy()
    lengths.clear()
    program.run(random_feeds(graph, 0), progress=iter)
    assert lengths == [1] * sum(together)
    assert max(together) > 1


@several_threads
def test_a_small_network_takes_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The image's size decides; the bits do not change."""
    graph = small_graph()
    work = count(graph).macs + engine.VALUE_WORK * sum(
        math.prod(graph.tensors[index].shape) for layer in graph.layers for index in layer.outputs
    )
    for limit, threads in ((work, 2), (work + 1, 1)):
        monkeypatch.setattr(engine, "SERIAL_WORK", limit)
        assert compile_graph(graph, threads=2).target.threads == threads
        assert compile_graph(graph, threads=2, share_small=True).target.threads == 2
        assert compile_graph(graph, threads=1).target.threads == 1


def test_programs_run_from_several_python_threads() -> None:
    graph = small_graph()
    program = compile_graph(graph)
    feeds = [random_feeds(graph, seed) for seed in range(4)]
    expected = [program.run(feed).outputs[0] for feed in feeds]
    found: dict[int, np.ndarray] = {}

    def work(number: int) -> None:
        for _ in range(5):
            found[number] = program.run(feeds[number]).outputs[0]

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for number, value in enumerate(expected):
        np.testing.assert_array_equal(found[number], value)


def test_feeds_by_name_index_and_order_are_the_same() -> None:
    graph = small_graph()
    program = compile_graph(graph)
    value = random_feeds(graph, 3)[graph.inputs[0]]
    expected = program.run({graph.inputs[0]: value}).outputs[0]
    np.testing.assert_array_equal(program.run({"image": value}).outputs[0], expected)
    np.testing.assert_array_equal(program.run([value]).outputs[0], expected)
    # A view with other strides is the same array.
    np.testing.assert_array_equal(program.run([np.asfortranarray(value)]).outputs[0], expected)


@pytest.mark.parametrize(
    ("feeds", "said"),
    [
        ({}, "no value given"),
        ({"picture": np.zeros(1)}, "no input 'picture'"),
        ({99: np.zeros(1)}, "no input 99"),
        ([], "0 arrays given"),
        ({"image": np.zeros((1, 8, 8, 3), np.float32)}, "needs int8"),
        ({"image": np.zeros((2, 8, 8, 3), np.int8)}, r"needs \(1, 8, 8, 3\)"),
    ],
)
def test_wrong_feeds_are_refused(feeds: object, said: str) -> None:
    with pytest.raises(FeedError, match=said):
        compile_graph(small_graph()).run(feeds)  # type: ignore[arg-type]


def test_unknown_profile_and_thread_count_are_usage_errors() -> None:
    with pytest.raises(UsageError, match=r"known: litert-2\.3-ref"):
        compile_graph(small_graph(), "default")
    with pytest.raises(UsageError, match="threads"):
        compile_graph(small_graph(), threads=0)
