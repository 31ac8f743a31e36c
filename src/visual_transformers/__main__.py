"""`python -m visual_transformers`: the command line of the suite."""

from visual_transformers.cli.main import main

if __name__ == "__main__":
    main()
