"""Speed, measured as ratios to a peer in one interleaved run, parity first."""
