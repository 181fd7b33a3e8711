"""The one tree of errors every room raises.

::

    KaratError
    ├── UsageError             a flag, path or option that cannot be used           exit 2
    ├── ModelError             a model file or graph that is malformed              exit 2
    │   ├── WrongShape         a tensor whose shape is not the one its layer gives   exit 2
    │   └── UnsupportedOp      a well-formed op (or variant of one) nobody wrote    exit 2
    │       └── RefusedByRuntime   a layer the runtime of a profile refuses itself  exit 2
    ├── FeedError              an input array that does not fit the model           exit 2
    ├── CannotCompare          two results that must not be compared                exit 3
    │   └── DamagedGolden      a golden that is not as it was written               exit 3
    └── DelegateError          a real runtime that did not do its part              exit 3
        ├── DelegateUnavailable    library, driver or device is missing
        ├── DelegateCrashed        the child process died (signal, abort)
        └── DelegateTimeout        the child process exceeded its time limit

Every message says what was found, where (file, layer, tensor) and what to do.
"""

from __future__ import annotations


class KaratError(Exception):
    """Base of all errors raised on purpose; ``exit_code`` is what the command line returns."""

    exit_code = 2


class UsageError(KaratError):
    """A flag, path or option cannot be used as given."""


class ModelError(KaratError):
    """A model file or graph is malformed or inconsistent."""


class WrongShape(ModelError):
    """Tensor ``tensor`` of a graph has another shape than its layer computes for it."""

    def __init__(self, message: str, tensor: int, computed: tuple[int, ...]) -> None:
        super().__init__(message)
        self.tensor = tensor
        self.computed = computed


class UnsupportedOp(ModelError):
    """The graph is well formed but holds an op, or a variant of one, that has no implementation."""


class RefusedByRuntime(UnsupportedOp):
    """The runtime that a profile describes refuses the layer, so that there is no result to give."""


class FeedError(KaratError):
    """An input array does not fit the model: wrong name, shape, dtype or value range."""


class CannotCompare(KaratError):
    """Two results must not be compared: other model, other input, other profile or machine."""

    exit_code = 3


class DamagedGolden(CannotCompare):
    """A golden is not as it was written: cut off, edited or merged by hand."""


class DelegateError(KaratError):
    """A real runtime did not do its part."""

    exit_code = 3


class DelegateUnavailable(DelegateError):
    """The runtime's library, driver or device is missing; the message says how to get it."""


class DelegateCrashed(DelegateError):
    """The runtime killed its child process."""


class DelegateTimeout(DelegateError):
    """The runtime did not answer within its time limit."""
