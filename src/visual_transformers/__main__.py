"""`python -m visual_transformers`: the command line of the suite."""

from visual_transformers.app import main

if __name__ == "__main__":
    main()
