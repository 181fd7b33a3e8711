"""Measuring speed as ratios to a peer in one interleaved run, after outputs were compared."""
