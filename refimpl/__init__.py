"""The oracle: the graph, arithmetic profiles, slow specs, fast kernels and the engine."""

__version__ = "0.1.0"
