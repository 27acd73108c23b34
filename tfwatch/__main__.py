"""`python -m tfwatch`."""

from tfwatch.cli import main

if __name__ == "__main__":
    main()
