"""From raw projections to slices: corrections, the rotation axis, ring removal, filtered back projection."""
