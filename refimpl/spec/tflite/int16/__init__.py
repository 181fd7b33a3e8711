"""Arithmetic of ops on int16 activations: tables and 16-bit fixed point."""
