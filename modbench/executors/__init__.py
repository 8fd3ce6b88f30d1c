"""WHERE runs happen: one file per executor."""
