"""What billing lets other code know, after it is committed.

A signal may be lost with its process. The rows are what counts: whoever must not miss anything
looks at them in a sweep of its own, and takes the signal as a hint.
"""

from __future__ import annotations

from django.dispatch import Signal

account_capped = Signal()
"""A hard cap is reached: `account_id` (UUID) and `cap_id` (int, of BudgetCap)."""

account_uncapped = Signal()
"""A hard cap is lifted, and others may still hold: `account_id` and `cap_id`."""
