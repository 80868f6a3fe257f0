from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("tidegate", "0002_outboxpush_conflate")]  # noqa: RUF012 - Django's way

    operations = [  # noqa: RUF012
        migrations.AddField("outboxpush", "traceparent", models.CharField(default="", max_length=55)),
    ]
