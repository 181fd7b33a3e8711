"""Certifying a layer: models of its own meet every step of its arithmetic from both sides."""
