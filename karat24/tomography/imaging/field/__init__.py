"""Samples and scans as the field has them: faint structure, any noise, any neighbours, few views and many.

``samples`` builds them, ``faint`` lays structure of little contrast over them, ``scans`` takes the scan.
"""
