"""The child process of one contestant: opens a model, runs it, and tells how long it took.

Runs as a script, under the interpreter of the contestant's runtime. Only :class:`Oracle` imports more of
this project than the neighbours of this file; whoever starts it puts the project on ``PYTHONPATH``.

    python stopwatch.py SCRATCH_DIR
"""

from __future__ import annotations

import collections
import json
import os
import statistics
import sys
import tempfile
import time
from typing import Any

import tflite_worker
from protocol import serve

_ORT_KERNEL_TIME = "_kernel_time"


class Oracle:
    """karat24 itself, with a profile and perhaps a trace."""

    def __init__(self, lane: dict[str, Any], model: str, threads: int, feeds: list[Any]) -> None:
        from karat24.export import graph_under, read_model
        from karat24.refimpl.engine import compile_graph
        from karat24.refimpl.profiles import profile_named

        self.imported = time.perf_counter()
        profile = profile_named(lane["profile"])
        graph = graph_under(read_model(model), profile)
        self.program = compile_graph(graph, profile, threads)
        self.feeds, self.traced = feeds, lane["traced"]
        self.isa = self.program.target.isa

    def run(self) -> Any:
        """Runs once."""
        return self.program.run(self.feeds, trace=self.traced)

    def results(self, last: Any) -> Any:
        """Outputs of the last run, in graph order."""
        return last.outputs

    def layers(self, count: int) -> list[dict[str, Any]]:
        """Median seconds of each layer over ``count`` runs."""
        spent: dict[int, list[float]] = collections.defaultdict(list)
        ops: dict[int, str] = {}

        def timed(steps: Any) -> Any:
            for step in steps:
                start = time.perf_counter()
                yield step
                spent[step.view.layer.index].append(time.perf_counter() - start)
                ops[step.view.layer.index] = step.view.op

        for _ in range(count):
            self.program.run(self.feeds, progress=timed)
        return [
            {"layer": index, "name": "", "op": ops[index], "seconds": statistics.median(times)}
            for index, times in spent.items()
        ]

    def peak(self, threads: int) -> float:
        """Multiplication-additions per second the instruction set's micro-kernel reaches."""
        from karat24.refimpl.kernels.microkernel.peak import measure_peak

        return measure_peak(self.isa, threads)

    def versions(self) -> dict[str, str]:
        """Versions of the libraries that its figures depend on."""
        import numba
        import numpy as np

        from karat24.refimpl import __version__

        return {"karat24": __version__, "numpy": np.__version__, "numba": numba.__version__}


class Tflite:
    """A lane of LiteRT or tflite-runtime."""

    isa = ""

    def __init__(self, lane: dict[str, Any], model: str, threads: int, feeds: list[Any]) -> None:
        self.lane = tflite_worker.Lane(lane)
        self.imported = time.perf_counter()
        self.interpreter = self.lane.interpreter(model, threads, False)
        inputs = [detail["index"] for detail in self.interpreter.get_input_details()]
        self.feeds = list(zip(inputs, feeds))  # noqa: B905 - Python 3.9
        self.outputs = [detail["index"] for detail in self.interpreter.get_output_details()]

    def run(self) -> Any:
        """Runs once, from arrays to arrays: the others take their inputs and give their outputs, too."""
        for index, array in self.feeds:
            self.interpreter.set_tensor(index, array)
        self.interpreter.invoke()
        return [self.interpreter.get_tensor(index) for index in self.outputs]

    def results(self, last: Any) -> Any:
        """Outputs of the last run, in graph order."""
        return last

    def layers(self, _: int) -> str:
        """The reason why LiteRT gives no times of layers."""
        return f"{self.lane.package} tells no times of layers through its Python interface"

    def versions(self) -> dict[str, str]:
        """Versions of the libraries that its figures depend on."""
        return dict(self.lane.versions())


