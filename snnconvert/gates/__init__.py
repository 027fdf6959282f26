"""Conditions that a report must meet, and what continuous integration reads of them."""
