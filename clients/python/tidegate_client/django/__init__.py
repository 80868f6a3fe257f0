"""Tidegate in a Django project: ``publisher()`` as the settings say, ``push_on_commit``, and an outbox in the database.

    INSTALLED_APPS = [..., "tidegate_client.django"]   # for the outbox only
    TIDEGATE = {"URL": "http://127.0.0.1:8001", "API_KEY": "..."}

Keys of ``TIDEGATE`` are the options of ``Publisher`` in capitals, and ``OUTBOX`` (``settings``). ``outbox`` is a
module of its own, because it has a model: ``from tidegate_client.django import outbox`` where apps are loaded."""

from tidegate_client.django.on_commit import push_many_on_commit, push_on_commit
from tidegate_client.django.publishers import async_publisher, publisher, use_publisher

__all__ = ["async_publisher", "publisher", "push_many_on_commit", "push_on_commit", "use_publisher"]
