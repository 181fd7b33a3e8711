"""Judging: differences in LSBs, verdicts per layer, explanations and reports."""
