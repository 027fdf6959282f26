"""Distillation of the original network into the spiking one: the loop's own loss, and nothing else."""

from __future__ import annotations

from snnconvert.train.method import Method


class Distill(Method):
    """KL divergence of the mean answer from the teacher's, both softened by the temperature."""
