"""Proving that a model compiled for the Edge TPU carries its source, without the device."""

from karat24.golden.edgetpu.finding import Finding, LayerProof, ParameterBytes, Proof
from karat24.golden.edgetpu.proof import prove
from karat24.golden.edgetpu.render import conclusion, lines

__all__ = ["Finding", "LayerProof", "ParameterBytes", "Proof", "conclusion", "lines", "prove"]
