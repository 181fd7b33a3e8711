"""``python -m benchmarks.papers``: experiments of two papers, repeated on data that packages contain."""
