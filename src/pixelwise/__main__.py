"""`python -m pixelwise`, as torchrun starts it."""

from pixelwise.cli.app import main

if __name__ == "__main__":
    main()
