"""Judging values that somebody else's runtime gave: reading dumps, finding out how they were written."""
