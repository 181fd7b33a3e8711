"""Training TomoGAN and Fine-Tune with PyTorch. This room is not in the wheel; it only produces weight
files."""
