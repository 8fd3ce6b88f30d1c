"""`python -m modbench` is the same program as `modbench`."""

from modbench.cli import main

main()
