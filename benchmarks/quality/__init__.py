"""What restoration and quantization are worth, measured: ``python -m benchmarks.quality``.

``cases`` are the slices, ``plans`` the quantized networks, ``methods`` what is applied to each slice,
``evaluate`` applies and measures, ``summary``, ``tables`` and ``pictures`` say what came out.
"""
