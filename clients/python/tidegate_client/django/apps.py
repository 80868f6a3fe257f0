"""The app that brings the outbox's table and its command."""

from django.apps import AppConfig


class TidegateConfig(AppConfig):
    name = "tidegate_client.django"
    label = "tidegate"
    verbose_name = "Tidegate"
    default_auto_field = "django.db.models.BigAutoField"
