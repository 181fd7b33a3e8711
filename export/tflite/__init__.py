"""Reading and writing .tflite files."""

from export.tflite.ops import lowest_version, with_lowest_versions
from export.tflite.write import write_tflite

__all__ = ["lowest_version", "with_lowest_versions", "write_tflite"]
