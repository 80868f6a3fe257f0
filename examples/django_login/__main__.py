"""A site with a login by cookie, which the gateway asks who a client is: ``python -m examples.django_login``. See
README.md."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application


def configure(database: str) -> None:
    settings.configure(
        SECRET_KEY="of this example alone, which runs on one machine",
        ALLOWED_HOSTS=["127.0.0.1", "localhost"],
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": database}},
        ROOT_URLCONF="examples.django_login.urls",
        PASSWORD_HASHERS=["django.contrib.auth.hashers.PBKDF2PasswordHasher"],
        LOGIN_URL="/login/",
        USE_TZ=True,
    )
    django.setup()


class Handler(WSGIRequestHandler):  # type: ignore[misc]
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a site that is asked by a gateway hears much."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.django_login", description=__doc__)
    parser.add_argument("--port", type=int, default=8100)
    parser.add_argument("--gateway", default="ws://127.0.0.1:8000/ws-notifications/?groups=news", metavar="URL")
    parser.add_argument("--user", action="append", default=[], metavar="NAME:PASSWORD", help="may log in")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        configure(str(Path(folder) / "db.sqlite3"))
        call_command("migrate", verbosity=0)
        from django.contrib.auth.models import User

        from examples.django_login import views

        views.GATEWAY = json.dumps(asked.gateway)
        for user in asked.user or ["alice:wonderland"]:
            name, _, password = user.partition(":")
            User.objects.create_user(name, password=password)
        server = ThreadedWSGIServer(("127.0.0.1", asked.port), Handler)
        server.daemon_threads = True
        server.set_app(get_wsgi_application())
        print(f"http://127.0.0.1:{asked.port}/", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
