"""``python -m benchmarks.quality``: measuring what restoration gains and what quantization costs.

``cases`` are the slices, ``plans`` the quantized networks, ``methods`` the ways to restore a slice;
``evaluate`` applies and measures; ``summary``, ``tables`` and ``pictures`` present the results.
"""
