"""Trained weights, as .npz files. How each was trained stands beside it."""
