"""`python -m reference_impl`."""

from reference_impl.cli import main

if __name__ == "__main__":
    main()
