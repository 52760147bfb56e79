"""The command line: one file per command, and ``main.py`` for the commands of the Trainer."""
