"""What the ops of int16 activations compute that those of 8 bits do not: tables and 16-bit fixed point."""
