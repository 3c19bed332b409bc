"""`python -m openxclip` is the command, too."""

from openxclip.cli.main import main

if __name__ == "__main__":
    main()
