"""`python -m openxclip` runs the command."""

from openxclip.cli.main import main

if __name__ == "__main__":
    main()
