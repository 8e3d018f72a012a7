from django.apps.registry import Apps
from django.db import connections, migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

# The trail is only added to. Names and addresses of people that are to be erased are taken out of
# its entries by one function alone, which leaves what happened, when, and by whom: the
# application's role may call it, and may not change an entry in any other way.
ERASE = """
CREATE OR REPLACE FUNCTION billing_audit_entry_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND current_setting('billing.erasing', true) = 'yes'
        AND to_jsonb(NEW) - '{before,after}'::text[] = to_jsonb(OLD) - '{before,after}'::text[]
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'The audit trail is only added to.'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'audit_entry_stays';
END $$;

CREATE FUNCTION billing_without(kept jsonb, names text[]) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN kept IS NULL THEN NULL ELSE COALESCE(jsonb_object_agg(
        key,
        CASE WHEN key = ANY (names) AND value NOT IN ('null', '""')
             THEN '"(erased)"'::jsonb ELSE value END
    ), '{}') END
    FROM jsonb_each(kept)
$$;

CREATE FUNCTION billing_erase_audit(account uuid, users text[], names text[]) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    changed integer;
BEGIN
    PERFORM set_config('billing.erasing', 'yes', true);
    UPDATE billing_auditentry
       SET before = billing_without(before, names), after = billing_without(after, names)
     WHERE (account_id = account OR (table_name = 'auth_user' AND row_id = ANY (users)))
       AND (before, after) IS DISTINCT FROM
           (billing_without(before, names), billing_without(after, names));
    GET DIAGNOSTICS changed = ROW_COUNT;
    PERFORM set_config('billing.erasing', '', true);
    RETURN changed;
END $$;
REVOKE EXECUTE ON FUNCTION billing_erase_audit(uuid, text[], text[]) FROM PUBLIC;
"""
NO_ERASING = """
DROP FUNCTION billing_erase_audit(uuid, text[], text[]);
DROP FUNCTION billing_without(jsonb, text[]);
CREATE OR REPLACE FUNCTION billing_audit_entry_stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'The audit trail is only added to.'
        USING ERRCODE = 'check_violation', CONSTRAINT = 'audit_entry_stays';
END $$;
"""


def let_application_erase(_apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    role = schema_editor.quote_name(connections["default"].settings_dict["USER"])
    schema_editor.execute(
        f"GRANT EXECUTE ON FUNCTION billing_erase_audit(uuid, text[], text[]) TO {role}"
    )


class Migration(migrations.Migration):
    dependencies = [("billing", "0035_monitoring")]

    operations = [
        migrations.RunSQL(ERASE, NO_ERASING),
        migrations.RunPython(let_application_erase, migrations.RunPython.noop),
    ]
