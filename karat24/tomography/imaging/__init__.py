"""X-ray tomography: simulated scans, reconstruction, and the files TomoGAN is trained on."""