class Onnx:
    """A lane of ONNX Runtime, or onnx.reference."""

    isa = ""

    def __init__(self, lane: dict[str, Any], model: str, threads: int, feeds: list[Any]) -> None:
        import onnx_worker

        self.lane = onnx_worker.Lane(lane)
        self.imported = time.perf_counter()
        self.model, self.threads = model, threads
        self.session = self.lane.session(model, threads)
        self.names = lane["outputs"]
        self.feeds = dict(zip(lane["inputs"], feeds))  # noqa: B905 - Python 3.9

    def run(self) -> Any:
        """Runs once."""
        return self.session.run(self.names, self.feeds)

    def results(self, last: Any) -> Any:
        """Outputs of the last run, in graph order."""
        return last

    def layers(self, count: int) -> list[dict[str, Any]] | str:
        """Median seconds of each node ONNX Runtime is left with after fusing, by its own profiler."""
        if not self.lane.request["provider"]:
            return "onnx.reference has no profiler"
        with tempfile.TemporaryDirectory() as folder:
            session = self._profiled(os.path.join(folder, "profile"))
            for _ in range(count + 1):
                session.run(self.names, self.feeds)
            with open(session.end_profiling(), encoding="utf-8") as file:
                events = json.load(file)
        spent: dict[str, list[float]] = collections.defaultdict(list)
        ops: dict[str, str] = {}
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith(_ORT_KERNEL_TIME):
                name = event["name"][: -len(_ORT_KERNEL_TIME)]
                spent[name].append(event["dur"] * 1e-6)
                ops[name] = event["args"]["op_name"]
        return [
            {"layer": None, "name": name, "op": ops[name], "seconds": statistics.median(times[1:])}
            for name, times in spent.items()
        ]

    def _profiled(self, prefix: str) -> Any:
        """A session like the timed one that keeps times of its nodes."""
        module, request = self.lane.module, self.lane.request
        options = module.SessionOptions()
        options.graph_optimization_level = getattr(module.GraphOptimizationLevel, request["level"])
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.log_severity_level = 3
        options.enable_profiling, options.profile_file_prefix = True, prefix
        for key, value in request["entries"].items():
            options.add_session_config_entry(key, value)
        return module.InferenceSession(self.model, options, providers=[request["provider"]])

    def versions(self) -> dict[str, str]:
        """Versions of the libraries that its figures depend on."""
        return dict(self.lane.versions())


KINDS: dict[str, Any] = {"oracle": Oracle, "tflite": Tflite, "onnx": Onnx}


class Stopwatch:
    """Answers: ``open`` comes first, then whatever is asked about the model opened."""

    def __init__(self, scratch: str) -> None:
        self.scratch = scratch
        self.runner: Any = None
        self.last: Any = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to any request. Raises Refused, or whatever the runtime raises."""
        answers = {
            "open": self.open, "time": self.time, "outputs": self.outputs, "layers": self.layers,
            "peak": self.peak, "memory": self.memory,
        }  # fmt: skip
        return dict(answers[request["ask"]](request))

    def open(self, request: dict[str, Any]) -> dict[str, Any]:
        """Imports the runtime, opens the model, runs it once; seconds of each."""
        os.environ.update(request["environment"])
        start = time.perf_counter()
        import numpy as np

        feeds = [np.load(path) for path in request["feeds"]]
        runner = KINDS[request["kind"]](request["lane"], request["model"], request["threads"], feeds)
        opened = time.perf_counter()
        self.last = runner.run()
        done = time.perf_counter()
        self.runner = runner
        return {
            "import_s": runner.imported - start,
            "open_s": opened - runner.imported,
            "first_run_s": done - opened,
            "isa": runner.isa,
            "versions": runner.versions(),
            "python": sys.version.split()[0],
        }

    def time(self, request: dict[str, Any]) -> dict[str, Any]:
        """Seconds of each of ``count`` runs, after ``untimed`` ones."""
        for _ in range(request["untimed"]):
            self.last = self.runner.run()
        seconds = []
        for _ in range(request["count"]):
            self.last = None  # frees its memory for the next result
            start = time.perf_counter()
            self.last = self.runner.run()
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds}

    def outputs(self, request: dict[str, Any]) -> dict[str, Any]:
        """The last run's outputs, as files, by position."""
        import numpy as np

        paths = {}
        for position, value in enumerate(self.runner.results(self.last)):
            paths[position] = os.path.join(self.scratch, f"{request['id']}.{position}.npy")
            np.save(paths[position], np.asarray(value))
        return {"tensors": paths}

    def layers(self, request: dict[str, Any]) -> dict[str, Any]:
        """Where the time goes, or why the runtime cannot tell."""
        found = self.runner.layers(request["count"])
        return {"why_not": found, "layers": []} if isinstance(found, str) else {"layers": found}

    def peak(self, request: dict[str, Any]) -> dict[str, Any]:
        """The peak rate of the oracle's instruction set, multiplication-additions per second."""
        return {"macs_per_s": self.runner.peak(request["threads"])}

    def memory(self, _: dict[str, Any]) -> dict[str, Any]:
        """The most bytes this process has had resident."""
        return {"bytes": high_water_mark()}


def high_water_mark() -> int:
    """Most bytes ever resident in this process; 0 where the system does not tell.

    Not ``ru_maxrss`` on Linux: a child starts with its parent's.
    """
    try:
        with open("/proc/self/status", encoding="utf-8") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    serve(Stopwatch)
