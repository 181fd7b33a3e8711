"""Scripts that run a runtime in a child process, and the protocol they answer in.

Each is started by its path, under any interpreter that has NumPy and the runtime, so it imports its
neighbours by bare name. Python puts a script's folder first on its path: no module here may have the name
of a runtime's package, hence ``onnx_worker`` and not ``onnx``.
"""

from pathlib import Path

_HERE = Path(__file__).parent

TFLITE_WORKER = _HERE / "tflite_worker.py"
TFLM_WORKER = _HERE / "tflm_worker.py"
ONNX_WORKER = _HERE / "onnx_worker.py"
TENSORRT_WORKER = _HERE / "tensorrt_worker.py"
STOPWATCH = _HERE / "stopwatch.py"
