"""Entry point of `python -m openxclip`."""

from openxclip.cli.main import main

if __name__ == "__main__":
    main()
