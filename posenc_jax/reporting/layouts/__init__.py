"""The forms of tables that papers print."""
