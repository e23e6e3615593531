"""`python -m ddpo_lib.cli` is `ddpo`."""

from ddpo_lib.cli.main import main

main()
