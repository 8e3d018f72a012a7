"""What finance staff see, one noun a module. Django imports this package to find them."""

import billing.admin.accounts
import billing.admin.api_keys
import billing.admin.audit_trail
import billing.admin.caps
import billing.admin.closings
import billing.admin.corrections
import billing.admin.credits
import billing.admin.desk
import billing.admin.discounts
import billing.admin.invoices
import billing.admin.members
import billing.admin.messages
import billing.admin.operator_keys
import billing.admin.outgoing_events
import billing.admin.plans
import billing.admin.price_books
import billing.admin.prices
import billing.admin.subscriptions
import billing.admin.top_ups
import billing.admin.unpriced
import billing.admin.users
import billing.admin.webhook_endpoints  # noqa: F401 - imported so that they register, as the others
