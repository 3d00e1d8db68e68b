"""`python -m tenfold_tools` is the command `tools`."""

from tenfold_tools.cli import main

if __name__ == "__main__":
    main()
