"""X-ray tomography: simulated scans, tiles, the restoration of a slice by TomoGAN, and the demonstration."""
