"""Judging values that another runtime gave: reading dumps, finding out how they were written."""
