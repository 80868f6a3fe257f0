from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("tidegate", "0001_initial")]  # noqa: RUF012 - Django's way

    operations = [  # noqa: RUF012
        migrations.AddField("outboxpush", "conflate", models.CharField(default="", max_length=128)),
    ]
