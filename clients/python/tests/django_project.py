"""Settings of a small Django project on SQLite: an application with an order and with Tidegate's outbox."""

import os

SECRET_KEY = "of a project that is only tested"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("TEST_DJANGO_DATABASE", ":memory:"),
        "OPTIONS": {"timeout": 20},
    }
}
INSTALLED_APPS = ["tidegate_client.django"]
TIDEGATE = {"URL": os.environ.get("TEST_DJANGO_TIDEGATE", "http://127.0.0.1:9"), "DEADLINE_S": 1}
USE_TZ = True
