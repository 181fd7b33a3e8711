"""Compiled code: where it is kept, for which processor, and how it is called.

Importing this package settles the first two; ``refimpl/kernels/__init__.py`` does so before any kernel.
"""

from karat24.refimpl.kernels.jit import compile_cache, isa

__all__ = ["compile_cache", "isa"]
