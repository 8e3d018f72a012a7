from __future__ import annotations


class OwnerMigrates:
    """Let only the owner's connection make tables; the application's role may not."""

    def allow_migrate(self, db: str, app_label: str, **_hints: object) -> bool:
        """Return whether migrations of any app run over this connection."""
        del app_label
        return db == "owner"
