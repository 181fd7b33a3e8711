"""Reading and writing .tflite files."""

from karat24.export.tflite.ops import lowest_version, with_lowest_versions
from karat24.export.tflite.read import read_tflite, tflite_subgraphs
from karat24.export.tflite.write import write_tflite

__all__ = ["lowest_version", "read_tflite", "tflite_subgraphs", "with_lowest_versions", "write_tflite"]
