"""``python -m reportlabel``."""

from reportlabel.cli import main

main()
