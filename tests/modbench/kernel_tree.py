"""A made-up /proc and /sys for the tests of checks."""

from pathlib import Path


def make_tree(root: Path, files: dict[str, str]) -> Path:
    """Write files, named relative to the root, with a newline at their end as the kernel's have."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root
