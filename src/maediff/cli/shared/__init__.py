"""Options, errors and command classes that all commands share."""
