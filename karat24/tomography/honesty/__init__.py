"""What a restoration took away, judged without knowing the truth, and given back where it was no noise.

``bands`` splits an image by size of structure, exactly; ``views`` reads the number of views off a slice;
``noise`` measures the noise of a volume; ``residual`` tests what was removed from a slice; ``mixing`` gives
back. Grey values are those of :mod:`karat24.tomography.imaging.normalize`.
"""
