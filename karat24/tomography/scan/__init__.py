"""Whole scans: a reconstructed volume restored slice by slice, interruptible, repeatable and checkable.

``volumes`` reads, ``outputs`` writes. In between lie ``sampling``, ``masks`` and ``greyscale`` (one scale for
all slices), ``window`` (what a network sees), ``recipe`` and ``restorer`` (what is done to a slice),
``plan``, ``manifest``, ``records`` and ``lock`` (what a run relies on), ``work`` (one slice), ``pool`` and
``cluster`` (many slices), ``run``, ``check``, ``pictures`` and ``report``.
"""
