"""What staff see of payments, one noun a module. Django imports this package to find them."""

import payments.admin.attempts
import payments.admin.cards
import payments.admin.collections
import payments.admin.customers
import payments.admin.differences
import payments.admin.disputes
import payments.admin.dunning
import payments.admin.events
import payments.admin.fee_subscriptions
import payments.admin.invoices
import payments.admin.payments
import payments.admin.platform_requests
import payments.admin.refunds
import payments.admin.refusals
import payments.admin.schedule  # noqa: F401 - imported so that they register, as the others
