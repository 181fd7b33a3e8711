"""Training TomoGAN and Fine-Tune with PyTorch. Outside the wheel; its only product is weight files."""
