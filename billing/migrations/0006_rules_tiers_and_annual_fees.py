from decimal import Decimal

from django.apps.registry import Apps
from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

ANNUAL_FEES = {"developer": 0, "professional": 1188, "team": 3588}
VOLUME_RULES = [
    # name, min_amount, percent
    ("Volume 500", 500, 5),
    ("Volume 2,000", 2000, 10),
]

# The order of tiers is about several rows, so no CHECK can say it. It is looked at where the
# transaction commits, when all of them are there.
TIERS_IN_ORDER = """
CREATE FUNCTION billing_tiers_are_in_order() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    checked bigint;
    charged text;
    tiers integer;
    open_tiers integer;
    last_is_open boolean;
    rising boolean;
BEGIN
    IF TG_TABLE_NAME = 'billing_price' THEN
        checked := NEW.id;
    ELSE
        checked := COALESCE(NEW.price_id, OLD.price_id);
    END IF;
    SELECT charge INTO charged FROM billing_price WHERE id = checked;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT count(*), count(*) FILTER (WHERE up_to IS NULL),
           bool_and(up_to IS NULL) FILTER (WHERE is_last),
           bool_and(up_to > before) FILTER (WHERE before IS NOT NULL AND up_to IS NOT NULL)
      INTO tiers, open_tiers, last_is_open, rising
      FROM (SELECT up_to, lag(up_to) OVER by_position AS before,
                   lead(position) OVER by_position IS NULL AS is_last
              FROM billing_pricetier WHERE price_id = checked
            WINDOW by_position AS (ORDER BY position)) AS ordered;
    IF charged NOT IN ('graduated', 'volume') AND tiers > 0 THEN
        RAISE EXCEPTION 'A % price has no tiers. Delete them, or charge graduated or volume.',
            charged USING ERRCODE = 'check_violation', CONSTRAINT = 'tiers_are_of_a_tiered_price';
    END IF;
    IF charged IN ('graduated', 'volume') AND tiers = 0 THEN
        RAISE EXCEPTION 'A % price needs tiers. Add at least one, with up_to left empty.', charged
            USING ERRCODE = 'check_violation', CONSTRAINT = 'tiered_price_has_tiers';
    END IF;
    IF tiers > 0 AND (open_tiers <> 1 OR NOT last_is_open) THEN
        RAISE EXCEPTION 'Leave up_to empty in the last tier, and only there.'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'last_tier_is_open';
    END IF;
    IF NOT COALESCE(rising, true) THEN
        RAISE EXCEPTION 'Tiers are out of order. Let every up_to be more than the one before.'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'tiers_are_in_order';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER tiers_are_in_order
    AFTER INSERT OR UPDATE OR DELETE ON billing_pricetier
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_tiers_are_in_order();
CREATE CONSTRAINT TRIGGER tiers_are_those_of_the_charge
    AFTER INSERT OR UPDATE ON billing_price
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION billing_tiers_are_in_order();
"""
NO_TRIGGERS = """
DROP TRIGGER tiers_are_those_of_the_charge ON billing_price;
DROP TRIGGER tiers_are_in_order ON billing_pricetier;
DROP FUNCTION billing_tiers_are_in_order();
"""


def seed(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    database = schema_editor.connection.alias
    plans = apps.get_model("billing", "Plan").objects.using(database)
    for code, annual_fee in ANNUAL_FEES.items():
        plans.filter(code=code).update(annual_fee=annual_fee)
    rules = apps.get_model("billing", "DiscountRule").objects.using(database)
    for name, min_amount, percent in VOLUME_RULES:
        rules.create(
            name=name,
            kind="volume",
            currency="USD",
            min_amount=Decimal(min_amount),
            percent=Decimal(percent),
        )


def unseed(apps: Apps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    rules = apps.get_model("billing", "DiscountRule").objects
    rules.using(schema_editor.connection.alias).all().delete()


class Migration(migrations.Migration):
    dependencies = [("billing", "0005_what_must_hold_of_prices_and_credits")]

    operations = [
        migrations.RunSQL(TIERS_IN_ORDER, NO_TRIGGERS),
        migrations.RunPython(seed, unseed),
    ]
