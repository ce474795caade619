"""Definitions that were there before histories: each gets a first record, of how it stands now."""

from django.db import migrations
from django.utils import timezone

REASON = "as it stood when histories began"


def begin(apps, schema_editor):
    now = timezone.now()
    for name in ("Workflow", "WorkflowStep", "Connection"):
        model = apps.get_model("workflows", name)
        record = apps.get_model("workflows", f"Historical{name}")
        ours = [field.attname for field in record._meta.concrete_fields]
        shared = [field.attname for field in model._meta.concrete_fields if field.attname in ours]
        rows = model.objects.using(schema_editor.connection.alias).values(*shared).iterator()
        for row in rows:
            record.objects.using(schema_editor.connection.alias).create(
                **row,
                history_date=now,
                history_type="+",
                history_user_id="not recorded",
                history_change_reason=REASON,
            )


class Migration(migrations.Migration):
    dependencies = [("workflows", "0003_histories_and_rights")]
    operations = [migrations.RunPython(begin, migrations.RunPython.noop)]
