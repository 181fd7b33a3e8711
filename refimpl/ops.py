"""The table of ops. Adding one: a file in ``refimpl/spec``, a line here, a reader and writer
line per format, a test, optionally a kernel in ``refimpl/kernels``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from refimpl.contract import Op

OPS: Mapping[str, Op] = MappingProxyType({})
"""Op name, in its format's own words, to the check and slow spec that define it."""
