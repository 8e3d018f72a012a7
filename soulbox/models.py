from __future__ import annotations

from django.db import models


class Canary(models.Model):
    """When a worker last took the task by which beat asks whether a queue is served."""

    queue = models.CharField(max_length=100, primary_key=True)
    sang_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "canaries"

    def __str__(self) -> str:
        return f"{self.queue} at {self.sang_at}"


class KeptFigures(models.Model):
    """Figures for a monitor that were taken in the background, as figures.take_figures has them."""

    name = models.CharField(max_length=100, primary_key=True)
    taken_at = models.DateTimeField()
    # Lists of a series' name, its labels' values, and its value. None of it is billed.
    rows = models.JSONField()

    class Meta:
        verbose_name_plural = "kept figures"

    def __str__(self) -> str:
        return f"{self.name} at {self.taken_at}"
