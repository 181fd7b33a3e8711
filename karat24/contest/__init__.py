"""Speed: the oracle and real runtimes timed in turns, each in a process of its own, parity first.

``contestants`` says who takes part, ``process`` talks to the child process of each (whose script is
``delegates/workers/stopwatch.py``), ``runner`` holds the contest, ``figures`` is the result, ``table``
prints it.
"""
