"""`python -m healthagent`."""

from healthagent.commands import main

if __name__ == "__main__":
    main()
