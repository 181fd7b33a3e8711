"""Speed: the oracle and real runtimes timed in turns, each in a process of its own, parity first.

``contestants`` says who takes part, ``stopwatch`` is the script that runs one of them in a child
process, ``entrant`` talks to it, ``contest`` holds the contest, ``figures`` is what comes out,
``table`` prints it.
"""
