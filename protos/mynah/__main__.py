"""`python -m mynah`: the `mynah` command."""

from mynah.cli.main import main

if __name__ == "__main__":
    main()
