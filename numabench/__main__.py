"""`python -m numabench` is the `numabench` command."""

from .cli import main

if __name__ == "__main__":
    main()
