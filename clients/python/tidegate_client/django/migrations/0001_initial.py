import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies: list[tuple[str, str]] = []  # noqa: RUF012 - Django's way

    operations = [  # noqa: RUF012
        migrations.CreateModel(
            name="OutboxPush",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("stream", models.CharField(max_length=135)),
                ("key", models.CharField(max_length=128)),
                ("data", models.TextField()),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("done_at", models.DateTimeField(null=True)),
                ("error", models.CharField(default="", max_length=64)),
            ],
            options={
                "verbose_name": "outbox push",
                "verbose_name_plural": "outbox pushes",
                "db_table": "tidegate_outbox",
                "indexes": [models.Index(fields=["done_at", "id"], name="tidegate_outbox_done")],
            },
        ),
    ]
