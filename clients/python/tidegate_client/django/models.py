"""The outbox: pushes that are committed together with what they tell of."""

from __future__ import annotations

from django.db import models
from django.utils import timezone


class OutboxPush(models.Model):
    """One push. It is sent with its key and its text, however often, so that it is not doubled. ``done_at``: when it
    was accepted, or given up; then ``error`` is the code of the refusal."""

    id = models.BigAutoField(primary_key=True)
    stream = models.CharField(max_length=135)
    key = models.CharField(max_length=128)
    conflate = models.CharField(max_length=128, default="")
    traceparent = models.CharField(max_length=55, default="")
    data = models.TextField()
    created_at = models.DateTimeField(default=timezone.now)
    done_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=64, default="")

    class Meta:
        app_label = "tidegate"
        db_table = "tidegate_outbox"
        verbose_name = "outbox push"
        verbose_name_plural = "outbox pushes"
        indexes = [models.Index(fields=["done_at", "id"], name="tidegate_outbox_done")]  # noqa: RUF012 - Django's way

    def __str__(self) -> str:
        return f"{self.stream} ({self.error or ('sent' if self.done_at else 'waiting')})"
