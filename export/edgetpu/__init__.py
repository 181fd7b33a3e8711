"""The Edge TPU's files: what may be compiled, the compiler, and reading what it wrote."""

from karat24.export.edgetpu.package import Executable, IoLayer, Package, read_package
from karat24.export.edgetpu.read import CompiledModel, CompiledOp, compiled_from, is_compiled, read_compiled

__all__ = [
    "CompiledModel",
    "CompiledOp",
    "Executable",
    "IoLayer",
    "Package",
    "compiled_from",
    "is_compiled",
    "read_compiled",
    "read_package",
]
